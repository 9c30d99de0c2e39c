"""Links to init scripts, held against the real update-rc.d in a root file system of its own."""

import shutil
import subprocess
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.services import run_update_rc
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind
from tests.proxy.engine.filesystems import Link, make_fs
from tests.support import require_tool

SCRIPT = b"""#!/bin/sh
### BEGIN INIT INFO
# Provides:          tool
# Default-Start:     2 3 S
# Default-Stop:      0 6
### END INIT INFO
# Default-Start:     5
"""


def links(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): str(path.readlink()) for path in root.rglob("*") if path.is_symlink()}


@pytest.mark.interop
@pytest.mark.parametrize(
    "calls",
    [
        ["tool defaults", "tool defaults", "tool remove"],
        ["tool defaults-disabled", "tool defaults"],
        ["tool defaults 20 80", "-f tool remove"],
        ["other defaults"],
        ["none defaults"],
    ],
)
def test_links_come_and_go_as_with_the_program(tmp_path: Path, calls: list[str]) -> None:
    program = require_tool("update-rc.d")
    if any(Path(path).exists() for path in ("/usr/lib/insserv/insserv", "/sbin/insserv", "/sbin/openrc")):
        pytest.skip("another program arranges links on this machine")
    (tmp_path / "etc/init.d").mkdir(parents=True)
    (tmp_path / "etc/init.d/tool").write_bytes(SCRIPT)
    (tmp_path / "etc/init.d/other").write_bytes(SCRIPT)
    (tmp_path / "etc/rc2.d").mkdir()
    (tmp_path / "etc/rc2.d/K07other").symlink_to("../init.d/other")
    files: dict[str, bytes | Link] = {
        "etc/init.d/tool": SCRIPT,
        "etc/init.d/other": SCRIPT,
        "etc/rc2.d/K07other": Link("../init.d/other"),
    }
    stage = Stage(make_fs(files, lambda _: True))
    for call in calls:
        done = subprocess.run(
            [shutil.which("perl") or "perl", program, *call.split()],
            env={"DPKG_ROOT": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            check=False,
        )
        assert run_update_rc(stage, call.split()) == (done.returncode == 0)
        ours = {entry.path: entry.target for entry in stage.walk() if entry.kind is Kind.SYMLINK}
        assert ours == links(tmp_path)


def test_other_arrangers_and_actions_are_refused() -> None:
    stage = Stage(make_fs({"etc/init.d/tool": SCRIPT, "sbin/openrc": b"x"}, lambda _: True))
    for words in (("tool", "defaults"), ("tool", "enable"), ("tool",)):
        with pytest.raises(NotReproduced):
            run_update_rc(stage, words)
