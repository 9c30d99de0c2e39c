"""Worker processes: what they may not do, and what a dying one costs."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from proxy.errors import MalformedInput, ResourceExhausted
from proxy.pool import PoolLimits, WorkerPool

REFUSED = """
import sys
from proxy import sandbox
sandbox.drop_environment()
enforced = sandbox.enter()
import os, socket
def refused(call):
    try:
        call()
    except PermissionError:
        return True
    return False
assert enforced and not os.environ
print(refused(socket.socket), refused(lambda: os.execv("/bin/true", ["true"])), open("/etc/passwd").read(4))
"""


@pytest.fixture
async def pool():
    pool = WorkerPool(2, PoolLimits(memory=1 << 30, cpu_seconds=5, wall_seconds=10))
    yield pool
    await pool.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="seccomp is Linux's")
def test_the_sandbox_refuses_sockets_and_programs_and_leaves_files():
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "root"]


async def scan_nothing(pool, tmp_path, name="x"):
    return await pool.run(
        "scan", root=str(tmp_path), layer=str(tmp_path / "no-such-file"), media_type="", where="layer", name=name
    )


async def test_an_error_of_the_job_comes_back_as_its_own_class_and_the_worker_lives_on(pool, tmp_path):
    (tmp_path / "layer").write_bytes(b"\x1f\x8b\x08\0 not gzip at all")
    media = "application/vnd.oci.image.layer.v1.tar+gzip"
    with pytest.raises(MalformedInput, match="layer sha256:1"):
        await pool.run(
            "scan",
            root=str(tmp_path),
            layer=str(tmp_path / "layer"),
            media_type=media,
            where="layer sha256:1",
            name="x",
        )
    pids = pool.pids
    with pytest.raises(ResourceExhausted, match="no-such-file"):
        await scan_nothing(pool, tmp_path)
    assert pool.pids == pids
    assert [path.name for path in tmp_path.iterdir()] == ["layer"]


async def test_a_killed_worker_costs_its_own_job_only(pool, tmp_path):
    await pool.warm(1)
    (victim,) = pool.pids
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(ResourceExhausted, match="died"):
        await scan_nothing(pool, tmp_path)
    with pytest.raises(ResourceExhausted, match="no-such-file"):
        await scan_nothing(pool, tmp_path)
    assert victim not in pool.pids


async def test_a_job_past_its_time_is_ended(tmp_path):
    pool = WorkerPool(1, PoolLimits(wall_seconds=0.3))
    await pool.warm(1)
    os.kill(pool.pids[0], signal.SIGSTOP)
    try:
        with pytest.raises(ResourceExhausted, match="took more than"):
            await scan_nothing(pool, tmp_path)
        assert not pool.pids
    finally:
        await pool.close()


async def test_no_more_workers_than_asked_for_are_started(pool, tmp_path):
    results = await asyncio.gather(*(scan_nothing(pool, tmp_path, str(n)) for n in range(8)), return_exceptions=True)
    assert all(isinstance(result, ResourceExhausted) for result in results)
    assert len(pool.pids) == 2
    assert pool.queued == 0


async def test_a_job_that_comes_while_workers_are_warmed_starts_no_worker_of_its_own(pool, tmp_path):
    await asyncio.gather(pool.warm(2), *(_refused_scan(pool, tmp_path) for _ in range(3)))
    assert len(pool.pids) == 2


async def _refused_scan(pool, tmp_path):
    with pytest.raises(ResourceExhausted, match="No such file"):
        await scan_nothing(pool, tmp_path)
