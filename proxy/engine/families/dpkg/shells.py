"""What `add-shell`, `remove-shell` and `update-shells` leave behind: `/etc/shells` and the state beside it.

Owns the three programs of debianutils as Debian 11 to 13 have them, and the older ones that know no real folders.
Specification: add-shell(8), remove-shell(8), update-shells(8), shells(5)
"""

import re
from collections.abc import Iterator, Sequence

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind

SHELLS, STATE = "etc/shells", "var/lib/shells.state"
PACKAGED, TEMPLATE = "usr/share/debianutils/shells.d", "usr/share/debianutils/shells"

_PLAIN = re.compile(r"/[A-Za-z0-9/_.+-]+")


def run_add_shell(stage: Stage, arguments: Sequence[str]) -> bool:
    """Do to `stage` what add-shell would do; False where it would fail."""
    lines = _lines(stage, "add-shell")
    if lines is None or not arguments:
        return False
    for name in _names(stage, "add-shell", arguments):
        pattern = _pattern(name)
        if not any(pattern.fullmatch(line.removesuffix("\n")) for line in lines):
            if lines and not lines[-1].endswith("\n"):
                lines[-1] += f"{name}\n"
            else:
                lines.append(f"{name}\n")
    stage.write(SHELLS, "".join(lines).encode("utf-8", "surrogateescape"))
    return True


def run_remove_shell(stage: Stage, arguments: Sequence[str]) -> bool:
    """Do to `stage` what remove-shell would do; False where it would fail."""
    lines = _lines(stage, "remove-shell")
    if lines is None or not arguments:
        return False
    for name in _names(stage, "remove-shell", arguments):
        pattern = _pattern(name)
        kept = (line.removesuffix("\n") for line in lines)
        lines = [f"{line}\n" for line in kept if pattern.fullmatch(line) is None]
    stage.write(SHELLS, "".join(lines).encode("utf-8", "surrogateescape"))
    return True


def run_update_shells(stage: Stage, arguments: Sequence[str]) -> bool:
    """Do to `stage` what update-shells would do; raises NotReproduced for arguments."""
    if set(arguments) - {"--verbose"}:
        raise NotReproduced(f"update-shells {' '.join(arguments)}")
    packaged = list(_packaged(stage))
    if b'! hashset_contains "$PKG_SHELLS"' in (stage.read("usr/sbin/update-shells") or b""):  # Debian 13 on
        packaged = list(dict.fromkeys(packaged))
    state = [name for line in _whole(stage, STATE) if (name := line.partition("#")[0])]
    source = SHELLS if stage.follow(SHELLS) is not None else TEMPLATE
    kept: list[str] = []
    present: set[str] = set()
    for line in _whole(stage, source):
        name = line.partition("#")[0]
        if name and ((name not in packaged and name in state) or name in present):
            continue
        kept.append(line)
        present.add(name)
    kept += [name for name in packaged if name not in present and name not in state]
    there = stage.follow(source)
    stage.make_dir(SHELLS.rpartition("/")[0])
    stage.write(SHELLS, _joined(kept), there.mode if there is not None else 0o644)
    stage.make_dir(STATE.rpartition("/")[0])
    stage.write(STATE, _joined(packaged))
    return True


def _packaged(stage: Stage) -> Iterator[str]:
    """Yield the shells that packages name, each followed by its name in the real folder if that is another one."""
    names = sorted(stage.listdir(PACKAGED), key=lambda name: name.encode("utf-8", "surrogateescape"))
    for path in (TEMPLATE, *(f"{PACKAGED}/{name}" for name in names if not name.startswith("."))):
        for line in _whole(stage, path):
            shell = line.partition("#")[0]
            if not shell:
                continue
            if _PLAIN.fullmatch(shell) is None:
                raise NotReproduced(f"/{path} names {shell!r}")
            folder, _, base = shell.rpartition("/")
            real = f"/{stage.resolve(folder)}/{base}"
            yield shell
            if real != shell:
                yield real


def _names(stage: Stage, program: str, arguments: Sequence[str]) -> Iterator[str]:
    """Yield each name, and where the program looks for it the one in its real folder."""
    real = b"REALDIR" in (stage.read(f"usr/sbin/{program}") or b"")
    for argument in arguments:
        if _PLAIN.fullmatch(argument) is None:
            raise NotReproduced(f"{program} {argument}")
        yield argument
        if real:
            folder = stage.resolve(argument).rpartition("/")[0]
            yield f"/{folder}/{argument.rpartition('/')[2]}".replace("//", "/")


def _lines(stage: Stage, program: str) -> list[str] | None:
    data = stage.read(SHELLS)
    if data is None:
        return None
    if data and not data.endswith(b"\n") and b"awk" in (stage.read(f"usr/sbin/{program}") or b""):
        data += b"\n"
    return data.decode("utf-8", "surrogateescape").splitlines(keepends=True)


def _whole(stage: Stage, path: str) -> list[str]:
    """Return the lines of a file that have an end; none where there is no file."""
    there = stage.follow(path)
    if there is None or there.kind is Kind.DIR:
        return []
    return (stage.read(path) or b"").decode("utf-8", "surrogateescape").split("\n")[:-1]


def _joined(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\.", "."))  # the programs give names to grep as they are
