"""Builds small Debian packages and the signed package source that offers them, all in memory.

Owns the writing half of the formats that the dpkg family reads: ``.deb`` archives, Packages indexes, Release files
and their clear-signed form. It serves the demonstration on machines whose apt configuration names no Debian archive,
and the tests. It is no archive manager: no pool clean-up, no source packages, one key per source.
Specifications: deb(5), deb-control(5), deb822(5), RFC 4880 section 7 (cleartext signatures).
"""

import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime

from pysequoia import SignatureMode, Tsk, sign

EPOCH = 1_700_000_000  # mtime of everything that is built here, so that the same input gives the same bytes
CONTROL_FIRST = ("Package", "Source", "Version", "Architecture", "Maintainer")


@dataclass(frozen=True, slots=True)
class DebFile:
    """One path of a package: a file with `data`, or a symlink to `target`."""

    path: str
    data: bytes = b""
    mode: int = 0o644
    target: str = ""


@dataclass(frozen=True, slots=True)
class Deb:
    """A binary package to be built; `fields` are further control fields, `control` further control files by name."""

    name: str
    version: str
    arch: str = "amd64"
    fields: Mapping[str, str] = field(default_factory=dict)
    files: tuple[DebFile, ...] = ()
    control: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def filename(self) -> str:
        """Return where the package lies in the source's pool; an epoch is left out, as archives do."""
        version = self.version.split(":", 1)[-1]
        return f"pool/main/{self.name[0]}/{self.name}/{self.name}_{version}_{self.arch}.deb"

    def stanza(self) -> str:
        """Return the control stanza without a trailing blank line."""
        given = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.arch,
            "Maintainer": "Nobody <nobody@archive.example>",
            "Description": f"{self.name} for a demonstration",
            **self.fields,
        }
        names = [name for name in CONTROL_FIRST if name in given] + [n for n in given if n not in CONTROL_FIRST]
        return "".join(f"{name}: {given[name]}\n" for name in names)


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite: `codename` is also its path under ``dists``; `facts` are further Release fields."""

    codename: str
    packages: tuple[Deb, ...]
    name: str = "stable"
    date: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    valid_until: datetime | None = None
    component: str = "main"
    archs: tuple[str, ...] = ("amd64",)
    facts: Mapping[str, str] = field(default_factory=dict)
    by_hash: bool = True


def new_key(name: str = "Throw-away package source key") -> Tsk:
    """Return a new OpenPGP key that may sign."""
    return Tsk.generate(user_id=f"{name} <key@archive.example>")


def keyring(key: Tsk) -> bytes:
    """Return the public half of `key` as a binary keyring."""
    return bytes(key.extract_certificate())


def build_deb(deb: Deb) -> bytes:
    """Return the ``.deb`` archive of `deb`; the same input gives the same bytes."""
    sums = "".join(f"{hashlib.md5(f.data).hexdigest()}  {f.path}\n" for f in deb.files if not f.target)  # noqa: S324 - dpkg's format
    control = [DebFile("control", deb.stanza().encode()), DebFile("md5sums", sums.encode())]
    control += [
        DebFile(name, data, 0o755 if name.endswith(("inst", "rm")) else 0o644)
        for name, data in sorted(deb.control.items())
    ]
    return _ar(
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", lzma.compress(_tar(control))),
        ("data.tar.xz", lzma.compress(_tar(deb.files))),
    )


def render_packages(debs: Sequence[tuple[Deb, bytes]]) -> bytes:
    """Return the Packages file for packages and their archives."""
    stanzas = [
        f"{deb.stanza()}Filename: {deb.filename}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        for deb, data in debs
    ]
    return "\n".join(stanzas).encode()


def render_suite(suite: Suite, key: Tsk) -> dict[str, bytes]:
    """Return every file of the suite by its path under the source's address: pool, indexes and the signed release."""
    built = [(deb, build_deb(deb)) for deb in suite.packages]
    files = {deb.filename: data for deb, data in built}
    base, listed = f"dists/{suite.codename}", {}
    for arch in suite.archs:
        index = render_packages([(deb, data) for deb, data in built if deb.arch in {arch, "all"}])
        path = f"{suite.component}/binary-{arch}/Packages"
        listed[path] = index
        listed[f"{path}.gz"] = gzip.compress(index, mtime=0)
        listed[f"{path}.xz"] = lzma.compress(index)
    for path, data in listed.items():
        files[f"{base}/{path}"] = data
        folder = path.rsplit("/", 1)[0]
        files[f"{base}/{folder}/by-hash/SHA256/{hashlib.sha256(data).hexdigest()}"] = data
    release = render_release(suite, listed)
    files[f"{base}/Release"] = release
    files[f"{base}/InRelease"] = clear_sign(release, key)
    files[f"{base}/Release.gpg"] = bytes(sign(key.signer(), release, mode=SignatureMode.DETACHED))
    return files


def render_release(suite: Suite, listed: Mapping[str, bytes]) -> bytes:
    """Return the Release file that lists the files of `listed` by path relative to the suite."""
    facts = {
        "Origin": "Debian",
        "Label": "Debian",
        "Suite": suite.name,
        "Codename": suite.codename,
        "Date": format_datetime(suite.date, usegmt=True).replace("GMT", "UTC"),
        "Architectures": " ".join(suite.archs),
        "Components": suite.component,
        **({"Acquire-By-Hash": "yes"} if suite.by_hash else {}),
    }
    if suite.valid_until is not None:
        facts["Valid-Until"] = format_datetime(suite.valid_until, usegmt=True).replace("GMT", "UTC")
    facts |= suite.facts
    lines = [f"{name}: {value}" for name, value in facts.items()]
    lines.append("SHA256:")
    lines += [f" {hashlib.sha256(data).hexdigest()} {len(data):8d} {path}" for path, data in sorted(listed.items())]
    return ("\n".join(lines) + "\n").encode()


def clear_sign(text: bytes, key: Tsk) -> bytes:
    """Return `text` with a cleartext signature by `key`."""
    return bytes(sign(key.signer(), text, mode=SignatureMode.CLEAR))


def _tar(files: Sequence[DebFile]) -> bytes:
    """Return a GNU tar as dpkg-deb writes it: names start with ``./``, every parent directory has its entry."""
    folders = {""} | {part for f in files for part in _parents(f.path)}
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, item in sorted([(folder, None) for folder in folders] + [(f.path, f) for f in files]):
            info = tarfile.TarInfo(f"./{path}" if path else ".")
            info.mtime, info.uname, info.gname = EPOCH, "root", "root"
            if item is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif item.target:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, item.target, 0o777
            else:
                info.size, info.mode = len(item.data), item.mode
            archive.addfile(info, io.BytesIO(item.data) if item is not None else None)
    return output.getvalue()


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _ar(*members: tuple[str, bytes]) -> bytes:
    output = [b"!<arch>\n"]
    for name, data in members:
        output.append(f"{name:<16}{EPOCH:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        output.append(data + b"\n" * (len(data) % 2))
    return b"".join(output)
