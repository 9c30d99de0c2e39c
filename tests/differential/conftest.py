"""Keeps the verdicts of a run and prints their table at its end."""

import pytest

from tests.differential.judge import Verdict
from tests.differential.report import render_details, render_table

VERDICTS = pytest.StashKey[list[Verdict]]()


@pytest.fixture(scope="session")
def verdicts(pytestconfig):
    """The verdicts of this run, filled by the test that judges."""
    return pytestconfig.stash.setdefault(VERDICTS, [])


def pytest_terminal_summary(terminalreporter, config):
    found = config.stash.get(VERDICTS, [])
    if not found:
        return
    terminalreporter.section("differential")
    for verdict in found:
        terminalreporter.write_line(render_details(verdict))
    terminalreporter.write_line(render_table(found))
