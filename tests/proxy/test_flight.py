"""Single flight and gather."""

import asyncio

import pytest

from proxy.flight import SingleFlight, gather_all


async def test_callers_at_the_same_time_share_one_piece_of_work():
    flights: SingleFlight[str, int] = SingleFlight()
    calls = 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return calls

    assert await asyncio.gather(*(flights.run("key", work) for _ in range(50))) == [1] * 50
    assert await flights.run("key", work) == 2
    assert len(flights) == 0


async def test_the_work_goes_on_when_a_caller_gives_up():
    flights: SingleFlight[str, str] = SingleFlight()
    done = asyncio.Event()

    async def work() -> str:
        await asyncio.sleep(0.05)
        done.set()
        return "done"

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flights.run("key", work), 0.005)
    await asyncio.wait_for(done.wait(), 1)


async def test_a_failure_reaches_every_waiter_and_is_not_kept():
    flights: SingleFlight[str, str] = SingleFlight()

    async def fail() -> str:
        await asyncio.sleep(0)
        raise ValueError("no")

    results = await asyncio.gather(flights.run("key", fail), flights.run("key", fail), return_exceptions=True)
    assert [str(result) for result in results] == ["no", "no"]
    assert len(flights) == 0


async def test_gather_raises_the_first_error_after_the_others_have_ended():
    ended = []

    async def slow() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append("slow")

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await gather_all([slow(), fail()])
    assert ended == ["slow"]
