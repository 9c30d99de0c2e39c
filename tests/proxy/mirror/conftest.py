from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.mirror import EmbeddedMirror, Naming


@pytest.fixture
def naming() -> Naming:
    return Naming("mirror.example:5000")


@pytest.fixture
async def mirror(tmp_path: Path, naming: Naming) -> AsyncIterator[EmbeddedMirror]:
    opened = EmbeddedMirror(tmp_path / "mirror", naming, 100 << 20, grace=0.0)
    yield opened
    await opened.close()
