"""What workloads are told, and how often."""

from pathlib import Path

import pytest

from proxy.api import Outcome, ResolveResponse, SkipInfo
from proxy.config import ClusterConfig
from proxy.fleet.judge import Judged
from proxy.fleet.notices import MAX_ROUND, Notices
from proxy.fleet.report import State
from proxy.kube.cluster import Cluster
from proxy.kube.events import Events
from proxy.kube.pods import Controller
from tests.proxy.fleet.test_judge import NOW, Instance, answer, make_use
from tests.simulators.kube_api import serve_kube_api, write_kubeconfig
from tests.simulators.kube_fleet import HASH, put_deployment


class Site:
    """An API server, and a teller with a clock that goes when it is told to."""

    def __init__(self, api, cluster):
        self.api, self.cluster, self.now = api, cluster, 1000.0
        self.notices = self.make()

    def make(self):
        return Notices(Events(self.cluster), repeat=3600, clock=lambda: self.now)

    @property
    def events(self):
        return [document for path, document in self.api.objects.items() if "/events/" in path]


@pytest.fixture
def site(tmp_path: Path):
    with serve_kube_api() as api:
        cluster = Cluster(ClusterConfig(namespace="admend", kubeconfig=Path(write_kubeconfig(api, tmp_path))))
        yield Site(api, cluster)
        cluster.close()


def behind(state=State.UNPATCHED, given=None, *, kind="ReplicaSet", name=f"web-{HASH}", image="nginx:1"):
    use = make_use()
    use.image = image
    group = "apps/v1" if kind != "Job" else "batch/v1"
    use.instances = [Instance("web-1", "u", NOW, controller=Controller(group, kind, name, f"r-{name}"))]
    return Judged(use, state, given or answer())


async def test_a_deployment_is_told_once_and_again_after_a_while(site):
    put_deployment(site.api, "shop", "web")
    assert await site.notices.tell([behind()]) == 1
    assert await site.notices.tell([behind()]) == 0
    (event,) = site.events
    assert event["involvedObject"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "web",
        "namespace": "shop",
        "uid": "d-web",
    }
    assert (event["type"], event["reason"]) == ("Warning", "RunsUnpatchedImage")
    assert "nginx:1 (1 pods): a new pod would get mirror.example/" in event["message"]
    site.now += 3600
    assert await site.notices.tell([behind()]) == 1
    assert len(site.events) == 2


async def test_another_proxy_says_nothing_twice(site):
    put_deployment(site.api, "shop", "web")
    await site.notices.tell([behind()])
    await site.make().tell([behind()])
    assert len(site.events) == 1


async def test_what_cannot_be_found_is_told_to_what_made_the_pod(site):
    await site.notices.tell([behind(), behind(kind="Job", name="once", image="b")])
    assert [event["involvedObject"]["kind"] for event in site.events] == ["ReplicaSet", "Job"]


async def test_blocked_fixes_are_told_with_their_blockers(site):
    skipped = (SkipInfo(package="libc6", reason="held by the image"),)
    given = ResolveResponse(outcome=Outcome.BLOCKED, image="nginx:1", source="a@b", skipped=skipped)
    await site.notices.tell([behind(State.BLOCKED, given)])
    assert site.events[0]["reason"] == "ImagePatchBlocked"
    assert site.events[0]["message"].endswith("nginx:1 (1 pods): libc6: held by the image")


@pytest.mark.parametrize("state", [State.CURRENT, State.CLEAN, State.UNKNOWN, State.UNSUPPORTED, State.EXCLUDED])
async def test_what_nobody_can_do_anything_about_is_not_told(site, state):
    assert await site.notices.tell([behind(state)]) == 0
    assert not site.events


async def test_a_round_tells_so_many_and_the_next_the_others(site):
    many = [behind(image=f"nginx:{number}") for number in range(MAX_ROUND + 5)]
    assert await site.notices.tell(many) == MAX_ROUND
    assert await site.notices.tell(many) == 5


async def test_a_proxy_that_may_not_write_events_says_so_and_goes_on(site, caplog):
    site.api.refused_paths["/events$"] = 403
    assert await site.notices.tell([behind(), behind(image="b")]) == 0
    assert "cannot write an Event: the API server said 403" in caplog.text
    assert "needs a role that allows it" in caplog.text
    site.api.refused_paths.clear()
    assert await site.notices.tell([behind()]) == 1
