"""apt's record of which packages nobody asked for: they were installed because others need them.

Owns `/var/lib/apt/extended_states`: what apt leaves there when it adds and removes packages. Stanzas that are there
keep their order and their fields.
Format: as apt writes it, see apt-mark(8)
"""

from collections.abc import Collection, Iterable

from proxy.engine.families.dpkg.deb822 import Stanza, parse_stanzas, render_stanzas
from proxy.engine.stage import Stage

STATES = "var/lib/apt/extended_states"
_AUTOMATIC = "Auto-Installed"
_PLAIN = {"Package", "Architecture", _AUTOMATIC}


def mark_automatic(stage: Stage, names: Iterable[str], arch: str, removed: Collection[str] = ()) -> None:
    """Mark packages that were added, and forget those that were removed; nothing where apt has no folder.

    Args:
        stage: the tree.
        names: the packages' names.
        arch: the native architecture, which apt writes for packages of all architectures too.
        removed: the names of packages that went.
    """
    wanted = set(names)
    if not (wanted or removed) or not stage.is_dir(STATES.rpartition("/")[0]):
        return
    stanzas: list[Stanza] = []
    for stanza in parse_stanzas(stage.read(STATES) or b"", STATES):
        if stanza.get("Package") in removed and {name for name, _ in stanza.items()} <= _PLAIN:
            continue
        if stanza.get("Package") in wanted and stanza.get("Architecture") in {arch, ""}:
            wanted.discard(stanza.get("Package"))
            fields = [(name, "1" if name == _AUTOMATIC else value) for name, value in stanza.items()]
            stanzas.append(Stanza.of(fields, STATES))
        else:
            stanzas.append(stanza)
    fresh = ([("Package", name), ("Architecture", arch), (_AUTOMATIC, "1")] for name in sorted(wanted))
    stanzas += [Stanza.of(fields, STATES) for fields in fresh]
    stage.write(STATES, render_stanzas(stanzas))
