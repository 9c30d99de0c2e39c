"""Who goes first when places are few."""

import asyncio

import pytest

from proxy.lanes import Places, current_lane, in_background


async def work(places, done, name, gate=None):
    async with places.place():
        done.append(name)
        if gate is not None:
            await gate.wait()


async def begin(*works):
    tasks = [asyncio.create_task(each) for each in works]
    await asyncio.sleep(0.01)
    return tasks


async def test_the_foreground_goes_before_what_waits_in_the_background():
    places, done, gate = Places(1), [], asyncio.Event()
    tasks = await begin(work(places, done, "first", gate))
    with in_background():
        tasks += await begin(work(places, done, "ahead of need"))
    tasks += await begin(work(places, done, "waited for"))
    gate.set()
    await asyncio.gather(*tasks)
    assert done == ["first", "waited for", "ahead of need"]


async def test_background_work_leaves_one_place_free():
    places, done, gate = Places(2), [], asyncio.Event()
    with in_background():
        tasks = await begin(*(work(places, done, number, gate) for number in range(3)))
    assert done == [0]
    tasks += await begin(work(places, done, "waited for"))
    assert done == [0, "waited for"]
    gate.set()
    await asyncio.gather(*tasks)
    assert done == [0, "waited for", 1, 2]


async def test_work_that_somebody_begins_to_wait_for_is_lifted():
    places, done, gate = Places(1), [], asyncio.Event()
    tasks = await begin(work(places, done, "first", gate))
    with in_background():
        tasks += await begin(work(places, done, "one"))
    with in_background() as lane:
        tasks += await begin(work(places, done, "two"))
    lane.lift()
    gate.set()
    await asyncio.gather(*tasks)
    assert done == ["first", "two", "one"]


async def test_lifted_work_takes_the_place_that_was_left_free_at_once():
    places, done, gate = Places(2), [], asyncio.Event()
    with in_background():
        tasks = await begin(work(places, done, "one", gate))
    with in_background() as lane:
        tasks += await begin(work(places, done, "two", gate))
    assert done == ["one"]
    lane.lift()
    await asyncio.sleep(0.01)
    assert done == ["one", "two"]
    gate.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("moment", ["waiting", "given"])
async def test_who_gives_up_takes_no_place_along(moment):
    places, done, gate = Places(1), [], asyncio.Event()
    (first,) = await begin(work(places, done, "first", gate))
    (other,) = await begin(work(places, done, "other"))
    if moment == "given":
        gate.set()
        await first
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    gate.set()
    await first
    await asyncio.wait_for(work(places, done, "last"), 1)
    assert done[-1] == "last"


def test_outside_of_a_background_block_work_is_in_the_foreground():
    with in_background() as lane:
        assert current_lane() is lane
    assert not current_lane().background
