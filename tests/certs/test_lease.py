"""One of several, by the real kubernetes client against an API server on loopback."""

import asyncio
import re

import pytest
from kubernetes import client

from certs.lease import Lease
from tests.simulators.kube_api import serve_kube_api

PLACE = "/apis/coordination.k8s.io/v1/namespaces/admend/leases/proxy"


class Clock:
    def __init__(self, start: float) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kube():
    with serve_kube_api() as api:
        yield api


@pytest.fixture
def connection(kube):
    with client.ApiClient(client.Configuration(host=kube.url)) as connected:
        yield client.CoordinationV1Api(connected)


def contend(connection, name, clock, seconds=15.0):
    return Lease(connection, "admend", "proxy", name, seconds=seconds, clock=clock)


def test_the_first_holds_and_the_second_waits_until_it_was_silent_for_the_whole_duration(kube, connection):
    clock = Clock(1000.0)
    first, second = contend(connection, "a", clock), contend(connection, "b", Clock(5.0))
    second._clock = lambda: clock() - 900_000.0  # clocks that differ do no harm
    assert first.attempt()
    assert not second.attempt()
    clock.now += 14.0
    assert not second.attempt()
    clock.now += 1.5
    assert second.attempt()
    assert not first.held
    assert not first.attempt()
    assert kube.objects[PLACE]["spec"]["holderIdentity"] == "b"
    assert kube.objects[PLACE]["spec"]["leaseTransitions"] == 1


def test_who_cannot_renew_holds_no_more_before_anybody_else_may(kube, connection):
    clock = Clock(0.0)
    first = contend(connection, "a", clock)
    assert first.attempt()
    kube.refuse = 500
    clock.now = 9.9
    assert first.attempt()
    clock.now = 10.0
    assert not first.attempt()
    assert not first.held
    kube.refuse = None
    assert first.attempt()


def test_a_renewal_keeps_who_waits_away(kube, connection):
    clock = Clock(0.0)
    first, second = contend(connection, "a", clock), contend(connection, "b", clock)
    for _ in range(20):
        clock.now += 5.0
        assert first.attempt()
        assert not second.attempt()
    assert kube.objects[PLACE]["spec"]["leaseTransitions"] == 0


def test_of_two_that_write_at_once_one_wins(kube, connection):
    clock = Clock(0.0)
    first, second = contend(connection, "a", clock), contend(connection, "b", clock)
    kube.before_write = second.attempt
    assert not first.attempt()
    assert second.held


async def test_the_holder_gives_the_lease_up_at_its_end_and_the_next_takes_it_at_once(kube, connection):
    async with Lease(connection, "admend", "proxy", "a") as first:
        await asyncio.wait_for(first.wait_held(), 5)
    assert kube.objects[PLACE]["spec"]["holderIdentity"] == ""
    async with Lease(connection, "admend", "proxy", "b") as second:
        await asyncio.wait_for(second.wait_held(), 5)


async def test_a_holder_that_died_is_followed(kube, connection):
    dead = Lease(connection, "admend", "proxy", "dead", seconds=1)
    assert dead.attempt()
    async with Lease(connection, "admend", "proxy", "next", seconds=1) as other:
        assert not other.held
        await asyncio.wait_for(other.wait_held(), 5)


def test_times_have_microseconds_always(kube, connection):
    contend(connection, "a", Clock(0.0)).attempt()
    for name in ("acquireTime", "renewTime"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|\+00:00)", kube.objects[PLACE]["spec"][name])
