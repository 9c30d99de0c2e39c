"""Layers and whiteouts merged into a read-only view of the root file system of an image."""

from collections.abc import Iterator, Sequence

from proxy.engine.tar import Entry


class RootFS:
    """The merged view of an image's layers."""

    def get(self, path: str) -> Entry | None:
        """Return the entry at `path` (symlinked parents followed, a symlink at the end not), or None."""
        raise NotImplementedError

    def resolve(self, path: str) -> str:
        """Return the canonical path of `path` (every symlink followed, the last one too); it need not exist."""
        raise NotImplementedError

    def locate(self, path: str) -> str:
        """Return where an entry named `path` really lies: parents' symlinks followed, the last component kept."""
        raise NotImplementedError

    def read(self, path: str) -> bytes | None:
        """Return the content of the regular file at `path` (symlinks followed), or None if there is none."""
        raise NotImplementedError

    def listdir(self, path: str) -> Sequence[str]:
        """Return the names in the directory `path`, sorted; empty if it is no directory."""
        raise NotImplementedError

    def walk(self, path: str = "") -> Iterator[Entry]:
        """Yield every entry below `path`, sorted by path."""
        raise NotImplementedError
