"""Which repositories gave a blob that came with credentials, and that the cache is no way around them."""

from pathlib import Path

import pytest

from proxy.blobs import BlobStore
from proxy.errors import MalformedInput
from proxy.oci.digest import Digest
from proxy.origins import Origins

ONE, TWO = "r.example/team/app", "r.example/team/other"
BLOB = Digest.of(b"private")


def open_origins(folder: Path, *, filled: bool = True) -> Origins:
    store = BlobStore(folder / "cache", 1 << 20)
    if filled and not store.has(BLOB):
        path = store.path(BLOB)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"private")
    return Origins(store)


def test_a_blob_that_came_with_credentials_is_for_the_repositories_that_gave_it(tmp_path: Path) -> None:
    origins = open_origins(tmp_path)
    assert origins.admits(BLOB, ONE)  # nothing is known of it: it came without
    origins.close(BLOB)
    assert not origins.admits(BLOB, ONE)  # it is on its way
    origins.admit(BLOB, ONE, private=True)
    assert origins.admits(BLOB, ONE)
    assert not origins.admits(BLOB, TWO)
    assert origins.admits(BLOB, "")  # an image of this machine's own
    origins.admit(BLOB, TWO, private=True)
    assert origins.admits(BLOB, TWO)


def test_one_that_comes_without_credentials_is_anybodys(tmp_path: Path) -> None:
    origins = open_origins(tmp_path)
    origins.close(BLOB)
    origins.admit(BLOB, ONE, private=True)
    origins.admit(BLOB, TWO, private=False)
    assert origins.admits(BLOB, "elsewhere.example/app")


def test_what_is_known_survives_a_restart_as_long_as_the_blob_is_there(tmp_path: Path) -> None:
    origins = open_origins(tmp_path)
    origins.close(BLOB)
    origins.admit(BLOB, ONE, private=True)
    assert not open_origins(tmp_path).admits(BLOB, TWO)
    BlobStore(tmp_path / "cache", 1 << 20).path(BLOB).unlink()
    assert open_origins(tmp_path, filled=False).admits(BLOB, TWO)


def test_a_note_that_is_damaged_is_named(tmp_path: Path) -> None:
    origins = open_origins(tmp_path)
    origins.close(BLOB)
    [file] = (tmp_path / "cache" / "origins").iterdir()
    file.write_text("[")
    with pytest.raises(MalformedInput, match="remove the cache folder"):
        origins.admits(BLOB, ONE)
