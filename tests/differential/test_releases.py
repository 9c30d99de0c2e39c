"""What would be done to move a real root file system to a later release is what apt's dist-upgrade would do."""

import pytest

from tests.differential.chroot import Chroot, upgrades_offered
from tests.differential.image import patch, unpack, write_image
from tests.differential.judge import working_folder
from tests.differential.offers import offer_later
from tests.differential.roots import ROOTS
from tests.support import require_root, require_tool

pytestmark = [pytest.mark.differential, pytest.mark.interop, pytest.mark.archive, pytest.mark.timeout(900)]

LEAST = 1  # package that goes


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("bookworm-minbase", "trixie-minbase"),
        ("bookworm-services", "trixie-minbase"),
        ("bullseye-minbase", "bookworm-minbase"),
        ("bullseye-services", "bookworm-minbase"),
    ],
)
def test_the_choice_is_that_of_apt(name: str, later: str) -> None:
    require_root()
    for tool in ("mmdebstrap", "unshare", "tar"):
        require_tool(tool)
    with working_folder(ROOTS[name], None) as folder:
        offered = offer_later(ROOTS[name], ROOTS[later], folder)
        image = write_image(offered.layers, folder / "image")
        policy = {"allow_transitions": "full"}
        settings = {"cache": str(folder / "cache"), "sources": dict(offered.settings), "policy": policy}
        result = patch(image, folder / "out", settings, plan_only=True)
        unpack(image, folder / "tree", folder)
        (folder / "state").mkdir()
        apt = Chroot(folder / "tree", folder / "state")
        apt.prepare({})
        apt.run("apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
        wanted = upgrades_offered(apt, "dist-upgrade")
    assert {item["package"]: item["to"] for item in result.upgrades} == wanted
    assert sum(not version for version in wanted.values()) >= LEAST
