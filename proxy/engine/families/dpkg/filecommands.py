"""Commands that change files, done to the stage: rm, mv, cp, ln, mkdir, chmod, chown, touch...

Only forms whose outcome is certain are done; any other option or operand is left as not understood.
Specification: POSIX.1-2017 Utilities, GNU coreutils
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from proxy.engine.families.dpkg.call import DOES, Call, Command, Verdict, placed
from proxy.engine.stage import Stage
from proxy.engine.tar import Entry, Kind

MIN_RANDOM = 3  # letters that mktemp asks for


def _rm(call: Call) -> Verdict:
    split = call.options("frRv")
    if split is None:
        return DOES
    letters, paths = split
    if not all(placed(path) for path in paths):
        return DOES
    truth: bool = True
    for path in paths:
        there = call.stage.get(path)
        if there is None:
            truth = truth and "f" in letters
        elif there.kind is not Kind.DIR:
            call.stage.remove(path)
        elif set("rR") & set(letters) and call.stage.locate(path):
            call.stage.remove_tree(path)
        else:
            truth = False
    return truth


def _rmdir(call: Call) -> Verdict:
    split = call.options("pi")
    if split is None or not all(placed(path) for path in split[1]):
        return DOES
    letters, truth = split[0], True
    for path in split[1]:
        real = call.stage.locate(path)
        while real:
            there = call.stage.get(real)
            if there is None or there.kind is not Kind.DIR or call.stage.listdir(real):
                truth = truth and (there is not None and "i" in letters)
                break
            call.stage.remove_dir(real)
            real = real.rpartition("/")[0] if "p" in letters else ""
    return truth


def _mv(call: Call) -> Verdict:
    split = call.options("fTnv")
    if split is None or len(split[1]) != 2 or not all(placed(path) for path in split[1]):  # noqa: PLR2004
        return DOES
    (old, new), stage = split[1], call.stage
    there = stage.get(old)
    if there is None:
        return False
    if stage.is_dir(new) and "T" not in split[0]:
        new = f"{new.rstrip('/')}/{old.rstrip('/').rpartition('/')[2]}"
    over = stage.get(new)
    if over is not None and (Kind.DIR in {over.kind, there.kind} or "n" in split[0]):
        return DOES
    stage.rename(old, new)
    return True


def _cp(call: Call) -> Verdict:
    split = call.options("apfdvL")
    if split is None or len(split[1]) != 2 or not all(placed(path) for path in split[1]):  # noqa: PLR2004
        return DOES
    (old, new), stage = split[1], call.stage
    plain = not set("ad") & set(split[0])
    there = stage.follow(old) if plain else stage.get(old)
    if there is None:
        return False
    if there.kind not in {Kind.FILE, Kind.SYMLINK, Kind.HARDLINK}:
        return DOES
    if stage.is_dir(new):
        new = f"{new.rstrip('/')}/{old.rpartition('/')[2]}"
    copy = _copy(stage, there, new, keeps=bool(set("ap") & set(split[0])))
    over = stage.follow(new)
    if over is not None and over.kind not in {Kind.FILE, Kind.HARDLINK}:
        return DOES
    if over is not None and copy.kind is Kind.FILE and not set("ap") & set(split[0]):
        stage.write(new, stage.read(old) or b"")
    else:
        stage.put(copy)
    return True


def _copy(stage: Stage, there: Entry, new: str, *, keeps: bool) -> Entry:
    if there.kind is Kind.SYMLINK:
        return replace(there, path=stage.locate(new))
    data = stage.read(there.path) or b""
    while there.kind is Kind.HARDLINK and (target := stage.get(there.target)) is not None:
        there = target
    copy = replace(there, path=stage.resolve(new), kind=Kind.FILE, target="", content=data, size=len(data))
    return copy if keeps else replace(copy, uid=0, gid=0, mode=copy.mode & 0o755, mtime=stage.mtime, xattrs={})


def _ln(call: Call) -> Verdict:
    split = call.options("sfnTvr")
    if split is None or "s" not in split[0] or "r" in split[0] or len(split[1]) != 2:  # noqa: PLR2004
        return DOES
    (target, path), stage = split[1], call.stage
    if not placed(path):
        return DOES
    there = stage.get(path)
    through = there is not None and there.kind is Kind.SYMLINK and set("nT") & set(split[0])
    if stage.is_dir(path) and not through:
        if "T" in split[0]:
            return DOES
        path = f"{path.rstrip('/')}/{target.rstrip('/').rpartition('/')[2]}"
        there = stage.get(path)
    if there is not None and (there.kind is Kind.DIR or "f" not in split[0]):
        return False
    stage.symlink(target, path)
    return True


def _mkdir(call: Call) -> Verdict:
    words = call.known()
    mode = 0o755
    if words and (match := re.match(r"(?:-m|--mode=)([0-7]{3,4})?$", words[0])):
        mode = int(match[1] or words[1], 8) if match[1] or re.fullmatch("[0-7]{3,4}", words[1]) else -1
        call = replace(call, arguments=list(words[1 if match[1] else 2 :]))
    split = call.options("pv")
    if split is None or mode < 0 or not all(placed(path) for path in split[1]):
        return DOES
    truth = True
    for path in split[1]:
        there = call.stage.follow(path)
        if there is not None:
            truth = truth and "p" in split[0] and there.kind is Kind.DIR
        elif "p" in split[0] or call.stage.is_dir(path.rstrip("/").rpartition("/")[0]):
            call.stage.make_dir(path, mode)
        else:
            truth = False
    return truth


def _install(call: Call) -> Verdict:
    """`install -d FOLDER...`: the folders with all above them, mode 755; what is there gets that mode too."""
    split = call.options("dv")
    if split is None or "d" not in split[0] or not split[1] or not all(placed(path) for path in split[1]):
        return DOES
    for path in split[1]:
        there = call.stage.follow(path)
        if there is not None and there.kind is not Kind.DIR:
            return False
        if there is None:
            call.stage.make_dir(path)
        elif (there.mode, there.uid, there.gid) != (0o755, 0, 0):
            return DOES
    return True


def _chmod(call: Call) -> Verdict:
    known = call.known() or [""]
    split = call.options("fv")
    words = None if split is None else split[1]
    if re.fullmatch(r"[-+][rx]+", known[0]):  # scripts run under the umask 022, which lets these be
        words = [f"a{known[0]}", *known[1:]]
    if words is None or len(words) < 2 or not all(placed(path) for path in words[1:]):  # noqa: PLR2004
        return DOES
    for path in words[1:]:
        real = call.stage.resolve(path)
        there = call.stage.get(real)
        if there is None:
            return False
        mode = _mode(words[0], there)
        if mode is None:
            return DOES
        call.stage.change(real, mode=mode)
    return True


def _mode(text: str, there: Entry) -> int | None:
    if re.fullmatch(r"[0-7]{3,4}", text):
        mode = int(text, 8)
        return mode | (there.mode & 0o6000) if there.kind is Kind.DIR and len(text.lstrip("0")) < 4 else mode  # noqa: PLR2004
    mode = there.mode
    for part in text.split(","):
        match = re.fullmatch(r"([ugoa]+)([-+=])([rwxs]*)", part)
        if match is None:
            return None
        who = "ugo" if "a" in match[1] else match[1]
        if "s" in match[3]:
            special = sum({"u": 0o4000, "g": 0o2000}.get(letter, 0) for letter in set(who))
            if match[2] == "=" or match[3] != "s":
                return None
            mode = mode | special if match[2] == "+" else mode & ~special
            continue
        bits = sum({"r": 4, "w": 2, "x": 1}[letter] for letter in set(match[3]))
        for letter in set(who):
            shift = {"u": 6, "g": 3, "o": 0}[letter]
            if match[2] == "=":
                mode = mode & ~(7 << shift) | bits << shift
            else:
                mode = mode | bits << shift if match[2] == "+" else mode & ~(bits << shift)
    return mode


def _chown(call: Call) -> Verdict:
    split = call.options("fhRv")
    if split is None or len(split[1]) < 2 or not all(placed(path) for path in split[1][1:]):  # noqa: PLR2004
        return DOES
    user, sign, group = (split[1][0], "", "") if call.name == "chown" else ("", ":", split[1][0])
    if call.name == "chown":
        user, sign, group = re.sub(r"^([^:]*)\.", r"\1:", user).partition(":")
    uid = _number(call.stage, "passwd", user) if user else None
    gid = _number(call.stage, "group", group) if group else None
    if (user and uid is None) or (group and gid is None) or (sign and not group):
        return DOES
    for path in split[1][1:]:
        real = call.stage.locate(path) if "h" in split[0] else call.stage.resolve(path)
        if call.stage.get(real) is None:
            return False
        below = [entry.path for entry in call.stage.walk(real)] if "R" in split[0] else []
        for each in (real, *below):
            _own(call.stage, each, uid, gid)
    return True


def _own(stage: Stage, path: str, uid: int | None, gid: int | None) -> None:
    """Give a path away; Linux takes the set-id bits off files whose owner is set."""
    there = stage.get(path)
    if there is not None and there.kind is Kind.FILE and (uid, gid) != (None, None):
        stage.change(path, mode=there.mode & ~0o6000)
    stage.change(path, uid=uid, gid=gid)


def _number(stage: Stage, which: str, name: str) -> int | None:
    if name.isdigit():
        return int(name)
    for line in (stage.read(f"etc/{which}") or b"").decode("utf-8", "surrogateescape").split("\n"):
        fields = line.split(":")
        if fields[0] == name and len(fields) > 2 and fields[2].isdigit():  # noqa: PLR2004
            return int(fields[2])
    return None


def _touch(call: Call) -> Verdict:
    words = call.known()
    if words is None or not all(placed(path) for path in words):
        return DOES
    for path in words:
        if call.stage.follow(path) is None:
            call.stage.write(path, b"")
    return True


def _mktemp(call: Call) -> Verdict:
    """`mktemp`, with `-d` for a folder: a name that nobody has, the same whenever the script runs on the same tree."""
    split = call.options("dq")
    if split is None or len(split[1]) > 1 or not all(placed(path) for path in split[1]):
        return DOES
    template = split[1][0] if split[1] else "/tmp/tmp.XXXXXXXXXX"  # noqa: S108 - in the tree, as data
    stem = template.rstrip("X")
    if len(template) - len(stem) < MIN_RANDOM:
        return DOES
    number = 0
    while call.stage.get(path := f"{stem}{number:0{len(template) - len(stem)}d}") is not None:
        number += 1
    if "d" in split[0]:
        call.stage.make_dir(path, 0o700)
    else:
        call.stage.write(path, b"", 0o600)
    call.output(f"{path}\n")
    return True


FILE_COMMANDS: Mapping[str, Command] = {
    "rm": _rm, "rmdir": _rmdir, "mv": _mv, "cp": _cp, "ln": _ln, "mkdir": _mkdir, "install": _install,
    "chmod": _chmod, "chown": _chown, "chgrp": _chown, "touch": _touch,
    "mktemp": _mktemp,
}  # fmt: skip
