"""What is measured of admission: a burst of pods of new images, then a steady load of images that are known.

    python bench/admissions.py

measures only this. Owns the reviews that are sent, what counts as a right answer, and the figures. The whole way is
real: client, TLS, webhook process, TLS, proxy process. Its peer is a webhook that does nothing (`donothing.py`).
"""

import base64
import json
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import httpx
import images
from caller import Call, Caller, share
from hook import Hook
from measure import Start, measure_memory, named
from memory import read_cpu, read_tree
from needs import FOLDER, REPOSITORY, check_machine
from processes import free_port, listening, python, running, wait_until
from report import aligned, render_admissions
from servers import start_archive, start_upstream
from subject import CERTS, SOURCES, Subject

from certs.holdings import CA_CERT, SERVER_CERT, SERVER_KEY
from certs.serving import client_context

RATE, SECONDS, WARM_UP = 300, 30, 2
PODS = 200
OK = 200
DEADLINE = 10  # seconds, the API server's default
TEMPLATE = REPOSITORY / "tests/data/admission/requests/create-single-container.json"  # as an API server sent it


@dataclass(frozen=True, slots=True)
class Load:
    """A steady load: milliseconds as the client saw them, failures, and CPU milliseconds per admission.

    `late` is by how many milliseconds the client itself was late, 99 % of the time: a machine with other work.
    `cpu_ms` are the webhook's and the proxy's, and so are the MiB (PSS and RSS) that they have at its end.
    """

    median: float
    p99: float
    max: float
    count: int
    failures: int
    late: float
    cpu_ms: tuple[float, ...]
    memory_mib: tuple[tuple[float, float], ...]

    def render(self) -> dict[str, object]:
        """Return JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Burst:
    """Pods of images that nobody has seen, all at once: how many were answered in time, and with the patched image.

    `patches` says how often an image was patched, and how many images that holds for; `last` and `median` are
    milliseconds.
    """

    pods: int
    images: int
    answered: int
    rewritten: int
    patches: dict[int, int]
    median: float
    last: float

    def render(self) -> dict[str, object]:
        """Return JSON types."""
        return asdict(self)


def measure_admissions(start: Start, host: str) -> dict[str, object]:
    """Return the figures of the burst, the load, and the peer; `host` is the upstream's."""
    news = [named(host, name) for name in images.NEW]
    with start(warm=True) as subject:
        subject.resolve(named(host))  # the sources are known, as to any proxy that runs for a while
        with Hook(subject) as hook:
            burst = _burst(hook, host, news)
            pids = (hook.pid, subject.pid)
            load = _load(hook.port, pids, news)
        lines = len(hook.audit_lines())
    peer = _measure_peer(news)
    figures = {"burst": burst.render(), "load": load.render(), "peer": peer.render()}
    return {"rate": RATE, "seconds": SECONDS, "lines": [lines, PODS + RATE * (WARM_UP + SECONDS)], **figures}


def _burst(hook: Hook, host: str, news: Sequence[str]) -> Burst:
    before = _patches(host)
    calls = _caller(hook.port).call_all([_review(news[number % len(news)], number) for number in range(PODS)], 0.0)
    patches = _patches(host) - before
    counts = Counter(patches[name.partition(":")[0]] for name in images.NEW)
    times = [call.milliseconds for call in calls]
    return Burst(
        pods=PODS,
        images=len(news),
        answered=sum(_allowed(call) for call in calls),
        rewritten=sum(_rewritten(call) for call in calls),
        patches=dict(counts),
        median=round(share(times, 0.5), 1),
        last=round(max(times), 1),
    )


def _load(port: int, pids: Sequence[int], known: Sequence[str], *, rewrites: bool = True) -> Load:
    """Measure a steady load; every answer must rewrite the pod, or with `rewrites` false only allow it."""
    bodies = [_review(known[number % len(known)], PODS + number) for number in range(RATE * SECONDS)]
    caller = _caller(port)
    caller.call_all(bodies[: RATE * WARM_UP], WARM_UP)  # connections are there, as after any minute
    before = [sum(read_cpu(pid)) for pid in pids]
    calls = caller.call_all(bodies, SECONDS)
    used = [1000 * (sum(read_cpu(pid)) - old) / len(calls) for pid, old in zip(pids, before, strict=True)]
    times = [call.milliseconds for call in calls]
    right = _rewritten if rewrites else _allowed
    return Load(
        median=round(share(times, 0.5), 2),
        p99=round(share(times, 0.99), 2),
        max=round(max(times), 2),
        count=len(calls),
        failures=sum(not right(call) for call in calls),
        late=round(share([1000 * call.late for call in calls], 0.99), 2),
        cpu_ms=tuple(round(milliseconds, 2) for milliseconds in used),
        memory_mib=tuple(read_tree(pid) for pid in pids),
    )


def _measure_peer(known: Sequence[str]) -> Load:
    """Measure the same load at the webhook that does nothing."""
    port, log = free_port(), FOLDER / "donothing.log"
    command = python("donothing.py", str(port), CERTS / SERVER_CERT, CERTS / SERVER_KEY)
    with running(command, log) as process:
        wait_until(lambda: listening(port), "the peer", process, log)
        return _load(port, [process.pid], known, rewrites=False)


def _caller(port: int) -> Caller:
    return Caller(port, f"/mutate?timeout={DEADLINE}s", client_context(CERTS / CA_CERT), DEADLINE)


def _review(image: str, number: int) -> bytes:
    """Return the recorded review of a pod, for another image and under a name of its own."""
    review: dict[str, Any] = json.loads(TEMPLATE.read_bytes())
    request = review["request"]
    request["uid"], request["name"] = str(uuid.UUID(int=number)), f"bench-{number}"
    request["object"]["metadata"]["name"] = request["name"]
    (container,) = request["object"]["spec"]["containers"]
    container |= {"image": image, "imagePullPolicy": "IfNotPresent"}
    return json.dumps(review, separators=(",", ":")).encode()


def _allowed(call: Call) -> bool:
    """Say whether the API server would have taken the answer, and admitted the pod."""
    return call.status == OK and json.loads(call.body)["response"]["allowed"]


def _rewritten(call: Call) -> bool:
    """Say whether it would have admitted the pod with a patched image."""
    if not _allowed(call):
        return False
    edits = json.loads(base64.b64decode(json.loads(call.body)["response"].get("patch", "W10=")))
    return any(edit["op"] == "replace" and "@sha256:" in edit["value"] for edit in edits)


def _patches(host: str) -> Counter[str]:
    """Return how often each image's manifest was pulled from the upstream: once for each patch."""
    counts: dict[str, int] = httpx.get(f"http://{host}/pulls", trust_env=False).raise_for_status().json()
    return Counter(counts)


def main() -> None:
    """Measure, and print rows as the whole bench does."""
    archive = check_machine()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        port = start_archive(stack, archive)
        images.prepare(archive, port)
        hosts = start_upstream(stack)
        start = partial(Subject, hosts, port)
        if not SOURCES.exists():
            measure_memory(start, named(hosts[0]), warm=False)
        figures = measure_admissions(start, hosts[0])
    print("\n".join(aligned(render_admissions(figures))))


if __name__ == "__main__":
    main()
