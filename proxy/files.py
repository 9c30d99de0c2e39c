"""Files that are whole or not there: written under a temporary name in the same folder, then renamed.

Owns that one habit for the proxy. Refuses nothing; a full disk becomes ResourceExhausted with the path.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from proxy.errors import ResourceExhausted

TEMPORARY = ".tmp-"


class Abandoned(Exception):
    """Raised inside `writing` to leave without a file and without an error."""


@contextlib.contextmanager
def writing(path: Path, *, durable: bool = False, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a new file that takes the name `path` when the block ends well, and is removed when it does not.

    Args:
        path: the final name; missing folders are made.
        durable: flush to the device before the rename.
        mode: permission bits of the file.

    Raises:
        ResourceExhausted: the disk or a quota is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                if durable:
                    os.fsync(stream.fileno())
            Path(temporary).rename(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
    except Abandoned:
        return
    except OSError as error:
        raise_if_full(error, path)
        raise


def raise_if_full(error: OSError, path: Path) -> None:
    """Raise ResourceExhausted when `error` says that the file system of `path` is full; else return."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        raise ResourceExhausted(f"the disk that holds {path.parent} is full: free space there or enlarge it") from error
