"""What maintainer scripts are found to do, and above all: that nothing they do is overlooked."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.call import Scene
from proxy.engine.families.dpkg.effects import run_script
from proxy.engine.families.dpkg.endings import Unknown
from proxy.engine.families.dpkg.shell import NotUnderstood, parse_script
from proxy.engine.stage import Stage
from tests.simulators.rootfs import rootfs_of


def walk(
    text: str,
    *,
    script: str = "postinst",
    arguments: tuple[str, ...] = ("configure", "1.0-1"),
    files: Mapping[str, bytes] | None = None,
) -> Unknown | None:
    return run(text, script, arguments, files)[0]


def run(
    text: str,
    script: str = "postinst",
    arguments: tuple[str, ...] = ("configure", "1.0-1"),
    files: Mapping[str, bytes] | None = None,
) -> tuple[Unknown | None, Stage]:
    stage = Stage(rootfs_of(files or {}))
    scene = Scene(
        stage, script, arguments, "tool", "1.0-1", lambda _kind, unit: unit == "same.timer", activate=lambda name: None
    )
    return run_script(f"#!/bin/sh\nset -e\n{text}\n".encode(), scene), stage


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
    'if [ -e /etc/none ]; then\n CHANGED=1\nfi\nif [ -n "$CHANGED" ]; then reboot; fi',
    "rm -f /etc/not-there",
    'main() { if [ "$1" = purge ]; then rm -rf /x; fi; }\nmain "$@"',
    'x=$(readlink /etc/localtime)\necho "$x"',
    "getent passwd root >/dev/null || adduser root",
    'if which x >/dev/null 2>&1 && [ -z "$2" ]; then x; fi',
    "if ! getent group root > /dev/null; then groupadd root; fi",
    "cat <<EOF\n$(cat /etc/x) it's\nEOF",
    "cat <<'EOF'\n$(update-thing)\nEOF",
    "cat <<\\EOF\n$(update-thing)\nEOF",
    'if [ "$1" = purge ]; then cat > /etc/x <<EOF\n`x`\nEOF\nfi',
    "x=$(($(echo 1) + 2))",
    "for x in a b; do echo $x; done",
    'echo a | while read x; do echo "$x"; done',
    "f() ( exit 1 )\nf",
    "(cd /etc; ls)",
    'x="$(sed -n -e "s/^a: //p" /etc/x | sort -u)"',
    'for x in purge remove; do if [ "$1" = "$x" ]; then rm -rf /x; fi; done',
    'f() { if [ "$1" = a ]; then return 0; fi; return 1; }\nif f b; then rm -rf /x; fi',
    'f() { shift; if [ "$1" = b ]; then exit 0; fi; }\nf a b\nrm -rf /x',
    "x=purge\n(x=configure)\nif [ $x = configure ]; then rm -rf /x; fi",
    'find /etc -name "*.dpkg-old" | grep -q x || true',
    "awk -F: '{ print $1 }' /etc/passwd",
    'case "$1" in "*") rm -rf /x ;; esac',
    "if [ 1 -gt 2 ]; then rm -rf /x; fi",
    "set -- a update-thing",
    "rm -f /etc/update-thing*",
    "dpkg-trigger update-thing",
    "test -x /etc/x && update-thing",
    "if [ -e /etc/up* ]; then update-thing; fi",
    "[ -e /etc/there -a -d /etc ] || update-thing",
    "cat /etc/x | sed -i s/a/b/ /etc/update-thing",
    "x='a b'\nset -- $x",
    "x=${y:=1}",
    "export PATH=$PATH:/sbin:/usr/sbin\nls /etc",
    'if [ -n "$never_set" ]; then rm -rf /x; fi',
    'if [ -n "$OWN" ]; then rm -rf /x; fi\nif [ "$1" = purge ]; then OWN=1; fi',
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
    "cat < $(update-thing)",
    "command update-thing",
    "$1 update-thing",
    "eval update-thing",
    ". /usr/share/update-thing",
    "main() { update-thing; }\nmain",
    'main() { if [ "$1" = configure ]; then update-thing; fi; }\nmain "$@"',
    "for x in a b; do update-thing; done",
    "cat <<EOF\n$(update-thing)\nEOF",
    "cat <<EOF\n`update-thing`\nEOF",
    "sh <<'EOF'\nupdate-thing\nEOF",
    "cat <<-EOF\n\ta\n\tEOF\nupdate-thing",
    "cat <<'A' <<B\n$(a)\nA\n$(update-thing)\nB",
    "cat > /etc/update-thing <<EOF\na\nEOF",
    "(update-thing)",
    "update-thing &",
    "rm -f /etc/there # update-thing",
    "deb-systemd-helper enable update-thing.service",
    "deb-systemd-helper purge same.timer # update-thing",
    "ldconfig # update-thing",
    'if dpkg --compare-versions "$2" lt 2.0; then update-thing; fi',
    "while read x; do update-thing; done",
    "FOO=bar update-thing",
    "! update-thing",
    "{ update-thing; }",
    "if update-thing; then :; fi",
    "[ -e /etc/there ] && update-thing",
    "[ -e /etc/not-there ] || update-thing",
    'f() { update-thing; }\nif [ "$U" = x ]; then f() { :; }; fi\nf',
    'f() { if [ "$U" = x ]; then return 1; fi; return 0; }\nif f; then exit 0; fi\nupdate-thing',
    'f() { [ "$U" = x ] && return 1; return 0; }\nif f; then exit 0; fi\nupdate-thing',
    "for x in /etc/a*; do update-thing $x; done",
    "echo a | while read x; do update-thing; done",
    "while read x; do update-thing; done < /etc/x",
    "until update-thing; do :; done",
    'sed "-i" s/a/b/ /etc/x',
    "sed -e 's/a/b/w /etc/x' /etc/y",
    "sed 's/a/b/e' /etc/y",
    "sed 's|a|b|gw /etc/x' /etc/y",
    "sed wfile /etc/x",
    "sed -n '1e update-thing' /etc/x",
    "sed -f /etc/x /etc/y",
    "sed $options /etc/y",
    "awk '{ system(\"update-thing\") }' /etc/x",
    "awk '{ print > \"/etc/x\" }' /etc/y",
    "awk -f /etc/x",
    "find /etc -name x -delete",
    "find /etc -exec update-thing {} +",
    "sort -o /etc/x /etc/y",
    "uniq /etc/x /etc/y",
    "date -s 2020-01-01",
    'x="${y:=$(update-thing)}"',
    'echo "${x:-$(update-thing)}"',
    "echo ${x#$(update-thing)}",
    "echo $(( $(update-thing) ))",
    "echo $((x++))",
    "x=1\n(x=2)\nif [ $x = 1 ]; then update-thing; fi",
    "x=1\necho a | x=2\nif [ $x = 1 ]; then update-thing; fi",
    "cd /etc && rm -f there",
    "PATH=/x:$PATH ls",
    "export PATH=/x:$PATH\nls",
    "IFS=: ls",
    'case "a" in "*") exit 0 ;; esac\nupdate-thing',
    'for x in a b; do if [ "$x" = b ]; then update-thing; fi; done',
    "for x in a b; do break; done\nupdate-thing",
    'x=a\nwhile [ "$U" ]; do [ "$x" = b ] && update-thing; x=b; done',
    'x=a\ny=a\nwhile [ "$U" ]; do [ "$x" = c ] && update-thing; x=$y; y=c; done',
    "(exit 0)\nupdate-thing",
    "x=$(exit 0)\nupdate-thing",
    "echo a | exit 0\nupdate-thing",
    'x=""\nif [ -n $x ]; then update-thing; fi',
    "echo a >| /etc/x",
    "echo > /dev/null > /etc/x",
    "update-thing > /dev/null",
    "trap update-thing EXIT",
    "exec update-thing",
    "exec > /etc/update-thing",
    "command -p update-thing",
    "read x < /etc/y\n$x",
    'f() { shift; "$@"; }\nf a update-thing',
    '[ "$(update-thing)" ]',
    "{ echo a; update-thing; } > /dev/null",
    "if true; then :; fi > /etc/update-thing",
    "for x in a; do :; done >> /etc/update-thing",
    "rm -f /etc/{x,there}",
    "rm -f ~/x",
    "alias ls=update-thing\nls",
    "xargs update-thing < /etc/x",
    "echo a | xargs update-thing",
    "echo a | sh",
    'unset x\nif [ -z "$x" ]; then update-thing; fi',
    "local x=$(update-thing)",
    'export X="$(update-thing)"',
    "f() { g; }\ng() { update-thing; }\nf",
    'if [ "$1" = configure -a -n "$U" ]; then update-thing; fi',
    'if [ "$1" = purge -o -n "$U" ]; then update-thing; fi',
    'if [ "$U" ]; then set -- a; fi',
    'eval "$(cat /etc/x)"',
    "cat <<EOF | sh\nupdate-thing\nEOF",
    "update-thing <<EOF\na\nEOF",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_has_no_effect_in_this_upgrade_is_proven(text: str) -> None:
    there = {"usr/lib/ssl": b"", "etc/passwd": b"root:x:0", "etc/group": b"root:x:0", "etc/there": b""}
    unknown, stage = run(text, files=there)
    assert (unknown, stage.changes) == (None, 0)


@pytest.mark.parametrize("text", EFFECTS)
def test_what_may_have_an_effect_is_never_overlooked(text: str) -> None:
    unknown, stage = run(text, files={"etc/there": b"", "etc/x": b"a\n"})
    assert unknown is not None or stage.changes


def test_the_effect_is_named_with_its_line() -> None:
    assert walk("true\nif true; then\n  update-thing --now\nfi") == Unknown(5, "update-thing --now")


@given(st.text(st.sampled_from("abc \n;&|()<>'\"`$\\{}#=!-/[]"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    walk(text)


WORDS = ["if", "then", "fi", "for", "in", "do", "done", "case", "esac", ";;", "x", "while", "(", ")", "{", "}", "f()",
         "$(", "`", "|", "&&", "||", "!", "\n", ";", "a=$x", '"$@"', "<<A", "A", "true", "exit"]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=30))
def test_any_words_are_walked_or_refused(words: list[str]) -> None:
    walk(" ".join(words))


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


def test_a_program_of_the_tree_that_is_a_shell_script_is_walked_too() -> None:
    inner = b'#!/bin/sh\nset -e\nshift\nfor name in "$@"; do echo "$name" >> /etc/made; done\n'
    files = {"usr/bin/tool-links": inner, "usr/bin/tool-stops": b"#!/bin/sh\nreboot $(cat)\n"}
    files |= {"etc/there": b""}
    make = "chmod a+x /usr/bin/tool-links /usr/bin/tool-stops\n"
    unknown, stage = run(f"{make}tool-links a b c", files=files)
    assert unknown is None
    assert stage.read("etc/made") == b"b\nc\n"
    assert run(f"{make}tool-stops", files=files)[0] == Unknown(4, "tool-stops (its line 2: reboot $(cat))")


def test_a_configuration_file_that_was_offered_before_is_left_and_a_new_one_is_not_understood() -> None:
    offered = "9a0364b9e99bb480dd25e1f0284c8555  /etc/tool.ini\n"  # md5 of "content"
    files = {"usr/share/tool.ini": b"content", "etc/tool.ini": b"mine", "var/lib/ucf/hashfile": offered.encode()}
    assert walk("ucf /usr/share/tool.ini /etc/tool.ini", files=files) is None
    found = walk("ucf /usr/share/tool.ini /etc/tool.ini", files={**files, "usr/share/tool.ini": b"new"})
    assert found is not None
    assert "of which a new vers" in found.what


@pytest.mark.parametrize(
    ("common", "made"), [(b"my $lockfile_path = '/run/adduser';", True), (b"# an older one", False), (None, False)]
)
def test_adduser_leaves_the_file_of_its_lock_where_it_has_one(common: bytes | None, *, made: bool) -> None:
    files = {"etc/passwd": b"tool:x:100:100::/:/bin/sh\n", "etc/group": b"tool:x:100:\n", "run/.keep": b""}
    if common is not None:
        files["usr/share/perl5/Debian/AdduserCommon.pm"] = common
    unknown, stage = run("adduser --system --group tool", files=files)
    assert unknown is None
    assert (stage.get("run/adduser") is not None) == made


@pytest.mark.parametrize("machine_id", [b"0123456789abcdef0123456789abcdef\n", b"", None])
def test_a_machine_id_that_is_there_stays_and_none_is_made_up(machine_id: bytes | None) -> None:
    files = {} if machine_id is None else {"var/lib/dbus/machine-id": machine_id}
    unknown, stage = run("mkdir -p /var/lib/dbus\ndbus-uuidgen --ensure", files=files)
    assert (unknown is None) == bool(machine_id)
    assert (stage.read("var/lib/dbus/machine-id") or b"") == (machine_id or b"")
