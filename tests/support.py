"""What tests ask of the machine: real tools, recorded data, root.

Each `require_*` returns what it found, or skips the test with the reason. With ADMEND_REQUIRE_INTEROP=1 (continuous
integration) it fails instead, so that a judge that went missing is never mistaken for a judge that agreed.

Tools are looked up in `.cache/tools/bin` (what `.ci/install-tools` unpacked), then on PATH, then in the sbin folders.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / ".cache" / "tools" / "bin"
REQUIRE = "ADMEND_REQUIRE_INTEROP"


def require_tool(name: str, *alternatives: str) -> str:
    """Return the path of the first of these programs that is installed; else skip (or fail in CI)."""
    search = os.pathsep.join([str(TOOLS), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    for candidate in (name, *alternatives):
        if found := shutil.which(candidate, path=search):
            return found
    return _lacking(f"{' or '.join((name, *alternatives))} is not installed; .ci/install-tools installs it")


def data_path(relative: str = "") -> Path:
    """Return a path in the recorded data (../shared/data beside the repository, or $ADMEND_DATA); else skip."""
    folder = Path(os.environ.get("ADMEND_DATA") or REPOSITORY.parent / "shared" / "data")
    path = folder / relative
    if not path.exists():
        _lacking(f"{path} is not there; set ADMEND_DATA to the folder of recorded data")
    return path


def require_root() -> None:
    """Return when the test runs as root; else skip (or fail in CI)."""
    if os.geteuid() != 0:
        _lacking("this test needs root")


async def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Return when `true` is; AssertionError when it is not in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "not so in time"
        await asyncio.sleep(0.02)


def _lacking(reason: str) -> NoReturn:
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason} ({REQUIRE}=1)", pytrace=False)
    pytest.skip(reason)
