"""What dpkg and dpkg-query say of the packages of the tree as it is: the questions that maintainer scripts ask.

Owns `dpkg -s`, `-L`, `dpkg-query -W`, `-L`, `-l`, `dpkg-statoverride --list` and `dpkg-divert`'s questions. Refuses any
other form with `NotReproduced`; changes nothing.
Specification: dpkg(1), dpkg-query(1), dpkg-statoverride(1), dpkg-divert(1)
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise

from proxy.engine.families.dpkg.call import DOES, Call, Command, Verdict
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage

ADMIN = "var/lib/dpkg"
_VERBS = {"-s": "s", "--status": "s", "-L": "L", "--listfiles": "L", "-W": "W", "--show": "W", "-l": "l", "--list": "l"}


@lru_cache(maxsize=4)
def _stanzas(status: bytes) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for block in status.decode("utf-8", "surrogateescape").split("\n\n"):
        text = block.strip("\n")
        match = re.search(r"(?m)^Package: *(\S+)", text)
        if match is not None:
            found[match[1]] = (*found.get(match[1], ()), text)
    return found


def stanzas_of(stage: Stage, name: str) -> tuple[str, ...]:
    """Return the stanzas of the status file that `name`, or `name:arch`, stands for."""
    plain, _, arch = name.partition(":")
    found = _stanzas(stage.read(f"{ADMIN}/status") or b"").get(plain, ())
    return tuple(text for text in found if not arch or field_of(text, "Architecture") in {arch, "all"})


def field_of(stanza: str, name: str) -> str:
    """Return the text of one field of a stanza, or nothing."""
    match = re.search(rf"(?m)^{re.escape(name)}:[ \t]*(.*(?:\n[ \t].*)*)", stanza)
    return match[1] if match else ""


def query(call: Call) -> Verdict:
    """Answer one of the questions; raises NotReproduced for any other form."""
    words = call.known()
    verb, form, names = "", "", []
    while words:
        word = words.pop(0)
        if word in _VERBS and not verb:
            verb = _VERBS[word]
        elif word in {"-f", "--showformat"} and words:
            form = words.pop(0)
        elif match := re.fullmatch(r"(?:-f=?|--showformat=)(.+)", word, re.DOTALL):
            form = match[1]
        elif word.startswith("-"):
            verb = "?"
        else:
            names.append(word)
    if verb not in {"s", "L", "W", "l"} or not names or any(set("*?[") & set(name) for name in names):
        raise NotReproduced(f"{call.name} " + " ".join(word or "?" for word in call.arguments))
    return _listed(call, names) if verb == "L" else _told(call, verb, form, names)


def _told(call: Call, verb: str, form: str, names: Sequence[str]) -> Verdict:
    texts: list[str] = []
    truth = True
    for name in names:
        found = stanzas_of(call.stage, name)
        truth = truth and bool(found)
        if found and verb == "l":
            raise NotReproduced("dpkg -l")
        texts += [f"{stanza}\n" if verb == "s" else _formatted(call, stanza, form) for stanza in found]
    call.output(("\n" if verb == "s" else "").join(texts))
    return truth


def _formatted(call: Call, stanza: str, form: str) -> str:
    if not form:
        return f"{_shown(call, stanza)}\t{field_of(stanza, 'Version')}\n"

    def one(match: re.Match[str]) -> str:
        name = match[1]
        want, _, state = [*field_of(stanza, "Status").split(), "", "", ""][:3]
        known = {
            "binary:Package": _shown(call, stanza),
            "db:Status-Want": want,
            "db:Status-Status": state,
            "db:Status-Abbrev": f"{want[:1]}{'n' if state == 'not-installed' else state[:1]} ",
        }
        if ";" in name or ("-" in name and ":" in name and name not in known):
            raise NotReproduced(f"dpkg-query -f {form}")
        return known.get(name, field_of(stanza, name))

    text = re.sub(r"\$\{([^}]*)\}", one, form)
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _shown(call: Call, stanza: str) -> str:
    name, arch = field_of(stanza, "Package"), field_of(stanza, "Architecture")
    same = field_of(stanza, "Multi-Arch") == "same" or arch not in {"all", call.scene.arch}
    return f"{name}:{arch}" if same else name


def list_of(stage: Stage, name: str, native: str) -> str | None:
    """Return the list of a package's paths as it is now, one a line, or None if there is none."""
    plain, _, arch = name.partition(":")
    stems = (name, plain) if arch else (f"{plain}:{native}", plain)
    found = (stage.read(f"{ADMIN}/info/{stem}.list") for stem in stems)
    data = next((data for data in found if data is not None), None)
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _listed(call: Call, names: Sequence[str]) -> Verdict:
    texts: list[str] = []
    for name in names:
        text = list_of(call.stage, name, call.scene.arch)
        if text is None:
            return False
        texts.append(text)
    call.output("\n".join(texts))
    return True


def _override(call: Call) -> Verdict:
    """`dpkg-statoverride --list PATH`."""
    words = [word for word in call.known() or () if word != "--quiet"]
    if len(words) != 2 or words[0] != "--list":  # noqa: PLR2004 - the question and a path
        return DOES
    lines = (call.stage.read(f"{ADMIN}/statoverride") or b"").decode("utf-8", "surrogateescape").split("\n")
    found = [line for line in lines if line and fnmatchcase(line.split(" ", 3)[-1], words[1].rstrip("/"))]
    call.output("".join(f"{line}\n" for line in found))
    return bool(found)


def _divert(call: Call) -> Verdict:
    """What dpkg-divert says of one path, and diversions that are there, or not there, already."""
    words = [word for word in call.known() or () if word not in {"--quiet", "--rename", "--no-rename"}]
    lines = (call.stage.read(f"{ADMIN}/diversions") or b"").decode("utf-8", "surrogateescape").split("\n")
    diverted = {lines[at]: (lines[at + 1], lines[at + 2]) for at in range(0, len(lines) - 2, 3)}
    match words:
        case ["--truename", path]:
            call.output(f"{diverted[path][0] if path in diverted else path}\n")
            return True
        case ["--listpackage", path]:
            by = diverted[path][1] if path in diverted else ""
            call.output("LOCAL\n" if by == ":" else f"{by}\n" if by else "")
            return True
        case ["--list", path] if not set("*?[") & set(path):
            call.output(None if path in diverted else "")
            return True
    path = words[-1] if words else ""
    if "--remove" in words and path.startswith("/") and path not in diverted:
        return True
    told = dict(pairwise(words))
    package = ":" if "--local" in words else told.get("--package", call.scene.package or ":")
    wanted = (told.get("--divert", f"{path}.distrib"), package)
    return True if "--add" in words and diverted.get(path) == wanted else DOES


QUERIES: Mapping[str, Command] = {"dpkg-statoverride": _override, "dpkg-divert": _divert}
