"""Every root file system, patched by admend and upgraded by apt, is the same on both sides."""

import pytest

from tests.differential.judge import judge, working_folder
from tests.differential.report import coverage, share
from tests.differential.roots import ROOTS
from tests.end_to_end.debian import release
from tests.support import require_root, require_tool

pytestmark = [pytest.mark.differential, pytest.mark.interop, pytest.mark.archive, pytest.mark.timeout(900)]

LEAST = 0.95  # of what apt would upgrade, what admend must upgrade with its scripts' effects
ENOUGH = 200  # upgrades of all root file systems together, whatever the archive has on the day


@pytest.mark.data
@pytest.mark.parametrize("name", ROOTS)
def test_the_patched_image_is_what_apt_makes_of_it(name, verdicts):
    require_root()
    for tool in ("mmdebstrap", "unshare", "tar", "dpkg-deb"):
        require_tool(tool)
    release()
    with working_folder(ROOTS[name], None) as folder:
        verdict = judge(ROOTS[name], folder)
    verdicts.append(verdict)
    made = ROOTS[name].newer or ROOTS[name].handmade
    assert verdict.wanted or not made, "apt finds nothing to upgrade: nothing was judged"
    assert verdict.faults == []  # also where the archive has nothing newer, as on the day of a point release


def test_nearly_every_upgrade_is_made_with_its_scripts_effects(verdicts):
    if not verdicts:
        pytest.skip("no root file system was judged")
    covered, wanted = coverage(verdicts)
    assert wanted >= ENOUGH or {item.root.name for item in verdicts} != ROOTS.keys()
    skipped = {item.root.name: item.skipped for item in verdicts if item.skipped}
    assert covered >= LEAST * wanted, f"{share(covered, wanted)} of {wanted} upgrades are covered; skipped: {skipped}"
