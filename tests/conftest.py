"""What holds for every test; the functions that ask the machine for things live in tests/support.py.

In continuous integration (ADMEND_REQUIRE_INTEROP=1) a run with any skipped test fails: nothing there may be missing.
"""

import os

import pytest
from hypothesis import settings

from tests.support import REQUIRE, data_path, require_root, require_tool

# How long one example takes says something about the machine's other work, and nothing about the code.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")

__all__ = ["data_path", "require_root", "require_tool"]


def pytest_sessionfinish(session):
    if os.environ.get(REQUIRE) == "1" and _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if os.environ.get(REQUIRE) == "1" and _skipped(config):
        terminalreporter.section(f"with {REQUIRE}=1 the {_skipped(config)} skipped tests fail the run", red=True)


def _skipped(config):
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", ())) if reporter else 0
