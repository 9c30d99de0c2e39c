"""Root file systems for tests: real layers, scanned and merged by the real code."""

import io
import tarfile
from collections.abc import Mapping

from proxy.engine.rootfs import RootFS, scan_layer


def rootfs_of(files: Mapping[str, bytes]) -> RootFS:
    """Return a root file system of one layer that holds `files`, every content kept."""
    blob, captures = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    blob.seek(0)
    index = scan_layer(blob, "", keep=lambda _: True, captures=captures, captures_name="c", where="layer")
    kept = captures.getvalue()
    return RootFS([index], lambda span: kept[span.offset : span.offset + span.size])
