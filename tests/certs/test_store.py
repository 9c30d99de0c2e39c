import errno
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from certs import store as store_module
from certs.errors import CertificateError
from certs.holdings import CA_CERT, CA_KEY, SECRET_FILES, SERVER_CERT, Wanted
from certs.rotate import reconcile
from certs.store import FolderStore

WANTED = Wanted(("proxy.example",), (), "webhook", signing=True)


def reconcile_in(folder):
    reconcile(FolderStore(Path(folder)), WANTED)
    return (Path(folder) / CA_CERT).read_bytes()


def test_keys_are_readable_by_their_owner_only(tmp_path):
    reconcile_in(tmp_path / "certs")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "certs").iterdir()}
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700
    assert {name for name, mode in modes.items() if mode == 0o600} == SECRET_FILES - {"ca-next.key", "signing-next.pem"}
    assert modes[CA_CERT] == 0o644


def test_a_second_pass_leaves_every_file_untouched(tmp_path):
    reconcile_in(tmp_path)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir() if path.suffix}
    assert not reconcile(FolderStore(tmp_path), WANTED)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before} == before


def test_processes_that_start_at_once_agree_on_one_authority(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        bundles = pool.map(reconcile_in, [str(tmp_path / "certs")] * 8)
    assert len(set(bundles)) == 1


def test_no_temporary_file_stays_when_the_disk_is_full(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(CertificateError, match="cannot be kept here: No space left"):
        reconcile_in(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_damaged_authority_changes_no_file(tmp_path):
    reconcile_in(tmp_path)
    (tmp_path / CA_KEY).write_bytes(b"garbage")
    (tmp_path / SERVER_CERT).unlink()
    with pytest.raises(CertificateError):
        reconcile_in(tmp_path)
    assert not (tmp_path / SERVER_CERT).exists()
    assert (tmp_path / CA_KEY).read_bytes() == b"garbage"


def test_a_file_too_large_for_a_certificate_is_refused(tmp_path):
    (tmp_path / CA_CERT).write_bytes(b"x" * (store_module.MAX_FILE + 1))
    with pytest.raises(CertificateError, match="larger than"):
        FolderStore(tmp_path).read()


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "certs").write_text("")
    with pytest.raises(CertificateError, match=r"certs.*(cannot be kept here|cannot be read)"):
        reconcile_in(tmp_path / "certs")


def test_a_lock_that_another_process_holds_is_waited_for_no_longer_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.1)
    with FolderStore(tmp_path)._locked(), pytest.raises(CertificateError, match="locked by another process"):
        reconcile_in(tmp_path)
