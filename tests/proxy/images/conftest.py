from collections.abc import AsyncIterator

import pytest

from proxy.egress import Egress, EgressPolicy
from proxy.registry import Registry
from tests.simulators.registry import RegistrySimulator


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    egress = Egress(EgressPolicy(named=frozenset({"127.0.0.1"}), backoff=0.001, timeout=5.0))
    yield Registry(egress)
    await egress.close()


@pytest.fixture
async def upstream() -> AsyncIterator[RegistrySimulator]:
    async with RegistrySimulator() as simulator:
        yield simulator
