import asyncio
import contextlib

import pytest

from certs.errors import CertificateError
from certs.holdings import SERVER_CERT, Wanted
from certs.rotate import keep_fresh
from certs.store import FolderStore

WANTED = Wanted(("proxy.example",))


@contextlib.asynccontextmanager
async def running(*arguments, **options):
    task = asyncio.create_task(keep_fresh(*arguments, **options))
    try:
        yield task
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is a file or a log line
            await asyncio.sleep(0.01)


async def test_the_loop_makes_certificates_and_makes_them_again_when_they_vanish(tmp_path):
    async with running(FolderStore(tmp_path), WANTED, every=0.02):
        await until((tmp_path / SERVER_CERT).exists)
        (tmp_path / SERVER_CERT).unlink()
        await until((tmp_path / SERVER_CERT).exists)


async def test_a_pass_that_fails_is_logged_and_tried_again(tmp_path, caplog):
    (tmp_path / "ca.crt").write_bytes(b"garbage")
    async with running(FolderStore(tmp_path), WANTED, every=0.02):
        await until(lambda: "cannot be renewed" in caplog.text)
        (tmp_path / "ca.crt").unlink()
        await until((tmp_path / SERVER_CERT).exists)


async def test_what_follows_a_pass_runs_after_each_one_and_may_fail(tmp_path):
    calls = []

    def publish():
        calls.append((tmp_path / SERVER_CERT).exists())
        raise CertificateError("the API server is away")

    async with running(FolderStore(tmp_path), WANTED, every=0.02, after_pass=publish):
        await until(lambda: len(calls) >= 2)
    assert all(calls)
