"""Content digests as the OCI image specification writes them (`sha256:<64 hex>`).

Owns the value and the running check of a stream against it. Refuses any algorithm but SHA-256 and SHA-512.
Specification: https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from proxy.errors import MalformedInput, TrustFailure

_FORM = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest; `str()` gives `algorithm:hex`."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `algorithm:hex`; raises MalformedInput for any other form or algorithm."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise MalformedInput("not a sha256 or sha512 digest (algorithm, a colon, lower-case hex)", text=text)
        return cls(match[1] or match[3], match[2] or match[4])

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the SHA-256 digest of `data`."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class SizeCheck:
    """Counts a stream piece by piece: no more than `size` bytes (when known), and exactly as many at the end.

    Args:
        size: the exact number of bytes expected, or None.
        limit: the most bytes that are accepted when `size` is None.
        where: the stream's name in error messages.
    """

    __slots__ = ("_exact", "_limit", "_where", "seen")

    def __init__(self, *, size: int | None, limit: int, where: str) -> None:
        self._exact, self._where = size, where
        self._limit = limit if size is None else size
        self.seen = 0

    def update(self, piece: bytes) -> None:
        """Take the next piece; raises TrustFailure as soon as the stream is longer than it may be."""
        self.seen += len(piece)
        if self.seen > self._limit:
            raise TrustFailure(f"{self._where}: longer than the {self._limit} bytes it may have; refused")

    def finish(self) -> object:
        """Say that all pieces were there; raises TrustFailure when the size is not the expected one."""
        if self._exact is not None and self.seen != self._exact:
            raise TrustFailure(f"{self._where}: {self.seen} bytes, but {self._exact} were announced; refused")
        return None


class DigestCheck(SizeCheck):
    """Checks size and digest of a stream: `expected` must come out at the end, or None computes SHA-256 only."""

    __slots__ = ("_expected", "_hash")

    def __init__(self, expected: Digest | None, *, size: int | None, limit: int, where: str) -> None:
        super().__init__(size=size, limit=limit, where=where)
        self._expected = expected
        self._hash = hashlib.new(expected.algorithm if expected else "sha256")

    def update(self, piece: bytes) -> None:
        """Take the next piece; raises TrustFailure as soon as the stream is longer than it may be."""
        super().update(piece)
        self._hash.update(piece)

    def finish(self) -> Digest:
        """Return the digest of all pieces; raises TrustFailure when size or digest is not the expected one."""
        super().finish()
        found = Digest(self._hash.name, self._hash.hexdigest())
        if self._expected is not None and found != self._expected:
            raise TrustFailure(f"{self._where}: digest is {found}, expected {self._expected}; refused")
        return found
