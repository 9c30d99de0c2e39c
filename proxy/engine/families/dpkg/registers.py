"""Programs that keep registers of what packages bring: PAM profiles.

Owns when they would find everything as it is. Anything else is refused with `NotReproduced`.
Specification: pam-auth-update(8)
"""

from proxy.engine.families.dpkg.call import Call, Verdict
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage

_PAM_INPUTS = ("usr/share/pam-configs", "usr/share/pam")
_PAM_STATE = "var/lib/pam/seen"


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
