"""docs/values.md, made of charts/admend/values.yaml: every key, its default, and the comment above or behind it.

Write it anew with `python -m tests.charts.values_page`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.support import REPOSITORY

VALUES_FILE = REPOSITORY / "charts" / "admend" / "values.yaml"
PAGE = REPOSITORY / "docs" / "values.md"
HEAD = """# Values of the chart

What `helm install` and `helm upgrade` take with `--set` or `--values`. Unknown keys and values of the wrong kind are
refused with a message (values.schema.json). [install.md](install.md) tells which of them matter first.

This page is made from `charts/admend/values.yaml` (`python -m tests.charts.values_page`).
"""
_LINE = re.compile(r"(?P<space> *)(?:#(?P<comment>.*)|(?P<key>[A-Za-z]\w*):(?: (?P<rest>.*))?)")
_BEHIND = re.compile(r"\s{2}#\s?(.*)$")
KNOWN = {  # what Kubernetes itself says of these
    "affinity": "as in a pod",
    "annotations": "of the object",
    "extraVolumeMounts": "as in a container",
    "extraVolumes": "as in a pod",
    "labels": "of the object, beside its own",
    "limits": "as in a container",
    "nodeSelector": "as in a pod",
    "podAnnotations": "of its pods",
    "podLabels": "of its pods, beside their own",
    "priorityClassName": "as in a pod",
    "requests": "as in a container",
    "tolerations": "as in a pod",
    "spread": "as in webhook.spread",
    "maxReplicas": "as in a HorizontalPodAutoscaler",
    "minReplicas": "as in a HorizontalPodAutoscaler",
    "targetCPUUtilizationPercentage": "as in a HorizontalPodAutoscaler",
    "maxUnavailable": "as in a PodDisruptionBudget",
}
KNOWN_PATHS = {"autoscaling.enabled": "whether there is a HorizontalPodAutoscaler"}
# Maps whose keys are an operator's words, not the chart's.
DATA = {"cpu", "memory", "kubernetes.io/os", "grafana_dashboard"}
MAX_DEFAULT = 60  # characters


@dataclass(frozen=True, slots=True)
class Value:
    """A key by its path, what is said of it, its default; a section has no default."""

    path: tuple[str, ...]
    text: str
    default: Any
    section: bool


def parse_values(text: str) -> list[Value]:
    """Return every key of values.yaml in its order."""
    values = yaml.safe_load(text)
    found, comment = [], []
    path: list[tuple[int, str]] = []  # indentation and key of what is open
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:  # an empty line, or an item of a list
            comment = comment if line.strip() else []
        elif match["comment"] is not None:
            comment.append(match["comment"].strip())
        else:
            depth = len(match["space"])
            path = [*(item for item in path if item[0] < depth), (depth, match["key"])]
            keys = tuple(key for _, key in path)
            default = values
            for key in keys:
                default = default[key]
            behind = _BEHIND.search(match["rest"] or "")
            said = " ".join([*comment, *(behind.groups() if behind else ())])
            said = said or KNOWN_PATHS.get(".".join(keys[-2:])) or KNOWN.get(keys[-1], "")
            section = isinstance(default, dict) and not (match["rest"] or "").strip().startswith("{")
            found.append(Value(keys, said, default, section))
            comment = []
    return found


def render_page(values: list[Value]) -> str:
    """Return the page."""
    return "\n".join([HEAD, *_render_general(values), *_render_sections(values)])


def _render_general(values: list[Value]) -> Iterator[str]:
    yield "## General\n"
    yield from _table([each for each in values if len(each.path) == 1 and not each.section])


def _render_sections(values: list[Value]) -> Iterator[str]:
    for section in values:
        if len(section.path) == 1 and section.section:
            yield f"## {section.path[0]}\n"
            if section.text:
                yield f"{section.text}\n"
            yield from _table([each for each in values if each.path[0] == section.path[0] and not each.section])


def _table(values: list[Value]) -> Iterator[str]:
    yield "| key | default | what |\n|---|---|---|"
    for each in values:
        yield f"| `{'.'.join(each.path)}` | `{_default(each.default)}` | {_cell(each.text)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _default(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value or '""'
    if isinstance(value, list) and len(text) > MAX_DEFAULT:
        text = f"[{value[0]}, ...] ({len(value)})"
    return text


def keys_of(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key of nested values that the page must name: a map's own keys, as far as it has any."""
    for key, value in values.items():
        if isinstance(value, dict) and value and not (set(value) <= DATA):
            yield from keys_of(value, (*prefix, key))
        else:
            yield (*prefix, key)


if __name__ == "__main__":
    PAGE.write_text(render_page(parse_values(VALUES_FILE.read_text())))
