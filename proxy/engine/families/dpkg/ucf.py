"""ucf(1), which asks what to do with configuration files that no package lists, and its register of owners.

Owns when it finds everything as it is: the new file is the one that was offered last. Anything else is refused with
`NotReproduced`.
Specification: ucf(1), ucfr(1)
"""

from hashlib import md5

from proxy.engine.families.dpkg.call import Call, Verdict
from proxy.engine.families.dpkg.findings import NotReproduced

HASHES, REGISTER = "var/lib/ucf/hashfile", "var/lib/ucf/registry"


def _operands(call: Call) -> list[str]:
    words = [word for word in call.known() or () if not word.startswith("-")]
    if len(words) != 2:  # noqa: PLR2004 - a new file and its place, or a package and a file
        raise NotReproduced(f"{call.name} " + " ".join(word or "?" for word in call.arguments))
    return words


def ucf(call: Call) -> Verdict:
    """`ucf NEW PLACE`: nothing where NEW is what was offered last and PLACE is there."""
    new, place = _operands(call)
    if {"-p", "--purge"} & set(call.arguments):
        raise NotReproduced(f"ucf --purge {place}")
    data = call.stage.read(new)
    if data is None:
        return False
    digest = md5(data, usedforsecurity=False).hexdigest()
    lines = (call.stage.read(HASHES) or b"").decode("utf-8", "surrogateescape").split("\n")
    if [digest, place] not in [line.split() for line in lines] or call.stage.get(place) is None:
        raise NotReproduced(f"ucf of {place}, of which a new version is offered")
    return True


def ucfr(call: Call) -> Verdict:
    """`ucfr PACKAGE PLACE` of what is registered."""
    package, place = _operands(call)
    lines = (call.stage.read(REGISTER) or b"").decode("utf-8", "surrogateescape").split("\n")
    there = [package, place] in [line.split() for line in lines]
    if there is bool({"-p", "--purge"} & set(call.arguments)):
        raise NotReproduced(f"ucfr of {place}")
    return True
