"""Of real root file systems, every package that can go goes as dpkg has it go: paths and records are the same."""

from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from proxy.engine.closure import State
from proxy.engine.families.dpkg.database import DpkgDb, keeps, open_database
from proxy.engine.families.dpkg.judge import judge_removal
from proxy.engine.families.dpkg.record import record_upgrade
from proxy.engine.families.dpkg.version import compare_versions
from proxy.engine.rootfs import RootFS
from proxy.engine.scan import extract_layer, scan_layer
from proxy.engine.weights import is_essential
from tests.differential.allowed import explain
from tests.differential.chroot import Chroot
from tests.differential.compare import compare
from tests.differential.database import EXTENDED, compare_databases
from tests.differential.judge import working_folder
from tests.differential.offers import offer
from tests.differential.roots import ROOTS
from tests.differential.trees import extract
from tests.proxy.engine.families.dpkg.debs import apply
from tests.proxy.engine.families.dpkg.judged import held
from tests.support import require_root, require_tool

pytestmark = [pytest.mark.differential, pytest.mark.interop, pytest.mark.archive, pytest.mark.timeout(900)]

STAYS = frozenset({"debconf", "perl-base"})  # scripts of those that go need them
LEAST = 40  # packages that go, of each
UNKNOWN = 0.05  # of all packages, those whose scripts are not understood


@pytest.mark.data
@pytest.mark.parametrize("name", ["bookworm-slim", "bookworm-services", "trixie-services", "bullseye-services"])
def test_packages_go_as_dpkg_has_them_go(name: str) -> None:
    require_root()
    for tool in ("mmdebstrap", "unshare", "tar"):
        require_tool(tool)
    with working_folder(ROOTS[name], None) as folder, offer(ROOTS[name], folder) as offered:
        ours, theirs = folder / "ours", folder / "theirs"
        for tree in (ours, theirs):
            tree.mkdir()
            extract(offered.layers[0], tree)
        fs = opened(offered.layers[0])
        db = open_database(fs)
        assert db is not None
        unknown = {key for key in db.records if judge_removal(fs, db, key).reason}
        assert len(unknown) <= UNKNOWN * len(db.records)
        gone = sorted(removable(db, unknown))
        assert len(gone) >= (LEAST if name != "bookworm-slim" else LEAST // 2)
        apply(ours, [held(fs, entry) for entry in record_upgrade(fs, db, (), removed=gone)], b"")
        remove(Chroot(theirs, folder / "state"), gone)
        differences = compare(ours, theirs).differences
        records, compared = compare_databases(ours, theirs)
        assert [item for item in differences if explain(item) is None and item.path not in compared] == []
        assert [text for text in records if not text.startswith(EXTENDED)] == []  # dpkg does not write apt's


def opened(tar: Path) -> RootFS:
    captures = BytesIO()
    with tar.open("rb") as stream:
        index = scan_layer(stream, "", keep=keeps, captures=captures, captures_name="captures", where="tree")
    kept = captures.getvalue()
    return RootFS([index], lambda span: kept[span.offset : span.offset + span.size], partial(again, tar))


def again(tar: Path, _place: int, paths: set[str]) -> dict[str, bytes]:
    captures = BytesIO()
    with tar.open("rb") as stream:
        found = extract_layer(stream, "", paths, captures=captures, captures_name="", where="tree")
    kept = captures.getvalue()
    return {path: kept[span.offset : span.offset + span.size] for path, span in found.items()}


def removable(db: DpkgDb, unknown: set[str]) -> set[str]:
    """Return what can go without leaving anything behind that needs it."""
    packages = {item.key: item.package for item in db.packages}
    gone = {item.key for item in db.packages if not item.fixed and not is_essential(item.package)} - unknown - STAYS
    while needed := set(missed(State(packages), State({key: packages[key] for key in packages.keys() - gone}))):
        gone -= needed
    return gone


def missed(before: State, after: State) -> Iterator[str]:
    """Yield what met the needs of packages that are still there."""
    for package in after.packages.values():
        for group in package.requires:
            if not any(key for one in group for key in after.holders(one, package, compare_versions)):
                yield from (key for one in group for key in before.holders(one, package, compare_versions))


def remove(chroot: Chroot, names: Sequence[str]) -> None:
    chroot.state.mkdir()
    chroot.prepare({})
    with chroot.services_stopped():
        chroot.run("dpkg", "--remove", *names)
