"""Values that follow their files: what was made of some files is made again when one of them has changed.

Owns when that is: the files are looked at (a stat call each) whenever the value is asked for, so nothing has to run in
the background. Files that cannot be read, or that do not belong together (caught between two renames), leave the last
good value in use; that is logged once per state of the files, and they are tried again.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

Stamp = tuple[tuple[int, int, int], ...]

log = logging.getLogger(__name__)


class Followed(Generic[T]):
    """What `make` makes of `files`.

    Args:
        what: names the value in the log ("certificates").
        files: the files that it is made of.
        make: makes it; called at once, and then whatever it raises is the caller's.
        errors: the errors by which `make` says later that the files cannot be used now.
    """

    def __init__(
        self, what: str, files: Sequence[Path], make: Callable[[], T], errors: tuple[type[Exception], ...]
    ) -> None:
        self._what, self._files, self._make = what, tuple(files), make
        self._errors: tuple[type[Exception], ...] = (OSError, *errors)
        self._failed: Stamp | None = None
        self._stamp = self._look()
        self._made = make()

    @property
    def current(self) -> T:
        """The value of the newest files that could be used."""
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._made = self._make()
                self._stamp = stamp
                log.info("%s were loaded again from %s", self._what, self._files[0])
        except self._errors as error:
            self._complain(error)
        return self._made

    def _look(self) -> Stamp:
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in (file.stat() for file in self._files))

    def _complain(self, error: Exception) -> None:
        """Log a failed load once per state of the files."""
        try:
            stamp: Stamp = self._look()
        except OSError:
            stamp = ()
        if stamp != self._failed:
            self._failed = stamp
            log.warning("%s from %s cannot be loaded, the last good ones stay: %s", self._what, self._files[0], error)
