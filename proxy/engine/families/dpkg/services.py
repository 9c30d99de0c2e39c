"""What `update-rc.d` leaves behind: links to init scripts in `/etc/rc?.d`.

Owns what it does where neither insserv nor OpenRC is installed: links that are there stay as they are, missing ones are
made by the script's own header. Nothing that is done to running services counts: nothing runs in an image.
Specification: update-rc.d(8), LSB 22.7 comment conventions for init scripts
"""

import re
from collections.abc import Sequence

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage

_LEVELS = "0123456789S"
_OTHERS = ("usr/lib/insserv/insserv", "sbin/insserv", "sbin/openrc")
_HEADER = re.compile(rb"^### BEGIN INIT INFO[ \t]*\n(.*?)^### END INIT INFO", re.DOTALL | re.MULTILINE)


def run_update_rc(stage: Stage, arguments: Sequence[str]) -> bool:
    """Do to `stage` what update-rc.d would do; False where it would fail.

    Raises:
        NotReproduced: links that another program arranges, or an action that is not known here.
    """
    words = [word for word in arguments if word != "-f"]
    if len(words) < 2 or words[1] not in {"defaults", "defaults-disabled", "remove"} or "/" in words[0]:  # noqa: PLR2004
        raise NotReproduced(f"update-rc.d {' '.join(arguments)}")
    if any(stage.follow(path) is not None for path in _OTHERS):
        raise NotReproduced("update-rc.d where insserv or OpenRC arranges the links")
    name, action = words[0], words[1]
    links = list(_links(stage, name))
    if action == "remove":
        for link in links:
            stage.remove(link)
    elif not links:
        return _make(stage, name, "S" if action == "defaults" else "K")
    return True


def _links(stage: Stage, name: str) -> list[str]:
    pattern = re.compile(rf"[SK][0-9][0-9]{re.escape(name)}")
    folders = [f"etc/rc{level}.d" for level in _LEVELS]
    return [f"{folder}/{found}" for folder in folders for found in stage.listdir(folder) if pattern.fullmatch(found)]


def _make(stage: Stage, name: str, start: str) -> bool:
    script = stage.read(f"etc/init.d/{name}")
    if script is None:
        return False
    header = _HEADER.search(script)
    for field, letter in (("Default-Start", start), ("Default-Stop", "K")):
        found = re.findall(rf"(?m)^# {field}:[ \t]*(\S.*)$", header[1].decode("utf-8", "replace")) if header else []
        for level in found[-1].split() if found else ():
            if level not in _LEVELS:
                raise NotReproduced(f"the runlevel {level} of /etc/init.d/{name}")
            stage.make_dir(f"etc/rc{level}.d")
            path = f"etc/rc{level}.d/{letter}01{name}"
            if stage.get(path) is None:
                stage.symlink(f"../init.d/{name}", path)
    return True
