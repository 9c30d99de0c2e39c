"""dpkg's database on both sides, record for record, and apt's record of what nobody asked for.

Owns the parsing of these files into stanzas. The other parts of the database (info, alternatives, diversions,
statoverride, triggers) are plain files and compared as paths. Specification: deb822(5), dpkg(1).
"""

from collections.abc import Iterator
from pathlib import Path

STATUS = "var/lib/dpkg/status"
EXTENDED = "var/lib/apt/extended_states"  # in the order of a hash table: only what it says is compared
Stanza = dict[str, str]


def parse_status(text: str) -> dict[str, Stanza]:
    """Return the stanzas of a status file by `package:architecture`."""
    found: dict[str, Stanza] = {}
    for block in text.split("\n\n"):
        stanza: Stanza = {}
        name = ""
        for line in block.splitlines():
            if line[:1].isspace() and name:
                stanza[name] += f"\n{line}"
            elif line:
                name, _, value = line.partition(":")
                stanza[name] = value.strip()
        if stanza:
            found[f"{stanza['Package']}:{stanza.get('Architecture', '')}"] = stanza
    return found


def compare_databases(ours: Path, theirs: Path) -> tuple[list[str], set[str]]:
    """Return what differs between the records, and the paths whose every record was compared here."""
    texts = [(tree / STATUS).read_text(errors="surrogateescape") for tree in (ours, theirs)]
    left, right = (parse_status(text) for text in texts)
    differences = list(_records(left, right))
    if not differences and texts[0] != texts[1]:
        differences.append(f"{STATUS}: the same records, written in another order or form")
    states = [tree / EXTENDED for tree in (ours, theirs)]
    if all(path.exists() for path in states):
        differences += _records(*(parse_status(path.read_text()) for path in states), where=EXTENDED)
    return differences, {STATUS, EXTENDED}


def _records(left: dict[str, Stanza], right: dict[str, Stanza], where: str = STATUS) -> Iterator[str]:
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right:
            yield f"{where}: {name} only {'with apt' if name not in left else 'in the patched image'}"
            continue
        one, two = left[name], right[name]
        for field in sorted(one.keys() | two.keys()):
            if one.get(field) != two.get(field):
                yield f"{where}: {name}: {field} is {one.get(field)!r}, apt's {two.get(field)!r}"
        if list(one) != list(two) and one == two:
            yield f"{where}: {name}: fields in another order"
