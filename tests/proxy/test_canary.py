"""The canary: its programs are run, natively and emulated; its image is put into mirrors and stays the same."""

import platform
import signal
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.blobs import BlobStore
from proxy.canary import MACHINES, CanaryKeeper, Machine, build_canary, put_canary, render_program
from proxy.credentials import Credentials
from proxy.egress import Egress, EgressPolicy
from proxy.mirror import EmbeddedMirror, ExternalMirror, Naming
from proxy.oci.digest import Digest
from proxy.oci.manifest import Index, Manifest, parse_manifest
from proxy.registry import Registry
from tests.simulators.registry import Faults, RegistrySimulator
from tests.support import require_tool, until

QEMU = {"amd64": "x86_64", "386": "i386", "arm64": "aarch64"}
# The same programs with getpid, which returns at once, in the place of the call that waits: what the loop is seen by.
GETPID = {
    "amd64": ("b822", "b827"),
    "386": ("b81d", "b814"),
    "arm64": ("280980d2", "881580d2"),
    "arm": ("1d70", "1470"),
    "ppc64le": ("1d00", "1400"),
    "s390x": ("0a1d", "0a14"),
    "riscv64": ("93089004", "9308c00a"),
}


def write(folder: Path, program: bytes) -> str:
    file = folder / "wait"
    file.write_bytes(program)
    file.chmod(0o755)
    return str(file)


def run_a_while(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Return how a program ended that is killed after a while, and what it said."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    time.sleep(seconds)
    process.kill()
    return process.wait(), process.communicate()[1].decode()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="runs the program of amd64")
def test_the_program_waits_without_work_and_ends_when_it_is_killed(tmp_path: Path) -> None:
    amd64 = next(item for item in MACHINES if item.platform.architecture == "amd64")
    process = subprocess.Popen([write(tmp_path, render_program(amd64))])
    time.sleep(0.2)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    assert process.poll() is None
    used = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    assert [int(ticks) for ticks in used] == [0, 0]
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.interop
@pytest.mark.parametrize("machine", MACHINES, ids=lambda item: str(item.platform))
def test_each_program_waits_on_its_machine_and_would_wait_again(machine: Machine, tmp_path: Path) -> None:
    name = machine.platform.architecture
    qemu = require_tool(f"qemu-{QEMU.get(name, name)}", f"qemu-{QEMU.get(name, name)}-static")
    program = render_program(machine)
    ended, said = run_a_while([qemu, "-strace", write(tmp_path, program)], 0.3)
    assert ended == -signal.SIGKILL, said
    assert said.count("(") == 1
    assert "pause(" in said or "ppoll(0,0,0,0,0" in said
    before, after = (bytes.fromhex(text) for text in GETPID[name])
    assert machine.code.count(before) == 1
    changed = program[: -len(machine.code)] + machine.code.replace(before, after)
    ended, said = run_a_while([qemu, "-strace", write(tmp_path, changed)], 0.3)
    assert ended == -signal.SIGKILL, said
    assert said.count("getpid(") > 10


def test_every_program_is_one_small_static_file() -> None:
    for machine in MACHINES:
        program = render_program(machine)
        order = "<" if machine.order == "little" else ">"
        kind, number = struct.unpack_from(f"{order}HH", program, 16)
        assert (program[:4], kind, number) == (b"\x7fELF", 2, machine.number)
        assert program.endswith(machine.code)
        assert len(program) < 256
        assert b"ld-linux" not in program


def test_the_image_is_the_same_every_time_and_names_what_it_has() -> None:
    image = build_canary()
    assert str(image.top.digest) == "sha256:4929b70e4b97d15a70b32e48e3c1e4bbcc50b2b62ebf6be1d547998437ac4d8b"
    parsed = parse_manifest(image.top.raw, image.top.media_type)
    assert parsed == image.top
    assert {str(item.platform) for item in image.top.manifests} == {str(item.platform) for item in MACHINES}
    for child in image.children:
        found = parse_manifest(child.raw, child.media_type)
        assert isinstance(found, Manifest)
        assert found == child
        for item in (child.config, *child.layers):
            assert len(image.blobs[item.digest]) == item.size
            assert Digest.of(image.blobs[item.digest]) == item.digest


@pytest.mark.parametrize("style", ["nested", "flat"])
async def test_it_is_put_into_the_embedded_mirror_once_and_survives_its_clean_up(tmp_path: Path, style: str) -> None:
    mirror = EmbeddedMirror(tmp_path / "mirror", Naming("mirror.example", style=style), 1 << 20, grace=0.0)
    store = BlobStore(tmp_path / "cache", 1 << 20)
    name = await put_canary(mirror, store)
    assert str(name) in {"mirror.example/admend.internal/canary:1", "mirror.example/admend.internal--canary:1"}
    assert await put_canary(mirror, store) == name
    await mirror.retain(0.0, frozenset())
    await mirror.retain(0.0, frozenset())
    found = await mirror.get_manifest(name)
    assert isinstance(found, Index)
    assert found.digest == build_canary().top.digest
    for item in found.manifests:
        child = await mirror.get_manifest(name.with_digest(item.digest))
        assert isinstance(child, Manifest)
        assert all(mirror.blobs.has(blob.digest, blob.size) for blob in (child.config, *child.layers))
    await mirror.close()


async def test_an_external_registry_that_is_away_gets_it_when_it_comes_back(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "cache", 1 << 20)
    async with RegistrySimulator(Faults(refuse=403)) as there:
        policy = EgressPolicy(upstreams=None, named=frozenset({"127.0.0.1"}), plain_http=frozenset({"127.0.0.1"}))
        egress = Egress(policy)
        mirror = ExternalMirror(Registry(egress, Credentials()), Naming("nodes.example"), address=there.host)
        async with CanaryKeeper(mirror, store, retry=0.05, look=0.05) as keeper:
            await until(lambda: "403" in keeper.problem)
            there.faults = Faults()
            await until(lambda: not keeper.problem)
            assert there.tags["admend.internal/canary"]["1"] == build_canary().top.digest
            there.tags["admend.internal/canary"].clear()  # a registry's own clean-up
            await until(lambda: "1" in there.tags["admend.internal/canary"])
        await egress.close()
