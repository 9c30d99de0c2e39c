"""Link groups, held against the real update-alternatives after every call."""

import contextlib
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.alternatives import list_alternatives, query_alternatives, run_update_alternatives
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.linkgroups import Choice, Group, parse_group, render_group
from proxy.engine.rootfs import RootFS
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind
from proxy.errors import MalformedInput
from tests.proxy.engine.filesystems import make_fs
from tests.support import require_tool

PROGRAMS = ("a", "b", "c", "d")
FOLDERS = ("etc/alternatives", "var/lib/dpkg/alternatives", "var/log", "usr/share/man", "usr/bin", "opt")


class Both:
    """A folder that the real program works on, and a stage of the same files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._program = require_tool("update-alternatives")
        files = {f"{folder}/.keep": b"" for folder in FOLDERS}
        files |= {f"opt/{name}": name.encode() for name in PROGRAMS}
        files |= {f"opt/{name}.{number}": b"" for name in "abc" for number in (1, 2)}
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        self.fs: RootFS = make_fs(dict(files), lambda _: True)
        self.stage = Stage(self.fs)

    def call(self, *arguments: str) -> bool:
        """Call both; return whether they succeed."""
        real = subprocess.run(
            [self._program, "--root", str(self.root), *arguments], capture_output=True, check=False, text=True
        )
        assert run_update_alternatives(self.stage, arguments) == (real.returncode == 0), (arguments, real.stderr)
        assert self.ours() == self.theirs(), arguments
        for name in ("one", "two", "tool"):
            said = subprocess.run(
                [self._program, "--root", str(self.root), "--query", name], capture_output=True, check=False, text=True
            )
            assert query_alternatives(self.stage, name) == said.stdout
        return real.returncode == 0

    def ours(self) -> dict[str, str | bytes]:
        found = [entry for entry in self.stage.walk() if entry.kind is not Kind.DIR]
        return {e.path: e.target if e.kind is Kind.SYMLINK else self.stage.read(e.path) or b"" for e in found}

    def theirs(self) -> dict[str, str | bytes]:
        paths = [path for path in self.root.rglob("*") if path.is_symlink() or path.is_file()]
        found = {
            str(path.relative_to(self.root)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
            for path in paths
        }
        return {path: what for path, what in found.items() if path != "var/log/alternatives.log"}

    def remove(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)
        self.stage.remove(path)

    def write(self, path: str) -> None:
        self.remove(path)
        (self.root / path).write_bytes(b"own")
        self.stage.write(path, b"own")

    def symlink(self, target: str, path: str) -> None:
        self.remove(path)
        (self.root / path).symlink_to(target)
        self.stage.symlink(target, path)


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path)


@pytest.mark.interop
def test_a_group_with_slaves_comes_changes_and_goes(both: Both) -> None:
    man = ("--slave", "/usr/share/man/tool.1", "tool.1")
    assert both.call("--install", "/usr/bin/tool", "tool", "/opt/a", "10", *man, "/opt/a.1")
    assert both.call("--install", "/usr/bin/tool", "tool", "/opt/b", "20", *man, "/opt/b.1")
    assert both.call("--install", "/usr/bin/tool", "tool", "/opt/c", "5")
    assert both.stage.follow("usr/bin/tool") == both.stage.get("opt/b")
    assert list_alternatives(both.stage, "tool") == "/opt/a\n/opt/b\n/opt/c\n"
    assert both.call("--set", "tool", "/opt/c")
    assert not both.call("--set", "tool", "/opt/x")
    assert both.call("--remove", "tool", "/opt/c")
    assert both.call("--install", "/usr/bin/tool2", "tool", "/opt/b", "1")
    assert both.call("--auto", "tool")
    assert both.call("--remove-all", "tool")
    assert both.call("--remove", "tool", "/opt/a")
    assert not both.call("--auto", "tool")
    assert both.ours() == {path: what for path, what in both.ours().items() if path.startswith("opt") or "keep" in path}


@pytest.mark.interop
def test_links_that_somebody_broke_or_took_are_treated_as_the_program_does(both: Both) -> None:
    install = ("--install", "/usr/bin/tool", "tool", "/opt/a", "10", "--slave", "/usr/bin/t2", "t2", "/opt/a.1")
    both.call(*install)
    both.remove("usr/bin/tool")
    both.call(*install)
    both.write("usr/bin/t2")
    both.call(*install)
    both.symlink("/opt/d", "etc/alternatives/tool")
    both.call(*install)
    assert b"manual" in (both.stage.read("var/lib/dpkg/alternatives/tool") or b"")
    both.remove("opt/d")
    both.call("--install", "/usr/bin/tool", "tool", "/opt/b", "10")
    assert not both.call("--install", "/usr/bin/t2", "other", "/opt/b", "10")
    assert not both.call("--install", "/usr/bin/x", "t2", "/opt/b", "10")


@pytest.mark.interop
@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_calls_equals_the_program(tmp_path: Path, seed: int) -> None:
    both, dice = Both(tmp_path), random.Random(seed)
    name = lambda: dice.choice(("one", "two"))  # noqa: E731 - a die with a name
    program: Callable[[], str] = lambda: f"/opt/{dice.choice(PROGRAMS)}"  # noqa: E731 - the same
    for _ in range(14):
        match dice.randrange(9):
            case 0 | 1 | 2 | 3:
                which, path = name(), program()
                words = [
                    "--install",
                    f"/usr/bin/{which}{dice.choice(('', '', 'x'))}",
                    which,
                    path,
                    str(dice.randrange(4)),
                ]
                for number in dice.sample((1, 2), dice.randrange(3)):
                    link = f"/usr/share/man/{which}.{number}{dice.choice(('', '', 'x'))}"
                    words += ["--slave", link, f"{which}.{number}", f"{path}.{number}"]
                both.call(*words)
            case 4:
                both.call(dice.choice(("--remove", "--set")), name(), program())
            case 5:
                both.call(dice.choice(("--auto", "--auto", "--remove-all")), name())
            case 6:
                both.remove(dice.choice(("opt/a.1", "opt/b", "usr/bin/one", "etc/alternatives/two", "opt/c.2")))
            case 7:
                both.write(dice.choice(("usr/bin/one", "usr/share/man/two.1", "opt/b", "opt/a.1")))
            case _:
                both.symlink(dice.choice(("/opt/a", "/opt/none")), dice.choice(("etc/alternatives/one", "usr/bin/two")))


def test_what_is_not_known_here_is_refused() -> None:
    stage = Stage(make_fs({"opt/a": b""}, lambda _: True))
    for words in (("--config", "x"), (), ("--altdir", "/x", "--auto", "y"), ("--slave", "a", "b", "c")):
        with pytest.raises(NotReproduced):
            run_update_alternatives(stage, words)
    with pytest.raises(NotReproduced, match="half-way"):
        run_update_alternatives(stage, ("--install", "/usr/bin/x", "x", "/opt/a", "1"))


texts = st.text(st.characters(codec="utf-8", exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1)
slaves = st.dictionaries(texts, texts, max_size=3)


@given(texts, st.booleans(), st.dictionaries(texts, st.tuples(st.integers(), slaves), max_size=3))
def test_every_group_is_read_back_as_it_was_written(
    link: str, automatic: bool, choices: dict[str, tuple[int, dict[str, str]]]
) -> None:
    names = {name for _, files in choices.values() for name in files}
    group = Group("x", link, automatic, {name: f"{link}{number}" for number, name in enumerate(sorted(names))})
    group.choices = [Choice(path, priority, files) for path, (priority, files) in choices.items()]
    assert parse_group(render_group(group), "x") == group


@given(st.binary(max_size=200))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(MalformedInput):
        parse_group(b"auto\n" + data, "x")
