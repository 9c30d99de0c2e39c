"""What maintainer scripts are found to do, and above all: that nothing they do is overlooked."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.commands import Scene
from proxy.engine.families.dpkg.effects import Effect, find_effect
from proxy.engine.families.dpkg.shell import NotUnderstood, parse_script


def walk(
    text: str,
    *,
    script: str = "postinst",
    arguments: tuple[str, ...] = ("configure", "1.0-1"),
    files: Mapping[str, bytes] | None = None,
) -> Effect | None:
    there = files or {}
    scene = Scene(
        script,
        arguments,
        "tool",
        "1.0-1",
        exists=lambda path, test: (path in there) if test in {"-e", "-d", "-L", "-f"} else None,
        read=there.get,
        unit_same=lambda unit: unit == "same.timer",
    )
    return find_effect(f"#!/bin/sh\nset -e\n{text}\n".encode(), scene)


HARMLESS = [
    "exit 0\nrm -rf /",
    'if [ "$1" = purge ]; then rm -rf /var/lib/x; fi',
    'case "$1" in\n  purge|remove) rm -rf /x ;;\n  configure) : ;;\n  *) reboot ;;\nesac',
    'if [ "$1" = configure ] && [ -z "$2" ]; then adduser x; fi',
    'if dpkg --compare-versions "$2" lt-nl 0.9~; then rm -f /etc/old; fi',
    "if [ ! -e /usr/lib/ssl ]\nthen\n  echo Linking > /dev/null 2>&1\n  ln -sf /etc/ssl /usr/lib/ssl\nfi",
    "if [ -d /run/systemd/system ]; then systemctl --system daemon-reload >/dev/null || true; fi",
    'dpkg-maintscript-helper rm_conffile /etc/tool.conf 0.5\\~ tool -- "$@"\n# End automatically added section',
    "deb-systemd-helper unmask 'same.timer' >/dev/null || true",
    "if deb-systemd-helper --quiet was-enabled 'same.timer'; then\n deb-systemd-helper enable 'same.timer'\nfi",
    "if false; then reboot\nelse\n deb-systemd-helper update-state 'same.timer' >/dev/null || true\nfi",
    "update-alternatives --remove rename /usr/bin/prename",
    "rm -f /etc/not-there",
    'main() { if [ "$1" = purge ]; then rm -rf /x; fi; }\nmain "$@"',
    'x=$(readlink /etc/localtime)\necho "$x"',
    "getent passwd root >/dev/null || adduser root",
    'if which x >/dev/null 2>&1 && [ -z "$2" ]; then x; fi',
    "if ! getent group root > /dev/null; then groupadd root; fi",
]

EFFECTS = [
    "update-thing",
    'if [ "$1" = configure ]; then update-thing; fi',
    'case "$1" in configure) update-thing ;; esac',
    'case "$1" in conf*) update-thing ;; esac',
    'if [ "$UNKNOWN" = x ]; then update-thing; fi',
    'if [ "$UNKNOWN" = x ]; then exit 0; fi\nupdate-thing',
    'case "$UNKNOWN" in x) exit 0 ;; esac\nupdate-thing',
    'case "$1" in "$UNKNOWN") : ;; configure) exit 0 ;; esac\nupdate-thing',
    "true || exit 0\nupdate-thing",
    "which x && exit 0\nupdate-thing",
    "x=$(update-thing)",
    'echo "$(cat /etc/x | update-thing)"',
    "echo 'a' \"it's $(update-thing) it's\"",
    "echo `update-thing`",
    "echo $(echo $(update-thing))",
    "x=$(cat /etc/x > /etc/update-thing)",
    "x=$((y = 1)) # update-thing",
    "echo text > /etc/update-thing",
    'echo text >> "/etc/update-thing"',
    "cat /etc/x | tee /etc/update-thing",
    "cat /etc/x | sed -i s/a/b/ /etc/update-thing",
    "cat < $(update-thing)",
    "command update-thing",
    "$1 update-thing",
    "eval update-thing",
    ". /usr/share/update-thing",
    "main() { update-thing; }\nmain",
    'main() { if [ "$1" = configure ]; then update-thing; fi; }\nmain "$@"',
    "set -- a update-thing",
    "for x in a b; do update-thing; done",
    "cat <<EOF\nupdate-thing\nEOF",
    "(update-thing)",
    "update-thing &",
    "rm -f /etc/there # update-thing",
    "rm -f /etc/update-thing*",
    'dpkg-maintscript-helper rm_conffile /etc/update-thing 2.0~ tool -- "$@"',
    'dpkg-maintscript-helper rm_conffile /etc/update-thing -- "$@"',
    "deb-systemd-helper enable update-thing.service",
    "deb-systemd-helper purge same.timer # update-thing",
    "ldconfig # update-thing",
    "dpkg-trigger update-thing",
    'if dpkg --compare-versions "$2" lt 2.0; then update-thing; fi',
    "while read x; do update-thing; done",
    "FOO=bar update-thing",
    "! update-thing",
    "{ update-thing; }",
    "if update-thing; then :; fi",
    "[ -e /etc/there ] && update-thing",
    "[ -e /etc/not-there ] || update-thing",
    "test -x /etc/x && update-thing",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_has_no_effect_in_this_upgrade_is_proven(text: str) -> None:
    assert walk(text, files={"usr/lib/ssl": b"", "etc/passwd": b"root:x:0", "etc/group": b"root:x:0"}) is None


@pytest.mark.parametrize("text", EFFECTS)
def test_what_may_have_an_effect_is_never_overlooked(text: str) -> None:
    assert walk(text, files={"etc/there": b""}) is not None


def test_the_effect_is_named_with_its_line() -> None:
    assert walk("true\nif true; then\n  update-thing --now\nfi") == Effect(5, "update-thing --now")


def test_helpers_of_removed_conffiles_act_in_preinst_but_not_in_prerm() -> None:
    line = 'dpkg-maintscript-helper rm_conffile /etc/x 2.0~ tool -- "$@"'
    assert walk(line, script="preinst", arguments=("upgrade", "1.0-1", "2")) is not None
    assert walk(line, script="prerm", arguments=("upgrade", "2")) is None


@given(st.text(st.sampled_from("abc \n;&|()<>'\"`$\\{}#=!-/[]"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_script(f"#!/bin/sh\n{text}".encode())
    except NotUnderstood:
        return


@pytest.mark.parametrize(
    "script", [b"#!/usr/bin/perl\n", b"\x7fELF", b"", b"#!/bin/sh\nif true; then\n", b"#!/bin/sh\nfi\n"]
)
def test_scripts_that_are_not_understood_are_refused(script: bytes) -> None:
    with pytest.raises(NotUnderstood):
        parse_script(script)


def test_a_script_that_nests_without_end_is_refused() -> None:
    with pytest.raises(NotUnderstood, match="deeply"):
        parse_script(b"#!/bin/sh\n" + b"if true; then\n" * 500)
    assert walk("f() { f; }\nf") is not None
