"""docs/audit.md describes the lines that are written, and its examples are commands that exist."""

import re
import shlex
from pathlib import Path

from proxy.audit import AuditEvent
from proxy.cli import make_parser

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()


def test_every_field_has_its_row_and_no_row_is_of_another() -> None:
    section = PAGE.partition("## A line")[2].partition("\n## ")[0]
    assert re.findall(r"(?m)^\| `([a-z_]+)` \|", section) == list(AuditEvent.model_fields)


def test_every_command_is_one() -> None:
    commands = [
        text.rpartition("| ")[2] if "kubectl" in text else text for text in re.findall(r"admend audit [^`\n]+", PAGE)
    ]
    assert len(commands) > 8
    for command in commands:
        options = make_parser().parse_args(shlex.split(command.partition(" (")[0])[1:])
        assert options.command == "audit"
