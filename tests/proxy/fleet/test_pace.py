"""How fast upstream hosts are asked."""

import pytest

from proxy.fleet.pace import BURST, Pace


class Clock:
    """A clock that sleeping puts forward."""

    now = 1000.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds


async def test_a_few_go_at_once_and_then_so_many_a_minute():
    clock = Clock()
    pace = Pace(30, clock=clock, sleep=clock.sleep)
    for _ in range(BURST):
        await pace.wait("a.example")
    assert clock.now == 1000.0
    for _ in range(30):
        await pace.wait("a.example")
    assert clock.now == pytest.approx(1060.0)
    await pace.wait("b.example")
    assert clock.now == pytest.approx(1060.0)  # each host has its own


async def test_a_host_that_was_left_in_peace_may_be_asked_a_few_times_at_once_again():
    clock = Clock()
    pace = Pace(60, clock=clock, sleep=clock.sleep)
    for _ in range(BURST):
        await pace.wait("a.example")
    clock.now += 3600
    for _ in range(BURST):
        await pace.wait("a.example")
    assert clock.now == 4600.0


def test_a_host_that_fails_rests_longer_each_time_until_it_succeeds():
    clock = Clock()
    pace = Pace(30, clock=clock, sleep=clock.sleep)
    rests = []
    for _ in range(8):
        pace.note("a.example", failed=True)
        rests.append(pace.resting("a.example"))
        assert pace.resting("b.example") == 0
    assert rests == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    clock.now += 3600
    assert pace.resting("a.example") == 0
    pace.note("a.example", failed=False)
    pace.note("a.example", failed=True)
    assert pace.resting("a.example") == 60


def test_hosts_that_are_made_up_do_not_fill_the_memory():
    pace = Pace(30)
    for number in range(5000):
        pace.note(f"{number}.example", failed=True)
    assert len(pace._rests) == 1000
