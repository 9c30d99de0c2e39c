"""dpkg-maintscript-helper, done to a stage: conffiles that go or move, directories that become links and back.

Owns what the helper does in the preinst and the postinst of an upgrade; on other occasions (purge, an upgrade that
is given up) it has nothing to do here. Where the helper would fail, and the upgrade with it, it raises NotReproduced.
Specification: dpkg-maintscript-helper(1)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.engine.families.dpkg.call import DOES, Call, Verdict, placed
from proxy.engine.families.dpkg.conffiles import md5_of
from proxy.engine.families.dpkg.database import parse_conffiles
from proxy.engine.families.dpkg.dpkgquery import field_of, list_of, stanzas_of
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.version import holds
from proxy.engine.stage import Stage
from proxy.engine.tar import Entry, Kind

STAGING = ".dpkg-staging-dir"


@dataclass(frozen=True, slots=True)
class _Help:
    """One call: on which stage, for which package, with which paths, and whether its version says that it acts."""

    stage: Stage
    package: str
    arch: str
    paths: tuple[str, ...]
    due: bool

    def owns(self, path: str) -> bool:
        """Say whether the package's list of the moment has `path`."""
        return path in (list_of(self.stage, self.package, self.arch) or "").split("\n")

    def conffiles(self) -> Mapping[str, tuple[str, str]]:
        found = stanzas_of(self.stage, self.package)
        return parse_conffiles(field_of(found[0], "Conffiles")) if found else {}

    def unchanged(self, path: str) -> bool:
        """Say whether the conffile at `path` is as the package brought it."""
        return md5_of(self.stage.read(path) or b"") == self.conffiles().get(path, ("", ""))[0]

    def move(self, old: str, new: str) -> None:
        """`mv -f` onto what is no directory."""
        if self.stage.is_dir(new):
            raise NotReproduced(f"dpkg-maintscript-helper would move {old} into {new}")
        self.stage.rename(old, new)


def help_maintainer_script(call: Call) -> Verdict:
    """Do one call of dpkg-maintscript-helper to the stage."""
    scene, words = call.scene, call.arguments
    if words[:1] == ["supports"]:
        return str(words[1]) in _ACTIONS if len(words) > 1 else False
    if None in words or "--" not in words:
        return DOES
    told = [word or "" for word in words[: words.index("--")]]
    passed = [word or "" for word in words[words.index("--") + 1 :]]
    if not told or told[0] not in _ACTIONS:
        return DOES
    count, actions = _ACTIONS[told[0]]
    paths, rest = told[1 : 1 + count], [*told[1 + count :], "", ""]
    if len(paths) < count or not passed or not placed(paths[0]):
        return DOES
    action = actions.get(scene.script)
    if action is None or passed[0] not in {"upgrade", "install", "configure"}:
        return True
    old = passed[1] if len(passed) > 1 else ""
    due = bool(old) and holds(old, "le-nl", rest[0]) is True
    own = f"{scene.package}:{_architecture(call)}"
    action(_Help(call.stage, rest[1] or own, scene.arch, tuple(paths), due))
    return True


def _architecture(call: Call) -> str:
    """Return the architecture of the package whose script runs."""
    found = {field_of(stanza, "Architecture") for stanza in stanzas_of(call.stage, call.scene.package)}
    return found.pop() if len(found) == 1 else call.scene.arch


def _prepare_rm(help_: _Help) -> None:
    path = help_.paths[0]
    if help_.due and help_.stage.follow(path) is not None and help_.owns(path):
        help_.move(path, f"{path}.dpkg-{'remove' if help_.unchanged(path) else 'backup'}")


def _finish_rm(help_: _Help) -> None:
    path = help_.paths[0]
    if not help_.due:
        return
    if help_.stage.follow(f"{path}.dpkg-backup") is not None:
        help_.move(f"{path}.dpkg-backup", f"{path}.dpkg-bak")
    if help_.stage.follow(f"{path}.dpkg-remove") is not None:
        help_.stage.remove(f"{path}.dpkg-remove")


def _prepare_mv(help_: _Help) -> None:
    path = help_.paths[0]
    if help_.due and help_.stage.follow(path) is not None and help_.owns(path) and help_.unchanged(path):
        help_.move(path, f"{path}.dpkg-remove")


def _finish_mv(help_: _Help) -> None:
    (old, new), stage = help_.paths, help_.stage
    if not help_.due:
        return
    stage.remove(f"{old}.dpkg-remove")
    if stage.follow(old) is None or not help_.owns(old):
        return
    if stage.follow(new) is not None:
        help_.move(new, f"{new}.dpkg-new")
    help_.move(old, new)


def _leads(stage: Stage, path: str, target: str) -> bool:
    there = stage.get(path)
    found = there is not None and there.kind is Kind.SYMLINK
    return found and there is not None and target in {there.target, f"/{stage.resolve(path)}"}


def _prepare_folder(help_: _Help) -> None:
    path, target = help_.paths
    if help_.due and _leads(help_.stage, path, target):
        help_.move(path, f"{path}.dpkg-backup")


def _finish_folder(help_: _Help) -> None:
    path, target = help_.paths
    if _leads(help_.stage, f"{path}.dpkg-backup", target):
        help_.stage.remove(f"{path}.dpkg-backup")


def _is_folder(stage: Stage, path: str) -> Entry | None:
    there = stage.get(path)
    return there if there is not None and there.kind is Kind.DIR else None


def _prepare_link(help_: _Help) -> None:
    path, stage = help_.paths[0].rstrip("/"), help_.stage
    there = _is_folder(stage, path)
    if not help_.due or there is None:
        return
    if any(name.startswith(f"{path}/") for name in help_.conffiles()):
        raise NotReproduced(f"dpkg-maintscript-helper would fail: {path} contains conffiles")
    found = [path, *(f"{path}/{entry.path.removeprefix(there.path + '/')}" for entry in stage.walk(path))]
    strange = next((name for name in found if not help_.owns(name)), "")
    if strange:
        raise NotReproduced(f"dpkg-maintscript-helper would fail: {strange} is not the package's")
    help_.move(path, f"{path}.dpkg-backup")
    stage.make_dir(path)
    stage.write(f"{path}/{STAGING}", b"")


def _finish_link(help_: _Help) -> None:
    path, stage = help_.paths[0].rstrip("/"), help_.stage
    target = help_.paths[1]
    staging = _is_folder(stage, path) and stage.follow(f"{path}/{STAGING}")
    if not stage.is_dir(f"{path}.dpkg-backup") or not staging:
        return
    place = target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}"
    stage.remove(f"{path}/{STAGING}")
    names = stage.listdir(path)
    if names and not stage.is_dir(place):
        raise NotReproduced(f"dpkg-maintscript-helper would fail: {place} is no directory")
    for name in names:
        over = stage.get(f"{place}/{name}")
        if over is not None and (over.kind is Kind.DIR or _is_folder(stage, f"{path}/{name}")):
            raise NotReproduced(f"dpkg-maintscript-helper would fail: {place}/{name} is there already")
        stage.rename(f"{path}/{name}", f"{place}/{name}")
    stage.remove_dir(path)
    stage.symlink(target, path)
    stage.remove_tree(f"{path}.dpkg-backup")


_Action = Callable[[_Help], None]
_ACTIONS: Mapping[str, tuple[int, Mapping[str, _Action]]] = {  # how many paths it is told, and what it does where
    "rm_conffile": (1, {"preinst": _prepare_rm, "postinst": _finish_rm}),
    "mv_conffile": (2, {"preinst": _prepare_mv, "postinst": _finish_mv}),
    "symlink_to_dir": (2, {"preinst": _prepare_folder, "postinst": _finish_folder}),
    "dir_to_symlink": (2, {"preinst": _prepare_link, "postinst": _finish_link}),
}
