"""The list of shells, held against the programs of debianutils."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.shells import run_add_shell, run_remove_shell, run_update_shells
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind
from tests.proxy.engine.filesystems import Link, make_fs
from tests.support import require_tool

RUN: dict[str, Callable[[Stage, Sequence[str]], bool]] = {
    "add-shell": run_add_shell,
    "remove-shell": run_remove_shell,
    "update-shells": run_update_shells,
}
TEMPLATE = b"# valid shells\n/bin/sh\n/usr/bin/sh# twice\n"
TREE: dict[str, bytes | Link] = {
    "bin": Link("usr/bin"),
    "usr/bin/sh": b"",
    "usr/share/debianutils/shells": TEMPLATE,
    "usr/share/debianutils/shells.d/dash": b"/bin/dash\n",
    "usr/share/debianutils/shells.d/B": b"/usr/bin/b.sh\n/opt/b\n",
}


@pytest.mark.interop
@pytest.mark.parametrize(
    ("shells", "state", "calls"),
    [
        (TEMPLATE, None, ["update-shells", "update-shells"]),
        (
            TEMPLATE + b"/opt/own\n/bin/old\n/bin/sh\n",
            b"/bin/old\n/opt/b\n",
            ["update-shells --verbose", "update-shells"],
        ),
        (None, None, ["update-shells"]),
        (
            TEMPLATE,
            None,
            ["add-shell /opt/a /opt/x.y", "add-shell /opt/a", "remove-shell /opt/a", "remove-shell /x"],
        ),
        (b"/opt/xzy\n/opt/b", None, ["add-shell /opt/x.y /opt/c", "remove-shell /opt/x.y /opt/c"]),
        (None, None, ["add-shell /opt/a", "remove-shell /opt/a"]),
        (TEMPLATE, None, ["add-shell", "remove-shell"]),
    ],
)
def test_the_list_becomes_what_the_programs_make_of_it(
    tmp_path: Path, shells: bytes | None, state: bytes | None, calls: list[str]
) -> None:
    files = dict(TREE)
    files |= {"etc/shells": shells} if shells is not None else {"etc/.keep": b""}
    files |= {"var/lib/shells.state": state} if state is not None else {"var/lib/.keep": b""}
    files |= {f"usr/sbin/{name}": Path(require_tool(name)).read_bytes() for name in RUN}
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            (tmp_path / path).symlink_to(content.target)
        else:
            (tmp_path / path).write_bytes(content)
    stage = Stage(make_fs(files, lambda _: True))
    for call in calls:
        name, *words = call.split()
        done = subprocess.run(
            ["sh", "-e", require_tool(name), *words],
            env={"DPKG_ROOT": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            capture_output=True,
            check=False,
        )
        assert RUN[name](stage, words) == (done.returncode == 0), done.stderr
        for path in ("etc/shells", "var/lib/shells.state"):
            theirs = tmp_path / path
            there = stage.get(path)
            assert (stage.read(path), there and there.mode) == (
                (theirs.read_bytes(), theirs.stat().st_mode & 0o7777) if theirs.exists() else (None, None)
            )
    assert all(entry.kind is not Kind.SYMLINK for entry in stage.entries())


def test_real_folders_are_named_too_and_strange_names_refused() -> None:
    files = {**TREE, "etc/shells": b"", "usr/sbin/add-shell": b"REALDIR"}
    stage = Stage(make_fs(files, lambda _: True))
    assert run_add_shell(stage, ["/bin/sh"])
    assert stage.read("etc/shells") == b"/bin/sh\n/usr/bin/sh\n"
    for call in (lambda: run_add_shell(stage, ["/bin/*"]), lambda: run_update_shells(stage, ["--root", "/x"])):
        with pytest.raises(NotReproduced):
            call()


TWICE: dict[str, bytes | Link] = {**TREE, "usr/share/debianutils/shells.d/twice": b"/bin/dash\n/usr/bin/b.sh\n"}


@pytest.mark.parametrize(
    ("program", "counts"), [(b"hashset_contains", 2), (b'if ! hashset_contains "$PKG_SHELLS" "$line"; then', 1)]
)
def test_a_shell_that_two_packages_name_is_listed_as_often_as_the_program_does(program: bytes, counts: int) -> None:
    stage = Stage(make_fs({**TWICE, "usr/sbin/update-shells": program}, lambda _: True))
    assert run_update_shells(stage, [])
    assert (stage.read("var/lib/shells.state") or b"").split(b"\n").count(b"/bin/dash") == counts
