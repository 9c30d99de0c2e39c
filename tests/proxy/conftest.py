import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.credentials import Credentials
from proxy.egress import Egress, EgressPolicy
from proxy.mirror import EmbeddedMirror, ExternalMirror, Mirror, Naming
from proxy.registry import Registry
from tests.proxy.served import Serve, serving
from tests.simulators.registry import RegistrySimulator


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(params=["embedded", "external"])
async def either_mirror(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Mirror]:
    naming = Naming("mirror.example")
    if request.param == "embedded":
        opened = EmbeddedMirror(tmp_path / "mirror", naming, 100 << 20)
        yield opened
        await opened.close()
        return
    async with RegistrySimulator() as there:
        egress = Egress(EgressPolicy(named=frozenset({there.host}), plain_http=frozenset({there.host}), attempts=1))
        yield ExternalMirror(Registry(egress, Credentials()), naming, address=there.host)
        await egress.close()


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    async with serving(tmp_path) as start:
        yield start
