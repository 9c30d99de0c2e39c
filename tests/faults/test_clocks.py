"""Clocks that differ, certificates past their time: what heals by itself, and what an API server sees until then."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from certs.authority import Identity, issue_server
from certs.holdings import CA_CERT, CA_KEY, SERVER_CERT, SERVER_KEY, Wanted
from certs.rotate import reconcile
from certs.serving import client_context
from certs.store import FolderStore
from proxy.api import Outcome, ResolveResponse
from proxy.clocks import MAX_SKEW, is_recent
from proxy.config import MirrorConfig
from proxy.oci.naming import Naming
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from proxy.trust import VerifyKey
from tests.faults.answers import admit_in_all_modes, webhook_before
from tests.proxy.asking import ask
from tests.simulators.registry import RegistrySimulator
from tests.simulators.world import World
from tests.webhook.table import KEY
from webhook.answer import Trust, check_answer

DAY = timedelta(days=1)
MIRROR = "mirror.example"


def set_clocks(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """Set the wall clock of everything in a proxy that writes times down."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + ahead

    for module in ("publish", "resolve", "sources"):
        monkeypatch.setattr(f"proxy.{module}.datetime", Shifted)


def is_believed(answer: ResolveResponse, image: str, key: VerifyKey, mirror: str = MIRROR) -> bool:
    """Check the answer as a webhook with the right time does."""
    trust = Trust((key,), Naming.parse(mirror), timedelta(days=7))
    return check_answer(answer, ImageRef.parse(image), trust, datetime.now(UTC)).patched is not None


@pytest.mark.parametrize("ahead", [DAY, -DAY, 30 * DAY, -30 * DAY], ids=str)
async def test_what_a_replica_with_a_wrong_clock_wrote_is_confirmed_and_signed_anew(
    ahead: timedelta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(tmp_path) as world, RegistrySimulator() as there:
        mirror = MirrorConfig(reference=MIRROR, registry=there.host)
        image = world.add_image()
        with monkeypatch.context() as patch:
            set_clocks(patch, ahead)
            async with Proxy(world.config(mirror=mirror)) as wrong:
                first = await ask(wrong, image)
        async with Proxy(world.config(mirror=mirror)) as right:
            answer = await ask(right, image)
            assert (answer.outcome, answer.patched) == (Outcome.PATCHED, first.patched)
            assert is_believed(answer, image, right.keys.signing.public)
            asked = len(world.source.requests)
            assert (await ask(right, image)).signature == answer.signature
            assert len(world.source.requests) == asked  # it is fresh now


def test_a_time_is_recent_from_a_little_ahead_until_its_seconds_are_over() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for seconds_ago, recent in ((0, True), (59.9, True), (60, False), (-300, True), (-301, False), (1e9, False)):
        assert is_recent(now - timedelta(seconds=seconds_ago), now, 60.0) is recent
    assert timedelta(seconds=300) == MAX_SKEW


async def test_webhook_with_an_expired_certificate_is_not_called_until_it_is_renewed_and_then_needs_no_restart(
    tmp_path: Path,
) -> None:
    store, wanted = FolderStore(tmp_path), Wanted(dns_names=("localhost",), ips=("127.0.0.1",))
    reconcile(store, wanted)
    spoil(tmp_path)
    (tmp_path / "signing.pub").write_bytes(KEY.public.render_pem())
    (tmp_path / "authorities.crt").write_bytes((tmp_path / CA_CERT).read_bytes())
    files = {"cert_file": str(tmp_path / SERVER_CERT), "key_file": str(tmp_path / SERVER_KEY)}
    listen = {"port": 0, "tls": files}
    async with webhook_before("https://127.0.0.1:1", tmp_path, listen=listen) as (webhook, log):
        async with httpx.AsyncClient(verify=client_context(tmp_path / CA_CERT), trust_env=False) as api_server:
            with pytest.raises(httpx.ConnectError, match="certificate has expired"):
                await api_server.post(f"https://127.0.0.1:{webhook.port}/mutate", content=b"")
        assert log.getvalue() == ""  # a call that never was: Ignore admits the pod, Fail denies it
        assert webhook.metrics.render("")[0].count(b"admend_certificate_expiry_timestamp_seconds") > 0
        reconcile(store, wanted)
        for found in (await admit_in_all_modes(webhook, log, tmp_path)).values():
            assert "cannot connect" in found.line["reason"]


def spoil(folder: Path) -> None:
    """Put a serving certificate in place that expired an hour ago."""
    pem, key = (folder / CA_CERT).read_bytes(), (folder / CA_KEY).read_bytes()
    authority = Identity.parse(pem, key, what="ca")
    now = datetime.now(UTC)
    old = issue_server(authority, ["localhost"], ["127.0.0.1"], now - timedelta(hours=2), timedelta(hours=1))
    (folder / SERVER_CERT).write_bytes(old.certificate_pem)
    (folder / SERVER_KEY).write_bytes(old.key_pem)
