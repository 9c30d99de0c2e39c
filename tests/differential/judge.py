"""The judge: one root file system patched by admend and upgraded by apt, then compared.

Owns the order of steps and the verdict. What apt's own `upgrade` would do is the measure; what admend's plan skips is
pinned on apt's side, so that both do the same set, and is counted against the coverage.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.differential.allowed import explain, owned_and_allowed
from tests.differential.chroot import Chroot, CommandFailed, upgrades_offered
from tests.differential.compare import Difference, compare
from tests.differential.database import compare_databases
from tests.differential.image import Patched, patch, unpack, write_image
from tests.differential.offers import offer, state_of
from tests.differential.roots import Root
from tests.differential.trees import scratch_folder

CONFFILES = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
VERBS = {"none": ("upgrade",), "new": ("upgrade", "--with-new-pkgs"), "full": ("dist-upgrade",)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the comparison of one root file system came to."""

    root: Root
    suites: tuple[str, ...]
    missing: tuple[str, ...]
    patched: Patched
    wanted: Mapping[str, str]
    paths: int
    explained: tuple[tuple[Difference, str], ...]
    unexplained: tuple[Difference, ...]
    records: tuple[str, ...]
    complaints: tuple[str, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def skipped(self) -> dict[str, str]:
        """What apt would upgrade and admend does not, with the reason."""
        held = self.patched.held
        moved = {item["package"] for item in self.patched.upgrades}
        return {
            name: held[name]["reason"] if name in held else "no reason is given"
            for name in self.wanted
            if name not in moved
        }

    @property
    def covered(self) -> int:
        return len(self.patched.covered & self.wanted.keys())

    @property
    def faults(self) -> list[str]:
        """Why this root file system fails; empty when both sides are equal."""
        faults = [f"{item.path}: {item.what}" for item in self.unexplained]
        return [*faults, *self.records, *self.complaints]


@contextmanager
def working_folder(root: Root, keep: Path | None) -> Iterator[Path]:
    """Give an empty folder for the trees; `keep` stays, another is removed."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with TemporaryDirectory(prefix=f"admend-{root.name}-", dir=scratch_folder()) as name:
        yield Path(name)


def judge(root: Root, folder: Path) -> Verdict:
    """Judge one root file system in an empty folder; leaves `patched` and `apt`, the two trees, in it."""
    watch = _Watch()
    with offer(root, folder) as offered:
        watch.lap("build")
        image = write_image(offered.layers, folder / "image")
        settings = {"cache": str(folder / "cache"), "sources": dict(offered.settings)}
        verb = VERBS[root.transitions]
        settings["policy"] = {"allow_transitions": root.transitions}
        result = patch(image, folder / "out", settings)
        shutil.rmtree(folder / "cache")
        watch.lap("patch")
        ours, theirs = folder / "patched", folder / "apt"
        unpack(image, theirs, folder)
        unpack(result.layout or image, ours, folder)
        watch.lap("unpack")
        state = state_of(root, folder)
        wanted = _upgrade(Chroot(theirs, state), result, verb)
        watch.lap("apt")
        compared = compare(ours, theirs)
        records, compared_already = compare_databases(ours, theirs)
        watch.lap("compare")
        complaints = [
            *owned_and_allowed(compared.owned),
            *_check(Chroot(ours, state), Chroot(theirs, state), result, verb),
        ]
        watch.lap("check")
    told = {item for item in compared.differences if item.path in compared_already and item.what == "content"}
    reasons = [(item, explain(item)) for item in compared.differences if item not in told]
    return Verdict(
        root,
        offered.suites,
        offered.missing,
        result,
        wanted,
        compared.paths,
        tuple((item, reason.name) for item, reason in reasons if reason is not None),
        tuple(item for item, reason in reasons if reason is None),
        tuple(records),
        tuple(complaints),
        watch.laps,
    )


class _Watch:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now


def _upgrade(chroot: Chroot, result: Patched, verb: Sequence[str]) -> dict[str, str]:
    """Upgrade a tree by apt without what admend holds back; returns what apt would upgrade of itself."""
    chroot.prepare({})
    chroot.run("apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
    wanted = upgrades_offered(chroot, *verb)
    chroot.prepare({name: item["installed"] for name, item in result.held.items() if item["installed"]})
    with chroot.services_stopped():
        chroot.run("apt-get", "-q", "-y", *CONFFILES, *verb)
    return wanted


def _check(ours: Chroot, theirs: Chroot, result: Patched, verb: Sequence[str]) -> Iterator[str]:
    """Yield what the real tools find wrong in the patched tree, and did not in apt's."""
    try:
        yield from _ask_tools(ours, theirs, result, verb)
    except CommandFailed as error:  # the rest of the table is worth having all the same
        yield str(error)


def _ask_tools(ours: Chroot, theirs: Chroot, result: Patched, verb: Sequence[str]) -> Iterator[str]:
    ours.prepare({})
    for line in ours.run("dpkg", "--audit", codes=frozenset({0, 1})).splitlines():
        yield f"dpkg --audit: {line}"
    verify = [set(item.run("dpkg", "-V", codes=frozenset({0, 1})).splitlines()) for item in (ours, theirs)]
    yield from (f"dpkg -V: {line}" for line in sorted(verify[0] - verify[1]))
    ours.run("apt-get", "check")
    offered = upgrades_offered(ours, *verb)
    left = {name for name, version in offered.items() if version} - result.held.keys()  # others go for what is held
    yield from (f"apt-get upgrade would still upgrade {name}" for name in sorted(left))
    listed = [item.run("ldconfig", "-p") for item in (ours, theirs)]
    if listed[0] != listed[1]:
        yield "ldconfig -p lists other libraries"
