"""The stanza that dpkg writes into its status file for a package that it has just installed.

Owns the order and the form of the fields; they differ from those of the package's control file.
Format: the field table of dpkg's own database writer, as seen in every status file; deb-control(5)
"""

import re
from collections.abc import Collection

from proxy.engine.families.dpkg.conffiles import Conffile
from proxy.engine.families.dpkg.deb822 import Stanza, parse_stanzas
from proxy.errors import MalformedInput

_ORDER = (
    "Package", "Essential", "Protected", "Status", "Priority", "Section", "Installed-Size", "Origin",
    "Maintainer", "Bugs", "Architecture", "Multi-Arch", "Source", "Version", "Replaces", "Provides",
    "Depends", "Pre-Depends", "Recommends", "Suggests", "Breaks", "Conflicts", "Enhances", "Conffiles",
    "Description",
)  # fmt: skip
_NEVER = {"config-version", "triggers-pending", "triggers-awaited", "filename", "size", "md5sum", "msdos-filename"}
_RELATIONS = {
    name.lower()
    for name in (
        "Replaces", "Provides", "Depends", "Pre-Depends", "Recommends", "Suggests", "Breaks", "Conflicts", "Enhances"
    )
}  # fmt: skip
_RELATION = re.compile(r"([^\s(]+)\s*(?:\(\s*([<>=]+)\s*([^\s)]+)\s*\))?")


def render_status(control: bytes, old: Stanza, conffiles: tuple[Conffile, ...], where: str) -> Stanza:
    """Return the status stanza of a package with this control file that replaces `old`.

    Section and Priority stay as they were where the new version has none.
    """
    stanza = parse_stanzas(control, where)[0]
    values = {name.lower(): (name, value) for name, value in stanza.items() if name.lower() not in _NEVER}
    values["status"] = ("Status", "install ok installed")
    for name in ("Section", "Priority"):
        if name.lower() not in values and old.get(name):
            values[name.lower()] = (name, old.get(name))
    values.pop("conffiles", None)
    if conffiles:
        values["conffiles"] = ("Conffiles", "".join(map(_conffile, conffiles)))
    fields: list[tuple[str, str]] = []
    for name in _ORDER:
        found = values.pop(name.lower(), None)
        value = _canonical(name, found[1], where) if found is not None and found[1] else ""
        if value:
            fields.append((name, value))
    fields += [found for found in values.values() if found[1]]
    return Stanza.of(fields, where)


def retire_conffiles(stanza: Stanza, paths: Collection[str]) -> Stanza:
    """Return a stanza that calls its conffiles at `paths` (without leading slash) obsolete."""
    lines = stanza.get("Conffiles").split("\n")
    marked = [f"{line} obsolete" if not line.endswith(" obsolete") and _path(line) in paths else line for line in lines]
    text = "\n".join(line if not line or line.startswith(" ") else f" {line}" for line in marked)
    fields = [(name, text if name.lower() == "conffiles" else value) for name, value in stanza.items()]
    return Stanza.of(fields, "") if marked != lines else stanza


def _path(line: str) -> str:
    return line.strip().rpartition(" ")[0].lstrip("/")


def _conffile(item: Conffile) -> str:
    return f"\n /{item.path} {item.md5}" + (" obsolete" if item.obsolete else "")


def _canonical(name: str, value: str, where: str) -> str:
    """Write a relationship field as dpkg does: one line, single blanks, ``<<`` and ``>>`` for the strict bounds."""
    if name.lower() in _RELATIONS:
        groups = [group for group in value.split(",") if group.strip()]
        return ", ".join(" | ".join(_relation(part, where) for part in group.split("|")) for group in groups)
    if name in {"Essential", "Protected"} and value != "yes":
        return ""
    return value.lower() if name == "Priority" else value


def _relation(text: str, where: str) -> str:
    match = _RELATION.fullmatch(text.strip())
    if match is None:
        raise MalformedInput("not a relation", file=where, text=text)
    name, operator, version = match.groups()
    if operator is None:
        return str(name)
    return f"{name} ({ {'<': '<=', '>': '>='}.get(operator, operator) } {version})"
