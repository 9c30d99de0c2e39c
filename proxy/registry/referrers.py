"""Referrers: the manifests whose subject is another one, through the API or the fallback tag.

Owns both ways of the specification. Where a registry takes no note of subjects, the list is an index under the tag
`sha256-<hex>`, which whoever pushes a referrer maintains; writers read it back, since two may write at once.
Specification: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers and
#referrers-tag-schema
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

from proxy.egress import Response
from proxy.errors import MalformedInput, UpstreamRefused, UpstreamUnavailable
from proxy.oci.digest import Digest
from proxy.oci.manifest import MAX_MANIFEST, OCI_INDEX, Descriptor, Index, Manifest, parse_manifest, render_json
from proxy.oci.reference import ImageRef
from proxy.registry.auth import Scope
from proxy.registry.links import next_link
from proxy.registry.pull import MAX_PAGES, OK, get_manifest
from proxy.registry.push import push_manifest
from proxy.registry.session import NOT_FOUND, Session

MAX_REFERRERS = 4096
ROUNDS = 5  # of writing the fallback tag until it holds what was written


def fallback_tag(subject: Digest) -> str:
    """Return the tag that lists a manifest's referrers where the API is missing."""
    return f"{subject.algorithm}-{subject.hex[:64]}"


def describe_referrer(manifest: Manifest | Index) -> Descriptor:
    """Return the descriptor by which a referrer is listed: with its artifact type and annotations."""
    kind = manifest.artifact_type
    if not kind and isinstance(manifest, Manifest):
        kind = manifest.config.media_type
    return replace(manifest.descriptor, artifact_type=kind, annotations=manifest.annotations)


class Referrers:
    """Lists and pushes referrers."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._writing: dict[tuple[str, Digest], asyncio.Lock] = {}

    async def find(self, name: ImageRef, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the referrers of a manifest, of one artifact type when given."""
        found = await self._from_api(name, subject, artifact_type)
        if found is None:
            index = await self._fallback(name, subject)
            found = index.manifests if index else ()
        return tuple(item for item in found if not artifact_type or item.artifact_type == artifact_type)

    async def _from_api(self, name: ImageRef, subject: Digest, artifact_type: str) -> tuple[Descriptor, ...] | None:
        query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
        path: str | None = f"referrers/{subject}{query}"
        found: list[Descriptor] = []
        for _ in range(MAX_PAGES):
            if path is None:
                return tuple(found)
            response = await self._session.fetch(
                Scope(name), "GET", path, headers={"Accept": OCI_INDEX}, limit=MAX_MANIFEST
            )
            if not found and not _is_index(response):
                if response.status in {OK, NOT_FOUND}:
                    return None
                raise self._session.refusal(name, response.status, response.body, f"the referrers of {subject}")
            found += _parse_index(response.body, response.url).manifests
            if len(found) > MAX_REFERRERS:
                raise MalformedInput(f"more than {MAX_REFERRERS} referrers of {subject}", file=response.url)
            path = await next_link(self._session, name, response)
        raise MalformedInput(f"a list of referrers of more than {MAX_PAGES} pages", file=name.name)

    async def _fallback(self, name: ImageRef, subject: Digest) -> Index | None:
        try:
            found = await get_manifest(self._session, name.with_tag(fallback_tag(subject)))
        except UpstreamRefused as error:
            if error.status == NOT_FOUND:
                return None
            raise
        if not isinstance(found, Index):
            raise MalformedInput("the tag that should list referrers is no index", file=f"{name.name}@{subject}")
        return found

    async def push(self, ref: ImageRef, manifest: Manifest | Index) -> None:
        """Push a manifest that has a subject, under its digest or the tag of `ref`, so that it is listed."""
        target = ref if ref.tag else ref.with_digest(manifest.digest)
        noted = await push_manifest(self._session, target, manifest)
        if manifest.subject is None or noted == str(manifest.subject.digest):
            return
        subject = manifest.subject.digest
        key = (ref.name, subject)
        lock = self._writing.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                await self._add(ref, subject, describe_referrer(manifest))
        finally:
            if not lock.locked():
                self._writing.pop(key, None)

    async def _add(self, name: ImageRef, subject: Digest, entry: Descriptor) -> None:
        """Add an entry to the fallback tag until it stays."""
        tag = name.with_tag(fallback_tag(subject))
        for _ in range(ROUNDS):
            index = await self._fallback(name, subject)
            entries = index.manifests if index else ()
            if any(item.digest == entry.digest for item in entries):
                return
            await push_manifest(self._session, tag, _render_index((*entries, entry), index))
        written = await self._fallback(name, subject)
        if written is None or all(item.digest != entry.digest for item in written.manifests):
            raise UpstreamUnavailable(f"{tag}: others write the list of referrers at the same time; not listed")


def _is_index(response: Response) -> bool:
    return response.status == OK and response.headers.get("content-type", "").startswith(OCI_INDEX)


def _parse_index(raw: bytes, where: str) -> Index:
    index = parse_manifest(raw, OCI_INDEX, where=where)
    if not isinstance(index, Index):
        raise MalformedInput("not a list of referrers", file=where)
    return index


def _render_index(entries: Sequence[Descriptor], old: Index | None) -> Index:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [entry.to_json() for entry in entries],
    }
    if old is not None and old.annotations:
        document["annotations"] = dict(old.annotations)
    return _parse_index(render_json(document), "referrers")
