"""The files of the embedded mirror: an OCI image layout that many repositories share.

Owns everything under its root but the blobs' contents:

    oci-layout                                         as the specification has it
    index.json                                         a view for other tools: every tag as `<repository>:<tag>`
    blobs/<algorithm>/<hex>                            kept by BlobStore
    repositories/<name>/_manifests/<algorithm>-<hex>   a manifest is in the repository; holds its descriptor
    repositories/<name>/_tags/<tag>                    holds the descriptor that the tag points at
    repositories/<name>/_referrers/<subject>/<digest>  holds the descriptor of a manifest that has this subject
    repositories/<name>/_visibility                    `public` or `private`, where one of them is known

The small files are the truth. Each is written under a temporary name, flushed and renamed, so that at any moment a
crash leaves either the old or the new one; a manifest's file comes after all it references, a tag after its manifest.
index.json is rendered from them, whole, and again at every start; it may lag behind by a moment. No component of a
repository's name begins with `_`. One process owns a root, for which it holds a lock. Refuses names that are no names.
Layout: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
"""

import contextlib
import fcntl
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from proxy.errors import AdmendError, MalformedInput
from proxy.files import TEMPORARY, writing
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_INDEX, Descriptor, Index, Manifest
from proxy.partial import sync_folder

REF_NAME = "org.opencontainers.image.ref.name"

Visibility = Literal["public", "private", ""]

_log = logging.getLogger(__name__)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Layout:
    """Reads and writes the files; plain calls, to be made in a thread, one writer at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(root / "admend.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            message = "another process serves this mirror; stop it, or give this one a folder of its own"
            raise AdmendError(f"{root}: {message}") from None
        try:
            self._repositories = root / "repositories"
            self._repositories.mkdir(exist_ok=True)
            for leftover in root.glob(f"{TEMPORARY}*"):  # the lock is ours: whoever wrote this is gone
                leftover.unlink()
            with writing(root / "oci-layout") as out:
                out.write(b'{"imageLayoutVersion":"1.0.0"}')
            self._tags = dict(self._load_tags())
            self._changes: Counter[str] = Counter()
            self._visibility: dict[str, Visibility] = {}
            self.render_index()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process own the root."""
        os.close(self._lock)

    def _load_tags(self) -> Iterator[tuple[str, dict[str, Descriptor]]]:
        for folder, _, names in os.walk(self._repositories):
            for name in names:
                if name.startswith(TEMPORARY):
                    Path(folder, name).unlink()
        for folder, names, _ in os.walk(self._repositories):
            if "_manifests" in names:
                repository = str(Path(folder).relative_to(self._repositories))
                yield repository, self._load_repository(Path(folder))
            names[:] = [name for name in names if not name.startswith("_")]

    def _load_repository(self, folder: Path) -> dict[str, Descriptor]:
        found: dict[str, Descriptor] = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(folder / "_tags"):
                descriptor = _read(Path(entry.path))
                if descriptor is not None and (folder / "_manifests" / _file_name(descriptor.digest)).exists():
                    found[entry.name] = descriptor
        return found

    def _folder(self, repository: str) -> Path:
        if not all(_COMPONENT.fullmatch(part) for part in repository.split("/")):
            raise MalformedInput("not a repository name", text=repository)
        return self._repositories / repository

    def repositories(self) -> tuple[str, ...]:
        """Return the names of all repositories, in order."""
        return tuple(sorted(self._tags))

    def has(self, repository: str) -> bool:
        """Say whether there is such a repository; no disk is touched."""
        return repository in self._tags

    def tags(self, repository: str) -> Mapping[str, Descriptor]:
        """Return the tags of a repository and where they point; no disk is touched."""
        return MappingProxyType(self._tags.get(repository, {}))

    def descriptor(self, repository: str, digest: Digest) -> Descriptor | None:
        """Return the descriptor of a manifest in the repository."""
        return _read(self._folder(repository) / "_manifests" / _file_name(digest))

    def changes(self, repository: str) -> int:
        """Return how often the manifests of a repository have changed since the start."""
        return self._changes.get(repository, 0)

    def visibility(self, repository: str) -> Visibility:
        """Return what is known of a repository; "" where nothing is."""
        known = self._visibility.get(repository)
        if known is None:
            try:
                text = (self._folder(repository) / "_visibility").read_text(encoding="ascii", errors="replace")
            except (OSError, MalformedInput):  # absent, or a name that nothing has
                return ""
            known = "public" if text == "public" else "private"  # damaged: the safe one of the two
            self._visibility[repository] = known
        return known

    def set_visibility(self, repository: str, visibility: Literal["public", "private"]) -> None:
        """Note that a repository is public or private; it need not hold anything yet."""
        file = self._folder(repository) / "_visibility"
        file.parent.mkdir(parents=True, exist_ok=True)
        with writing(file, durable=True) as out:
            out.write(visibility.encode())
        sync_folder(file.parent)
        self._visibility[repository] = visibility

    def manifests(self, repository: str) -> dict[Digest, float]:
        """Return the manifests in the repository and when (Unix seconds) they came."""
        found: dict[Digest, float] = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._folder(repository) / "_manifests"):
                algorithm, _, text = entry.name.partition("-")
                with contextlib.suppress(MalformedInput):
                    found[Digest.parse(f"{algorithm}:{text}")] = entry.stat().st_mtime
        return found

    def add_manifest(self, repository: str, manifest: Manifest | Index) -> None:
        """Make a manifest visible; all it references must be there."""
        folder = self._folder(repository)
        name = _file_name(manifest.digest)
        if manifest.subject is not None:  # first, so that a crash never leaves a manifest without its entry here
            _write(folder / "_referrers" / _file_name(manifest.subject.digest) / name, describe_referrer(manifest))
        _write(folder / "_manifests" / name, manifest.descriptor.to_json())
        self._changes[repository] += 1
        self._tags.setdefault(repository, {})

    def drop_manifest(self, repository: str, digest: Digest, subject: Digest | None) -> None:
        """Remove a manifest from the repository; its tags must be gone."""
        folder = self._folder(repository)
        name = _file_name(digest)
        (folder / "_manifests" / name).unlink(missing_ok=True)
        self._changes[repository] += 1
        if subject is not None:
            (folder / "_referrers" / _file_name(subject) / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not the last one
                (folder / "_referrers" / _file_name(subject)).rmdir()

    def referrers(self, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        """Return the manifests in the repository whose subject this is, in the order of their digests."""
        folder = self._folder(repository)
        try:
            names = sorted(entry.name for entry in (folder / "_referrers" / _file_name(subject)).iterdir())
        except FileNotFoundError:
            return ()
        present = (name for name in names if (folder / "_manifests" / name).exists())
        found = (_read(folder / "_referrers" / _file_name(subject) / name) for name in present)
        return tuple(descriptor for descriptor in found if descriptor is not None)

    def set_tag(self, repository: str, tag: str, descriptor: Descriptor) -> None:
        """Point a tag at a manifest of the repository."""
        if _TAG.fullmatch(tag) is None:
            raise MalformedInput("not a tag", text=tag)
        _write(self._folder(repository) / "_tags" / tag, descriptor.to_json())
        self._tags.setdefault(repository, {})[tag] = descriptor

    def drop_tags(self, repository: str, tags: Iterable[str]) -> None:
        """Remove tags; those that are not there are no error."""
        folder = self._folder(repository) / "_tags"
        for tag in tags:
            if self._tags.get(repository, {}).pop(tag, None) is not None:
                (folder / tag).unlink(missing_ok=True)
        if folder.is_dir():
            sync_folder(folder)

    def forget_empty(self, repository: str) -> None:
        """Forget a repository that holds nothing."""
        if not self._tags.get(repository) and not self.manifests(repository):
            self._tags.pop(repository, None)

    def render_index(self) -> None:
        """Write index.json."""
        entries = []
        for repository in self.repositories():
            for tag, descriptor in sorted(dict(self._tags.get(repository, {})).items()):
                entries.append({**descriptor.to_json(), "annotations": {REF_NAME: f"{repository}:{tag}"}})
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        with writing(self.root / "index.json") as out:
            out.write(json.dumps(document, separators=(",", ":")).encode())


def describe_referrer(manifest: Manifest | Index) -> dict[str, Any]:
    """Return the descriptor of a manifest as the referrers API lists it: with artifact type and annotations."""
    out = manifest.descriptor.to_json()
    if isinstance(manifest, Manifest):
        out["artifactType"] = manifest.artifact_type or manifest.config.media_type
    if manifest.annotations:
        out["annotations"] = dict(manifest.annotations)
    return out


def _file_name(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}"


def _write(path: Path, document: Mapping[str, Any]) -> None:
    with writing(path, durable=True) as out:
        out.write(json.dumps(document, separators=(",", ":")).encode())
    sync_folder(path.parent)


def _read(path: Path) -> Descriptor | None:
    try:
        document = json.loads(path.read_bytes())
        return Descriptor(
            media_type=document["mediaType"],
            digest=Digest.parse(document["digest"]),
            size=int(document["size"]),
            annotations=document.get("annotations", {}),
            artifact_type=document.get("artifactType", ""),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, MalformedInput) as error:
        _log.warning("%s is damaged and passed over; remove it: %s", path, error)
        return None
