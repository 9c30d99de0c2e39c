"""Debconf's answers, held against the real debconf over databases of its own."""

import contextlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.debconf import QUESTIONS, TEMPLATES, Debconf
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage
from tests.proxy.engine.filesystems import make_fs
from tests.support import require_tool

OLD = b"""Template: pack/area
Type: select
Choices: Asia, Etc, US
Default: Etc
Description: Area?
 More of it.

Template: pack/zone
Type: select
Choices: ${list}
Description: Zone?

Template: pack/trust
Type: boolean
Default: true
Description: Trust?

Template: pack/name
Type: string
Description: Name?
"""
NEW = OLD.replace(b"Asia, Etc, US", rb"Asia, Europe\, West").replace(b"Default: true", b"Default: false")
CALLS = """\
VERSION 2.0
CAPB backup
GET pack/area
GET pack/none
INPUT high pack/area
GO
GET pack/area
SUBST pack/zone list One, Two\\, or so, Three
INPUT high pack/zone
GO
GET pack/zone
METAGET pack/zone choices
GET pack/trust
SET pack/trust false
GET pack/trust
RESET pack/trust
GET pack/trust
FGET pack/area seen
FSET pack/area seen true
FGET pack/area seen
FGET pack/none seen
GET pack/name
SET pack/name a  b
GET pack/name
REGISTER pack/name pack/other
GET pack/other
UNREGISTER pack/other
GET pack/other
INPUT low pack/none
TITLE Hello
BEGINBLOCK
ENDBLOCK
METAGET pack/area type
METAGET pack/area nothing
STOP
"""


def real(folder: Path, templates: bytes, calls: str) -> list[tuple[int, str]]:
    """Let the real debconf answer, over databases in `folder`."""
    frontend = Path("/usr/share/debconf/frontend")
    require_tool("debconf")
    cache = folder / "var/cache/debconf"
    cache.mkdir(parents=True, exist_ok=True)
    (folder / "debconf.conf").write_text(
        "Config: c\nTemplates: t\n\n"
        f"Name: c\nDriver: File\nMode: 644\nFilename: {cache}/config.dat\n\n"
        f"Name: t\nDriver: File\nMode: 644\nFilename: {cache}/templates.dat\n"
    )
    (folder / "pack.templates").write_bytes(templates)
    script = folder / "pack.postinst"
    script.write_text(
        "#!/bin/sh\n. /usr/share/debconf/confmodule\n"
        'while read -r line; do printf \'%s\\n\' "$line" >&3; [ "$line" = STOP ] && break;'
        f' read -r answer; echo "$answer" >> {folder}/answers; done < {folder}/calls\n'.replace(
            "read -r answer;", "read -r answer <&4;"
        ).replace(". /usr/share/debconf/confmodule\n", ". /usr/share/debconf/confmodule\nexec 4<&0\n")
    )
    script.chmod(0o755)
    (folder / "calls").write_text(calls)
    (folder / "answers").write_text("")
    subprocess.run(
        [str(frontend), str(script), "configure", "1"],
        check=True,
        capture_output=True,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
            "DEBCONF_SYSTEMRC": str(folder / "debconf.conf"),
            "LC_ALL": "C",
            "HOME": str(folder),
            "DPKG_MAINTSCRIPT_PACKAGE": "pack",
        },
    )
    lines = (folder / "answers").read_text().split("\n")[:-1]
    return [(int(line.split(" ", 1)[0]), line.partition(" ")[2]) for line in lines]


def stage_of(folder: Path) -> Stage:
    files = {path: (folder / path).read_bytes() for path in (QUESTIONS, TEMPLATES) if (folder / path).exists()}
    return Stage(make_fs({"etc/x": b"", **files}, lambda _: True))


def ours(debconf: Debconf, templates: bytes, calls: str) -> list[tuple[int, str]]:
    debconf.begin("pack", templates)
    return [debconf.ask(line.split(" ")) for line in calls.split("\n") if line and line != "STOP"]


@pytest.mark.interop
def test_every_answer_is_the_real_debconfs_first_and_after_an_upgrade(tmp_path: Path) -> None:
    if not Path("/usr/share/debconf/frontend").exists():
        pytest.skip("debconf is not installed")
    empty = Debconf(stage_of(tmp_path))
    assert ours(empty, OLD, CALLS) == real(tmp_path, OLD, CALLS)
    before = Debconf(stage_of(tmp_path))
    after = real(tmp_path, NEW, CALLS)
    assert ours(before, NEW, CALLS) == after
    assert (0, "Europe, West") in after or (0, "Asia") in after


def test_what_one_script_sets_the_next_one_gets() -> None:
    debconf = Debconf(Stage(make_fs({"etc/x": b""}, lambda _: True)))
    debconf.begin("pack", OLD)
    debconf.ask(["SET", "pack/trust", "false"])
    debconf.begin("pack", OLD)
    assert debconf.ask(["GET", "pack/trust"]) == (0, "false")


def test_databases_elsewhere_and_strange_commands_are_refused() -> None:
    conf = b"Config: c\n\nName: c\nDriver: LDAP\n"
    with pytest.raises(NotReproduced, match="elsewhere"):
        Debconf(Stage(make_fs({"etc/debconf.conf": conf}, lambda _: True)))
    debconf = Debconf(Stage(make_fs({"etc/x": b""}, lambda _: True)))
    with pytest.raises(NotReproduced, match="X_LOADTEMPLATEFILE"):
        debconf.ask(["X_LOADTEMPLATEFILE", "/x"])


@given(st.binary(max_size=300), st.binary(max_size=300), st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_damaged_databases_and_odd_commands_are_answered_or_refused(one: bytes, two: bytes, words: list[str]) -> None:
    debconf = Debconf(Stage(make_fs({QUESTIONS: b"Name: a\n" + one, TEMPLATES: b"Name: a\n" + two}, lambda _: True)))
    debconf.begin("x", two)
    with contextlib.suppress(NotReproduced):
        assert debconf.ask(["GET", *words])[0] in {0, 10, 20}
        debconf.ask(words)
