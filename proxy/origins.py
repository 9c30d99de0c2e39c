"""Which repositories gave the blobs that came with credentials, so that the cache is no way around them.

Owns the notes beside the blob cache. The cache shares blobs by digest, and a manifest may name any digest: without the
notes, who knows the digests of a private layer could have it put into an image of their own. A blob that was opened
with credentials is given only to images of repositories that delivered it, byte for byte, themselves; one that comes
without credentials, too, is anybody's.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from proxy.blobs import BlobStore
from proxy.errors import MalformedInput
from proxy.files import writing
from proxy.oci.digest import Digest, DigestCheck
from proxy.oci.manifest import Descriptor

MAX_PLACES = 1000  # repositories noted of one blob; of more, the later ones are asked every time


class Delivery:
    """A blob's pieces on their way; `whole` says whether the last one was taken."""

    def __init__(self, stream: AsyncGenerator[bytes, None]) -> None:
        self._stream, self.whole = stream, False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces."""
        async with aclosing(self._stream) as stream:
            async for piece in stream:
                yield piece
        self.whole = True


async def drain(stream: AsyncGenerator[bytes, None], descriptor: Descriptor, where: str) -> None:
    """Take a blob and keep nothing of it; raises TrustFailure when it is not what the descriptor says."""
    check = DigestCheck(descriptor.digest, size=descriptor.size, limit=descriptor.size, where=where)
    async with aclosing(stream) as pieces:
        async for piece in pieces:
            check.update(piece)
    check.finish()


class Origins:
    """The notes about a cache, a file per blob, in its folder `origins`."""

    def __init__(self, store: BlobStore) -> None:
        self._root = store.root / "origins"
        for file in self._root.glob("*-*"):
            algorithm, _, text = file.name.partition("-")
            if not store.has(Digest(algorithm, text)):
                file.unlink(missing_ok=True)  # the blob is gone, and comes with a note of its own

    def admits(self, digest: Digest, place: str) -> bool:
        """Say whether an image of the repository `place` ("" for one on this machine) may have a blob of the cache."""
        places = self._read(digest)
        return places is None or not place or place in places

    def close(self, digest: Digest) -> None:
        """Note that a blob is about to come with credentials."""
        if self._read(digest) is None:
            self._write(digest, [])

    def admit(self, digest: Digest, place: str, *, private: bool) -> None:
        """Note that a repository has delivered the blob, with credentials or without them."""
        places = self._read(digest)
        if places is None or not place:
            return
        if not private:
            self._file(digest).unlink(missing_ok=True)
        elif place not in places and len(places) < MAX_PLACES:
            self._write(digest, [*places, place])

    def _file(self, digest: Digest) -> Path:
        return self._root / f"{digest.algorithm}-{digest.hex}"

    def _read(self, digest: Digest) -> list[str] | None:
        try:
            found = json.loads(self._file(digest).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise MalformedInput("damaged; remove the cache folder", file=str(self._file(digest))) from error
        return [str(place) for place in found] if isinstance(found, list) else []

    def _write(self, digest: Digest, places: list[str]) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        with writing(self._file(digest)) as out:
            out.write(json.dumps(places).encode())
