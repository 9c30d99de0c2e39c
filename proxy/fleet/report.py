"""The report: how every workload stands, as /v1/status answers and the mirror keeps it.

Owns the wire models and the meaning of the states:

- ``current``: what runs is what a new pod would get;
- ``outdated``: a newer patched image (or a newer original) is there than the one that runs;
- ``unpatched``: a patched image is there, and the original runs;
- ``blocked``: fixes exist, and none can be applied; the reasons say what blocks them;
- ``clean``: there is nothing to fix;
- ``unsupported``: not an image that can be patched;
- ``unknown``: not known yet, or the last attempt failed;
- ``excluded``: left alone by somebody's choice.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from proxy.api import Wire

MAX_NAMED = 5  # blockers of one container


class State(StrEnum):
    """How a container stands; from the best to the one that needs somebody most."""

    EXCLUDED = "excluded"
    CLEAN = "clean"
    CURRENT = "current"
    UNSUPPORTED = "unsupported"
    UNKNOWN = "unknown"
    BLOCKED = "blocked"
    OUTDATED = "outdated"
    UNPATCHED = "unpatched"


ORDER = {state: place for place, state in enumerate(State)}


class ContainerStatus(Wire):
    """One container of a workload and one image that it runs."""

    container: str
    image: str  # what the workload's author wrote
    runs: str  # what the pods' specs have
    state: State
    pods: int
    patched: str = ""  # what a new pod would get, where there is a patched image
    published: datetime | None = None  # when the newest fix in it was published, by its source's index
    made: datetime | None = None  # when it was first there
    running: datetime | None = None  # since when the last pod that has it runs, once all do
    delay_seconds: float | None = None  # from `published` to `running`
    exposed_seconds: float | None = None  # since `published`, while a pod runs without
    fixed: int = 0  # CVEs
    blockers: tuple[str, ...] = ()  # package: reason
    reason: str = ""


class WorkloadStatus(Wire):
    """A workload; its state is that of its worst container."""

    namespace: str
    kind: str
    name: str
    state: State
    pods: int
    containers: tuple[ContainerStatus, ...]
    restart: str = ""  # what the restarts have to say about it


class StatusReport(Wire):
    """How the fleet stands."""

    time: datetime
    by: str = ""  # the proxy that looked
    complete: bool = False  # whether every image has been looked at once
    pods: int = 0
    unreadable: int = 0
    images: int = 0
    asked: int = 0  # images that are known
    problem: str = ""
    left_out: int = 0  # workloads that had no room here
    workloads: tuple[WorkloadStatus, ...] = ()
    states: dict[State, int] = Field(default_factory=dict)  # pods' containers by state
