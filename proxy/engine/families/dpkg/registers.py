"""Programs that keep registers of what packages bring: runlevel links, PAM profiles.

Owns when they would find everything as it is. Anything else is refused with `NotReproduced`.
Specification: update-rc.d(8), pam-auth-update(8)
"""

import re

from proxy.engine.families.dpkg.call import DOES, Call, Verdict
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage

_PAM_INPUTS = ("usr/share/pam-configs", "usr/share/pam")
_PAM_STATE = "var/lib/pam/seen"


def update_rc(call: Call) -> Verdict:
    """`update-rc.d NAME defaults` of a service that has its links, with the same headers in its script as before."""
    words = [word for word in call.known() or () if word != "-f"]
    if words[1:] not in (["defaults"], ["defaults-disabled"], ["remove"]):
        return DOES
    name, action = words[:2]
    links = [
        f"etc/rc{level}.d/{link}"
        for level in "0123456S"
        for link in call.stage.listdir(f"etc/rc{level}.d")
        if re.fullmatch(rf"[SK][0-9][0-9]{re.escape(name)}", link)
    ]
    if action == "remove":
        there = call.stage.get(f"etc/init.d/{name}") is not None
        return True if there or not links else DOES
    script = f"etc/init.d/{name}"
    return True if links and _header(call.stage.read(script)) == _header(call.stage.fs.read(script)) else DOES


def _header(script: bytes | None) -> list[bytes]:
    text = (script or b"").partition(b"### BEGIN INIT INFO")[2].partition(b"### END INIT INFO")[0]
    return [line for line in text.split(b"\n") if re.match(rb"# (?:Provides|Required|Should|X-|Default)", line)]


def pam_auth_update(call: Call) -> Verdict:
    """`pam-auth-update --package` where profiles and templates are what they were, and no profile is new."""
    words = call.known()
    if words is None or set(words) - {"--package", "--enable"} or words[:1] != ["--package"]:
        raise NotReproduced("pam-auth-update " + " ".join(words or ("?",)))
    if any(_contents(call.stage, folder) != _before(call.stage, folder) for folder in _PAM_INPUTS):
        raise NotReproduced("pam-auth-update with other profiles than before")
    seen = (call.stage.read(_PAM_STATE) or b"").decode("utf-8", "replace").split()
    if set(call.stage.listdir(_PAM_INPUTS[0])) - set(seen):
        raise NotReproduced("pam-auth-update with a profile that it has not seen")
    return True


def _contents(stage: Stage, folder: str) -> dict[str, bytes | None]:
    stage.fetch(f"{folder}/{name}" for name in stage.listdir(folder))
    return {name: stage.read(f"{folder}/{name}") for name in stage.listdir(folder)}


def _before(stage: Stage, folder: str) -> dict[str, bytes | None]:
    stage.fs.fetch(f"{folder}/{name}" for name in stage.fs.listdir(folder))
    return {name: stage.fs.read(f"{folder}/{name}") for name in stage.fs.listdir(folder)}
