"""High-water marks in a mirror that several replicas write to."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from proxy.errors import TrustFailure
from proxy.marks import LOOK_EVERY, NAME, MarkBook
from proxy.trust import SigningKey

KEY = SigningKey.generate()
DAY = datetime(2026, 3, 1, tzinfo=UTC)


async def stored(mirror, key=KEY):
    """Return what the mirror holds."""
    book = MarkBook(mirror, key)
    await book._look()
    return book._marks.dates


async def test_a_source_that_goes_back_in_time_is_refused_after_a_restart_and_by_another_replica(either_mirror):
    await MarkBook(either_mirror, KEY).admit("a", DAY)
    for _ in range(2):
        with pytest.raises(TrustFailure):
            await MarkBook(either_mirror, KEY).admit("a", DAY - timedelta(seconds=1))
    await MarkBook(either_mirror, KEY).admit("a", DAY)


async def test_marks_of_three_writers_at_once_all_stand(either_mirror):
    books = [MarkBook(either_mirror, KEY) for _ in range(3)]
    for round_ in range(4):
        date = DAY + timedelta(days=round_)
        await asyncio.gather(*(book.admit(f"source {number}", date) for number, book in enumerate(books)))
        assert await stored(either_mirror) == {f"source {number}": date for number in range(3)}


async def test_a_newer_index_that_another_saw_since_refuses_an_older_one(either_mirror):
    late = MarkBook(either_mirror, KEY)
    await late.admit("b", DAY)
    await MarkBook(either_mirror, KEY).admit("a", DAY + timedelta(days=1))
    with pytest.raises(TrustFailure):
        await late.admit("a", DAY)


async def test_documents_of_processes_long_gone_do_not_pile_up_and_nothing_of_them_is_lost(either_mirror):
    name = either_mirror.name_for(NAME)
    for number in range(30):
        await MarkBook(either_mirror, KEY).admit(f"source {number}", DAY)
    assert len(await either_mirror.tags(name)) < 15
    assert len(await stored(either_mirror)) == 30
    await MarkBook(either_mirror, KEY, "a").admit("last", DAY)
    assert await either_mirror.tags(name) == ("a",)
    assert len(await stored(either_mirror)) == 31


async def test_a_document_written_anew_since_it_was_read_is_not_removed(either_mirror):
    other = MarkBook(either_mirror, KEY, "z")
    await other.admit("a", DAY)
    first = MarkBook(either_mirror, KEY, "a")
    documents = await first._look()
    await other.admit("b", DAY)
    await first._write(first._marks, documents)
    assert await stored(either_mirror) == {"a": DAY, "b": DAY}


async def test_marks_that_were_lost_in_the_mirror_are_written_again(either_mirror):
    book = MarkBook(either_mirror, KEY)
    await book.admit("a", DAY)
    await either_mirror.delete(either_mirror.name_for(NAME).with_tag(book._tag))
    await book.admit("a", DAY)
    assert await stored(either_mirror) == {}
    book._looked -= LOOK_EVERY
    await book.admit("a", DAY)
    assert await stored(either_mirror) == {"a": DAY}


async def test_marks_of_a_key_that_is_not_believed_begin_anew(either_mirror):
    await MarkBook(either_mirror, SigningKey.generate()).admit("a", DAY + timedelta(days=9))
    await MarkBook(either_mirror, KEY).admit("a", DAY)
    assert await stored(either_mirror) == {"a": DAY}
