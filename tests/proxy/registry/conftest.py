from collections.abc import AsyncIterator

import pytest

from proxy.credentials import Credentials, Login
from proxy.egress import Egress, EgressPolicy
from proxy.oci.reference import ImageRef
from proxy.registry import Registry
from tests.simulators.registry import RegistrySimulator


@pytest.fixture
async def upstream() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    client = Egress(EgressPolicy(named=frozenset({"127.0.0.1"}), backoff=0.001, timeout=5.0))
    yield client
    await client.close()


@pytest.fixture
def registry(egress: Egress) -> Registry:
    return Registry(egress)


@pytest.fixture
def with_login(egress: Egress, upstream: RegistrySimulator) -> Registry:
    return Registry(egress, Credentials({upstream.host: Login("user", "secret")}))


@pytest.fixture
def ref(upstream: RegistrySimulator) -> ImageRef:
    return ImageRef.parse(f"{upstream.host}/team/app:v1")
