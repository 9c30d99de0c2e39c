"""Bundles of CA certificates that somebody made from the files of the package ca-certificates.

Owns finding out how a bundle was made, and making it again from other files: a bundle is made again only if one recipe
(an order of the files and what stands between them) gives the present bundle byte for byte from the present files.
Refuses to guess: no recipe, no bundle.
Format: RFC 7468 textual encodings, update-ca-certificates(8)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

CERTIFICATES = "usr/share/ca-certificates"
BUNDLE = "etc/ssl/certs/ca-certificates.crt"

_ORDERS: tuple[Callable[[str], object], ...] = (
    lambda path: path.encode("utf-8", "surrogateescape"),
    lambda path: (path.casefold(), path),
    lambda path: (path.rpartition("/")[2], path),
    lambda path: (path.rpartition("/")[2].casefold(), path),
)
_PIECES: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data,
    lambda data: data if data.endswith(b"\n") else data + b"\n",
    lambda data: data + b"\n",
    lambda data: data.rstrip(b"\n") + b"\n",
    lambda data: data.rstrip(b"\n") + b"\n\n",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How certificates become a bundle: the order of their paths, and what each file becomes."""

    order: Callable[[str], object]
    piece: Callable[[bytes], bytes]

    def make(self, files: Mapping[str, bytes]) -> bytes:
        """Make the bundle of these certificates (path to content)."""
        return b"".join(self.piece(files[path]) for path in sorted(files, key=self.order))  # type: ignore[arg-type]  # each order gives keys of one type


def find_recipe(files: Mapping[str, bytes], bundle: bytes) -> Recipe | None:
    """Return the first recipe that makes exactly `bundle` of `files`, or None; no file makes no recipe."""
    if not files or abs(len(bundle) - sum(map(len, files.values()))) > 4 * len(files):
        return None
    recipes = (Recipe(order, piece) for order in _ORDERS for piece in _PIECES)
    return next((recipe for recipe in recipes if recipe.make(files) == bundle), None)
