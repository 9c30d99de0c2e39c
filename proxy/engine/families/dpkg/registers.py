"""Programs that keep registers of what packages bring: PAM profiles, GLib's schemas and modules; the machine's id.

Owns when they would find everything as it is. Anything else is refused with `NotReproduced`.
Specification: pam-auth-update(8), glib-compile-schemas(1), gio-querymodules(1), dbus-uuidgen(1)
"""

import re
from collections.abc import Mapping

from proxy.engine.families.dpkg.call import DOES, Call, Command, Verdict
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage

_PAM_INPUTS = ("usr/share/pam-configs", "usr/share/pam")
_PAM_STATE = "var/lib/pam/seen"


def pam_auth_update(call: Call) -> Verdict:
    """`pam-auth-update --package` where profiles and templates are what they were, and no profile is new."""
    words = call.known()
    if words is not None and words[:2] == ["--root", ""]:
        words = words[2:]
    if words is None or set(words) - {"--package", "--enable"} or words[:1] != ["--package"]:
        raise NotReproduced("pam-auth-update " + " ".join(words or ("?",)))
    if any(_contents(call.stage, folder) != _before(call.stage, folder) for folder in _PAM_INPUTS):
        raise NotReproduced("pam-auth-update with other profiles than before")
    seen = (call.stage.read(_PAM_STATE) or b"").decode("utf-8", "replace").split()
    if set(call.stage.listdir(_PAM_INPUTS[0])) - set(seen):
        raise NotReproduced("pam-auth-update with a profile that it has not seen")
    return True


def machine_id(call: Call) -> Verdict:
    """`dbus-uuidgen --ensure` where the machine's id is there; one that is made is another each time."""
    there = call.stage.read("var/lib/dbus/machine-id")
    if call.known() != ["--ensure"] or there is None or re.fullmatch(rb"[0-9a-f]{32}\n?", there) is None:
        raise NotReproduced("dbus-uuidgen " + " ".join(word or "?" for word in call.arguments))
    return True


def _unmanaged_libraries(call: Call) -> Verdict:
    """GLib's clean-up of libraries that were left in /lib: nothing where /lib is /usr/lib, or holds none."""
    words = [word for word in call.known() or () if not word.startswith("--")]
    if len(words) != 2 or "--force" in call.arguments:  # noqa: PLR2004 - the folder and a library
        return DOES
    multiarch, soname = words
    left = [name for name in call.stage.listdir(f"lib/{multiarch}") if name.startswith(f"{soname}.")]
    return True if call.stage.resolve("lib") == "usr/lib" or not left else DOES


def _modules(call: Call) -> Verdict:
    """`gio-querymodules FOLDER...`: its cache goes where there is no module, and stays where none changed."""
    for folder in call.known() or ("",):
        names = [name for name in call.stage.listdir(folder) if name.endswith(".so")]
        cache = f"{folder}/giomodule.cache"
        there = call.stage.get(cache) is not None
        if not folder or (names and not (there and _same(call.stage, folder))):
            raise NotReproduced(f"the modules in {folder}")
        if there and not names:
            call.stage.remove(cache)
    return True


def _schemas(call: Call) -> Verdict:
    """`glib-compile-schemas FOLDER` where no schema changed since it was last called."""
    folder = (call.known() or [""])[-1]
    if not folder.startswith("/") or not _same(call.stage, folder):
        raise NotReproduced(f"the schemas in {folder}")
    names = [name for name in call.stage.listdir(folder) if name != "gschemas.compiled"]
    if names and call.stage.get(f"{folder}/gschemas.compiled") is None:
        raise NotReproduced(f"the schemas in {folder}")
    return True


def _same(stage: Stage, folder: str) -> bool:
    """Say that every path in a folder is what it is in the image."""
    return list(stage.fs.listdir(folder)) == list(stage.listdir(folder)) and all(
        stage.get(f"{folder}/{name}") == stage.fs.get(f"{folder}/{name}") for name in stage.listdir(folder)
    )


GLIB: Mapping[str, Command] = {
    "clean-up-unmanaged-libraries": _unmanaged_libraries,
    "gio-querymodules": _modules,
    "glib-compile-schemas": _schemas,
}


def _contents(stage: Stage, folder: str) -> dict[str, bytes | None]:
    stage.fetch(f"{folder}/{name}" for name in stage.listdir(folder))
    return {name: stage.read(f"{folder}/{name}") for name in stage.listdir(folder)}


def _before(stage: Stage, folder: str) -> dict[str, bytes | None]:
    stage.fs.fetch(f"{folder}/{name}" for name in stage.fs.listdir(folder))
    return {name: stage.fs.read(f"{folder}/{name}") for name in stage.fs.listdir(folder)}
