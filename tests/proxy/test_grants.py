"""The book of grants: who may pull from what, until when, and what becomes of a book that does not hold."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy import grants
from proxy.errors import MalformedInput, ResourceExhausted
from proxy.grants import KIND, NAME, GrantBook, parse_grants, render_grants
from proxy.mirror import EmbeddedMirror, Naming
from proxy.oci.artifact import render_artifact
from proxy.trust import KeyRing, SigningKey, VerifyKey, sign_document

REPO = "r.example/team/app"
DAY = 86400.0


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[EmbeddedMirror]:
    opened = EmbeddedMirror(tmp_path / "mirror", Naming("mirror.example"), 10 << 20)
    yield opened
    await opened.close()


@dataclass(frozen=True)
class Ring:
    """A key that signs, and is believed."""

    signing: SigningKey

    @property
    def accepted(self) -> tuple[VerifyKey, ...]:
        return (self.signing.public,)


@pytest.fixture
def keys() -> KeyRing:
    return Ring(SigningKey.generate())


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_grant_is_for_one_namespace_and_one_repository_and_ends(
    mirror: EmbeddedMirror, keys: KeyRing, clock: Clock
) -> None:
    book = GrantBook(mirror, keys, 10 * DAY, clock)
    await book.open()
    assert not book.granted("shop", REPO)
    await book.grant("shop", REPO)
    assert book.granted("shop", REPO)
    assert not book.granted("bank", REPO)
    assert not book.granted("shop", f"{REPO}/more")
    clock.now += 9 * DAY
    assert book.granted("shop", REPO)
    assert book.namespaces == ("shop",)
    await book.grant("shop", REPO)  # a newer proof
    clock.now += 9 * DAY
    assert book.granted("shop", REPO)
    clock.now += 2 * DAY
    assert not book.granted("shop", REPO)
    assert book.namespaces == ()


async def test_a_book_is_found_again_and_a_clock_that_went_wrong_gives_no_grant_for_ever(
    mirror: EmbeddedMirror, keys: KeyRing, clock: Clock
) -> None:
    clock.now += 365 * DAY
    await GrantBook(mirror, keys, 10 * DAY, clock).grant("shop", REPO)
    for now, holds in ((clock.now, True), (clock.now - 5 * DAY, True), (clock.now - 365 * DAY, False)):
        again = GrantBook(mirror, keys, 10 * DAY, lambda now=now: now)  # type: ignore[misc]
        await again.open()
        assert again.granted("shop", REPO) is holds


@pytest.mark.parametrize("fault", ["another key", "another kind", "no document", "wrong fields"])
async def test_a_book_that_does_not_hold_grants_nothing_and_is_written_anew(
    mirror: EmbeddedMirror, keys: KeyRing, clock: Clock, fault: str
) -> None:
    content = render_grants({"shop": {REPO: clock.now}})
    key = SigningKey.generate() if fault == "another key" else keys.signing
    document = sign_document("application/x-other" if fault == "another kind" else KIND, content, key)
    if fault == "no document":
        document = b"{}"
    if fault == "wrong fields":
        document = sign_document(KIND, json.dumps({"grants": {"shop": {REPO: "always"}}}).encode(), key)
    manifest, blobs = render_artifact(KIND, document)
    await mirror.put_artifact(mirror.name_for(NAME), manifest, blobs)
    book = GrantBook(mirror, keys, 10 * DAY, clock)
    await book.open()
    assert not book.granted("shop", REPO)
    await book.grant("bank", REPO)
    again = GrantBook(mirror, keys, 10 * DAY, clock)
    await again.open()
    assert again.namespaces == ("bank",)


async def test_there_are_not_more_than_may_be(
    mirror: EmbeddedMirror, keys: KeyRing, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "MAX_GRANTS", 3)
    book = GrantBook(mirror, keys, 10 * DAY, clock)
    for number in range(3):
        await book.grant("shop", f"{REPO}{number}")
    with pytest.raises(ResourceExhausted, match=r"mirror\.grants\.seconds"):
        await book.grant("bank", REPO)
    assert not book.granted("bank", REPO)
    clock.now += 11 * DAY
    await book.grant("bank", REPO)
    assert book.namespaces == ("bank",)


async def test_a_grant_that_could_not_be_written_down_is_none(
    mirror: EmbeddedMirror, keys: KeyRing, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = GrantBook(mirror, keys, 10 * DAY, clock)
    await book.grant("shop", REPO)
    with monkeypatch.context() as full:

        async def refuse(*_: object) -> None:
            raise ResourceExhausted("the disk is full")

        full.setattr(mirror, "put_artifact", refuse)
        for _ in range(2):  # the second is not taken for one that is there
            with pytest.raises(ResourceExhausted, match="the disk is full"):
                await book.grant("bank", REPO)
    assert (book.granted("bank", REPO), book.namespaces) == (False, ("shop",))
    await asyncio.gather(*(book.grant("bank", f"{REPO}{number}") for number in range(5)))
    again = GrantBook(mirror, keys, 10 * DAY, clock)
    await again.open()
    assert [again.granted("bank", f"{REPO}{number}") for number in range(5)] == [True] * 5


@pytest.mark.parametrize("text", ["", "[]", '{"grants": {"shop": {"r": -1}}}', '{"grants": {"": {}}}', '{"more": 1}'])
def test_what_is_no_book_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        parse_grants(text.encode())
