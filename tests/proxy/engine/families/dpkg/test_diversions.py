"""What maintainer scripts ask dpkg-divert, held against dpkg-divert itself."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.call import Scene
from proxy.engine.families.dpkg.effects import run_script
from proxy.engine.stage import Stage
from tests.proxy.engine.filesystems import make_fs
from tests.support import require_tool

DIVERSIONS = "/bin/a\n/bin/a.distrib\nother\n/bin/own\n/bin/own.distrib\n:\n/bin/b\n/bin/b.old\ntool\n"
QUESTIONS = (
    "dpkg-divert --truename /bin/a",
    "dpkg-divert --truename /bin/none",
    "dpkg-divert --listpackage /bin/a",
    "dpkg-divert --listpackage /bin/own",
    "dpkg-divert --listpackage /bin/none",
    "dpkg-divert --list /bin/none",
    "dpkg-divert --quiet --add --no-rename --divert /bin/b.old /bin/b",
    "dpkg-divert --quiet --add --no-rename --package tool --divert /bin/b.old /bin/b",
    "dpkg-divert --quiet --add --no-rename --local /bin/own",
    "dpkg-divert --quiet --package tool --no-rename --remove /bin/none",
)


def ask(question: str) -> tuple[str, Stage]:
    """Return a script that keeps what is answered, and the tree that it is about."""
    files: Mapping[str, bytes] = {"var/lib/dpkg/diversions": DIVERSIONS.encode(), "etc/.keep": b""}
    return f"#!/bin/sh\n{question} > $DPKG_ROOT/etc/said && echo yes >> $DPKG_ROOT/etc/said\n:\n", Stage(
        make_fs(dict(files), lambda _: True)
    )


@pytest.mark.interop
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_as_dpkg_divert_does(tmp_path: Path, question: str) -> None:
    script, stage = ask(question)
    admin = tmp_path / "var/lib/dpkg"
    for folder in (admin, tmp_path / "etc", tmp_path / "bin"):
        folder.mkdir(parents=True)
    (admin / "diversions").write_text(DIVERSIONS)
    require_tool("dpkg-divert")
    environment = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C",
        "DPKG_ROOT": str(tmp_path),
        "DPKG_ADMINDIR": str(admin),
        "DPKG_MAINTSCRIPT_PACKAGE": "tool",
    }
    subprocess.run(
        ["sh", "-c", script.replace("dpkg-divert", f"dpkg-divert --admindir {admin}")], check=True, env=environment
    )
    scene = Scene(stage, "postinst", ("configure", "1"), "tool", "1", lambda _kind, _unit: False)
    assert run_script(script.encode(), scene) is None
    said = (stage.read("etc/said") or b"").decode()
    # What it says in words is not known, and not read by any script; that the diversion is as asked for is.
    assert said.endswith("yes\n") == (tmp_path / "etc/said").read_text().endswith("yes\n")
    if "--add" not in question and "--remove" not in question:
        assert said == (tmp_path / "etc/said").read_text()
    assert (admin / "diversions").read_text() == DIVERSIONS


@pytest.mark.parametrize(
    "question",
    ["dpkg-divert --add --no-rename --divert /bin/c.old /bin/c", "dpkg-divert --package tool --remove /bin/b"],
)
def test_a_diversion_that_would_change_is_not_understood(question: str) -> None:
    script, stage = ask(question)
    scene = Scene(stage, "postinst", ("configure", "1"), "tool", "1", lambda _kind, _unit: False)
    found = run_script(script.encode(), scene)
    assert found is not None
    assert "dpkg-divert" in str(found)
