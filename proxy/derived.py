"""What the cache folder holds beside blobs: layers' scans, unpacked packages, source indexes.

Owns how long it stays and how much of it. All of it can be made again, so it goes when it was not used for long, when
it is of another epoch, or, the least recently used first, when there is too much. What was used within the last hour
stays whatever happens: a job may be reading it. Whoever uses a file says so with `mark_used`; the time is kept as the
file's own, so that restarts and other processes on the same folder know it.

Files whose names differ only after the first dot belong together and go together, the one that says that the others
are complete first.
"""

import asyncio
import contextlib
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.files import TEMPORARY
from proxy.jobs import EPOCH
from proxy.partial import in_thread

GRACE = 3600.0  # seconds; no patch takes as long
MARKERS = (".json", ".payload")  # without these their group counts as not there
UNFINISHED = ".new"

_log = logging.getLogger(__name__)


def mark_used(path: Path) -> bool:
    """Say that a file is used now, so that it stays for an hour at least; False when it is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:  # somebody else's file, or a read-only folder: nobody removes anything there either
        return path.exists()
    return True


@dataclass(frozen=True, slots=True)
class Group:
    """Files that belong together, markers first; `lasting` is False for leftovers and other epochs."""

    paths: tuple[Path, ...]
    size: int
    used: float
    lasting: bool = True


class Derived:
    """The folders `layers`, `packages` and `sources` in the cache folder `root`.

    Args:
        root: the cache folder.
        max_bytes: the most that they may hold together, recently used files aside.
        max_age: seconds without use after which a file goes.
        grace: seconds after its use during which a file stays.
    """

    def __init__(self, root: Path, max_bytes: int, max_age: float, *, grace: float = GRACE) -> None:
        self._root, self._max_bytes, self._max_age, self._grace = root, max_bytes, max_age, grace
        self.used = 0  # bytes, when it was last looked at

    async def prune(self) -> int:
        """Remove what has had its time; returns the bytes that this freed.

        Removal happens on the event loop, one group at a time, after another look at the time of its last use: nobody
        in this process can begin to use a group in between.
        """
        groups = await in_thread(lambda: tuple(find_groups(self._root)))
        doomed = choose(groups, time.time(), max_bytes=self._max_bytes, max_age=self._max_age, grace=self._grace)
        freed = 0
        for group in doomed:
            if _last_used(group.paths) <= group.used:
                for path in group.paths:
                    path.unlink(missing_ok=True)
                freed += group.size
            await asyncio.sleep(0)
        for folder, lasting in _folders(self._root):
            if not lasting:
                with contextlib.suppress(OSError):  # not empty yet
                    folder.rmdir()
        self.used = sum(group.size for group in groups) - freed
        if freed:
            _log.info("%s: %d MB of scans, packages and indexes removed", self._root, freed // 1_000_000)
        return freed


def choose(groups: Iterable[Group], now: float, *, max_bytes: int, max_age: float, grace: float) -> tuple[Group, ...]:
    """Return what goes, the least recently used first; nothing that was used within `grace` seconds."""
    known = sorted(groups, key=lambda group: group.used)
    total = sum(group.size for group in known)
    doomed = []
    for group in known:
        age = now - group.used
        if age > grace and (not group.lasting or age > max_age):
            doomed.append(group)
            total -= group.size
    for group in known:
        if total > max_bytes and now - group.used > grace and group not in doomed:
            doomed.append(group)
            total -= group.size
    return tuple(doomed)


def find_groups(root: Path) -> Iterator[Group]:
    """Find all groups; files that vanish meanwhile are passed over."""
    for folder, lasting in _folders(root):
        files: dict[str, list[tuple[Path, os.stat_result]]] = {}
        for path in _children(folder):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                if not stat.S_ISDIR(status.st_mode):
                    files.setdefault(_group_name(path.name), []).append((path, status))
        for name, members in files.items():
            members.sort(key=lambda item: (item[0].suffix not in MARKERS, item[0].name))
            yield Group(
                tuple(path for path, _ in members),
                sum(status.st_size for _, status in members),
                max(status.st_mtime for _, status in members),
                lasting and not name.startswith(TEMPORARY) and not name.endswith(UNFINISHED),
            )


def _folders(root: Path) -> Iterator[tuple[Path, bool]]:
    """Return every folder with groups, and whether this epoch still reads it."""
    yield root / "sources", True
    for kind in ("layers", "packages"):
        for folder in _children(root / kind):
            yield folder, folder.name == EPOCH


def _children(folder: Path) -> tuple[Path, ...]:
    try:
        return tuple(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _group_name(name: str) -> str:
    return name if name.startswith(TEMPORARY) or name.endswith(UNFINISHED) else name.partition(".")[0]


def _last_used(paths: Iterable[Path]) -> float:
    times = [0.0]
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            times.append(path.lstat().st_mtime)
    return max(times)
