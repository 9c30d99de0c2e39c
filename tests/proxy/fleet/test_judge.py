"""How uses stand beside what the proxy answers, and the report that comes of it."""

from datetime import UTC, datetime, timedelta

import pytest

from proxy.api import MOVED, Outcome, ResolveResponse, SkipInfo
from proxy.fleet.judge import MAX_WORKLOADS, Judged, judge, report
from proxy.fleet.report import State
from proxy.fleet.survey import Asker, Instance, Question, Survey, Use, Workload
from proxy.oci.digest import Digest

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ORIGINAL, OLD, NEW = (f"sha256:{letter * 64}" for letter in "abc")
WEB = Workload("shop", "Deployment", "web")


def make_use(workload=WEB, *, container="app", patched=None, running="", left="", created=NOW, pods=1, audit=False):
    return Use(
        workload=workload,
        container=container,
        image="mirror.example/x" if patched else "nginx:1",
        question=Question("nginx:1"),
        asker=Asker("shop"),
        patched=Digest.parse(patched) if patched else None,
        running=running,
        left=left,
        audit=audit,
        pods=pods,
        instances=[Instance("web-1", "u", created)],
    )


def answer(outcome=Outcome.PATCHED, **more):
    patched = f"mirror.example/docker.io/library/nginx@{NEW}" if outcome is Outcome.PATCHED else ""
    source = f"docker.io/library/nginx@{ORIGINAL}"
    return ResolveResponse(outcome=outcome, image="nginx:1", source=source, patched=patched, **more)


def judge_one(use, given):
    survey = Survey(uses={("key",): use})
    (judged,) = judge(survey, {use.question: given} if given else {})
    return judged


@pytest.mark.parametrize(
    ("use", "given", "state"),
    [
        (make_use(patched=NEW), answer(), State.CURRENT),
        (make_use(patched=OLD), answer(), State.OUTDATED),
        (make_use(), answer(), State.UNPATCHED),
        (make_use(running=ORIGINAL), answer(), State.UNPATCHED),
        (make_use(running=NEW), answer(), State.CURRENT),  # pulled through the proxy
        (make_use(running=OLD), answer(), State.OUTDATED),
        (make_use(patched=OLD, running=NEW), answer(), State.OUTDATED),  # its spec says what it runs next
        (make_use(), answer(Outcome.CLEAN), State.CLEAN),
        (make_use(patched=OLD), answer(Outcome.CLEAN), State.OUTDATED),
        (make_use(), answer(Outcome.BLOCKED), State.BLOCKED),
        (make_use(), answer(Outcome.UNSUPPORTED), State.UNSUPPORTED),
        (make_use(), answer(Outcome.PENDING), State.UNKNOWN),
        (make_use(), answer(Outcome.FAILED), State.UNKNOWN),
        (make_use(), None, State.UNKNOWN),
        (make_use(left="opted out"), answer(), State.EXCLUDED),
    ],
)
def test_a_use_stands_as_what_runs_compares_to_what_a_new_pod_gets(use, given, state):
    assert judge_one(use, given).state is state


def test_the_time_from_publication_to_a_running_pod_is_told():
    given = answer(published=NOW - timedelta(hours=5), made=NOW - timedelta(hours=4))
    judged = judge_one(make_use(patched=NEW, created=NOW - timedelta(hours=2)), given)
    (container,) = report([judged], NOW, {}).workloads[0].containers
    assert (container.delay_seconds, container.exposed_seconds) == (3 * 3600, None)
    behind = judge_one(make_use(), given)
    (container,) = report([behind], NOW, {}).workloads[0].containers
    assert (container.delay_seconds, container.exposed_seconds, container.running) == (None, 5 * 3600, None)


def test_blockers_are_named_with_their_packages_and_notes_are_no_blockers():
    skipped = [SkipInfo(package=f"lib{number}", reason="needs libother") for number in range(7)]
    skipped.append(SkipInfo(package="vim", reason=MOVED + "conffile kept"))
    judged = judge_one(make_use(), answer(Outcome.BLOCKED, skipped=tuple(skipped), reason="nothing can move"))
    (container,) = report([judged], NOW, {}).workloads[0].containers
    assert container.blockers == (*(f"lib{number}: needs libother" for number in range(5)), "and 2 more")
    assert container.reason == "nothing can move"


@pytest.mark.parametrize(
    ("use", "given", "reason"),
    [
        (make_use(), answer(hold="2 of 3 nodes"), "held: 2 of 3 nodes"),
        (make_use(audit=True), answer(), "the namespace is in mode audit"),
        (make_use(patched=OLD), answer(Outcome.CLEAN), "the tag names a newer original, which has nothing to fix"),
        (make_use(), None, "not looked at yet"),
        (make_use(), answer(Outcome.FAILED, reason="x\x1b[31m" + "y" * 400), "x?[31m" + "y" * 291 + "..."),
        (make_use(left="opted out"), answer(), "opted out"),
    ],
)
def test_the_reason_says_what_stands_in_the_way(use, given, reason):
    (container,) = report([judge_one(use, given)], NOW, {}).workloads[0].containers
    assert container.reason == reason


def test_a_workload_stands_as_its_worst_container_and_the_longest_exposed_comes_first():
    early, late = answer(published=NOW - timedelta(days=9)), answer(published=NOW - timedelta(days=1))
    uses = [
        Judged(make_use(patched=NEW, pods=3), State.CURRENT, late),
        Judged(make_use(container="side", pods=2), State.UNPATCHED, late),
        Judged(make_use(container="side", patched=NEW), State.CURRENT, late),
        Judged(make_use(Workload("shop", "DaemonSet", "agent")), State.UNPATCHED, early),
        Judged(make_use(Workload("a", "Job", "once")), State.CLEAN, answer(Outcome.CLEAN)),
    ]
    made = report(uses, NOW, {WEB: "waits"})
    assert [(each.name, each.state.value, each.pods, each.restart) for each in made.workloads] == [
        ("agent", "unpatched", 1, ""),
        ("web", "unpatched", 3, "waits"),
        ("once", "clean", 1, ""),
    ]
    assert {state: count for state, count in made.states.items() if count} == {
        State.CURRENT: 4,
        State.UNPATCHED: 3,
        State.CLEAN: 1,
    }


def test_a_cluster_of_any_size_has_a_report_of_bounded_size_that_says_what_is_left_out():
    uses = [Judged(make_use(Workload("shop", "Pod", f"p{number}")), State.CLEAN) for number in range(MAX_WORKLOADS + 7)]
    made = report(uses, NOW, {})
    assert (len(made.workloads), made.left_out) == (MAX_WORKLOADS, 7)
