"""A source that asks for a password: given in files, sent over TLS to its own origin, and kept from everyone else."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.api import Outcome
from proxy.config import ExtraSource, SourceCredentials
from proxy.serve import Proxy
from tests.proxy.asking import ask
from tests.proxy.egress.outside import make_certificate
from tests.simulators.debian_source import DebianSource, Suite
from tests.simulators.world import FIXED_AGAIN, World, make_packages

SECRET = "c0ntract-t0ken"
BASIC = "Basic " + base64.b64encode(f"bearer:{SECRET}".encode()).decode()


class ClosedSource(DebianSource):
    """A source over TLS that answers 401 to whoever does not know the secret, and notes what it was told."""

    def __init__(self, folder: Path, suites: tuple[Suite, ...], world: World) -> None:
        super().__init__(suites, key=world.source.key)
        self.told: list[str] = []
        context, self.authority = make_certificate(folder)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        handler, source = self._server.RequestHandlerClass, self

        class Closed(handler):  # type: ignore[misc, valid-type]
            def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
                source.told.append(self.headers.get("Authorization", ""))
                if source.told[-1] == BASIC:
                    super().do_GET()
                else:
                    self._answer(401, b"", {})

        self._server.RequestHandlerClass = Closed

    @property
    def uri(self) -> str:
        return super().uri.replace("http:", "https:")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path / "world") as opened:
        yield opened


async def test_a_source_with_a_password_serves_and_nobody_else_learns_it(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    suite = Suite("bookworm-esm", make_packages(FIXED_AGAIN)[1:], name="stable-esm")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    with ClosedSource(tmp_path, (suite,), world) as closed:
        extra = ExtraSource(uri=closed.uri, suite="bookworm-esm", keyring="debian", security=True)
        known = SourceCredentials(prefix=closed.uri, user="bearer", password_file=tmp_path / "secret")
        sources = world.sources()
        changes = {"extra": (*sources.extra, extra), "ca_file": closed.authority}
        open_world = sources.model_copy(update=changes)
        async with Proxy(world.config("without", sources=open_world)) as proxy:
            refused = await ask(proxy, world.add_image())
        assert refused.outcome is Outcome.FAILED
        assert "401" in refused.reason
        settings = open_world.model_copy(update={"credentials": (known,)})
        async with Proxy(world.config("with", sources=settings)) as proxy:
            answer = await ask(proxy, world.add_image())
    assert {item.to_version for item in answer.upgrades} == {FIXED_AGAIN}, answer.reason
    assert set(closed.told) == {"", BASIC}
    kept = [path.read_bytes() for path in world.folder.rglob("*") if path.is_file()]
    everything = caplog.text + answer.model_dump_json() + refused.model_dump_json()
    for secret in (SECRET, BASIC.split()[1]):
        assert secret not in everything
        assert not any(secret.encode() in data for data in kept)
