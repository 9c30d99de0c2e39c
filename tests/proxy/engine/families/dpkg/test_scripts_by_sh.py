"""Scripts that are done to a stage, held against a real shell and the real programs in a copy of the tree.

The scripts name their paths below $DPKG_ROOT: empty on the stage, the tree's folder for the shell.
"""

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.call import Scene
from proxy.engine.families.dpkg.effects import run_script
from proxy.engine.rootfs import RootFS, scan_layer
from proxy.engine.stage import Stage
from tests.proxy.engine.families.dpkg.debs import apply
from tests.support import require_tool

SCRIPTS = {
    "files are removed, folders too": r"""
rm -f $R/etc/a $R/none
rm -rf $R/srv/d
rmdir --ignore-fail-on-non-empty $R/etc
""",
    "a folder and the empty ones above it": r"""
rmdir -p $R/srv/e/f 2>/dev/null || true
""",
    "files are moved and copied": r"""
mv -f $R/etc/a $R/etc/z
cp $R/etc/b $R/srv/new
cp -p $R/etc/b $R/srv/d
cp -a $R/etc/l $R/srv/l2
""",
    "links": r"""
ln -s a $R/etc/new
ln -sf other $R/etc/l
ln -sfn gone $R/srv/dl
ln -s x $R/srv/d || true
""",
    "folders": r"""
mkdir -p $R/srv/x/y
mkdir -m 700 $R/srv/z
[ -d $R/srv/z ] && touch $R/srv/z/t
""",
    "folders by install": r"""
install -d $R/srv/x/y $R/srv/d
install -d $R/etc/a || echo no > $R/etc/n
""",
    "find deletes": r"""
find $R/srv -maxdepth 1 -type d -name 'c?' -empty -delete
find $R/srv/d -name '*.pyc' -delete
find $R/srv/e -depth -type d -delete
find $R/srv -maxdepth 1 -name 'd*' -delete 2>/dev/null || echo stays > $R/etc/n
""",
    "no socket is there": r"""
[ -S $R/etc/a ] || echo none > $R/etc/n
""",
    "values that are given where there is none": r"""
name=; other=there
: "${name:=$(basename $R/srv/given)}" "${other:=$(nothing-of-this-name)}"
echo $name $other ${other=x} ${name:+set} ${none:-else} > $R/etc/n
""",
    "a colour for messages": r"""
: "${DPKG_COLORS=auto}"
if [ "$DPKG_COLORS" = always ]; then rm $R/etc/a; fi
""",
    "modes": r"""
chmod 600 $R/etc/a
chmod u+x,go-r $R/etc/b
chmod 2755 $R/srv/d
chmod a=r $R/etc/c
""",
    "modes for everybody": r"""
chmod +x $R/etc/a
chmod -rx $R/etc/b
""",
    "text goes into files": r"""
echo one > $R/etc/n
printf "%s-%s\n" a b >> $R/etc/n
cat >> $R/etc/a <<EOF
$(basename $R/x/y.z .z)
EOF
""",
    "a block writes one file": r"""
{ echo a; echo b; } > $R/etc/n
if true; then echo c; fi >> $R/etc/n
(echo d; cat $R/etc/a) >> $R/etc/n
""",
    "sed edits in place": r"""
sed -i -e 's/^one/two/' -e '/three/d' $R/etc/a
sed -i s/x/y/ $R/etc/none || true
""",
    "a loop over lines": r"""
while read line;
do case "$line" in \#*) continue ;; esac
 echo "+$line"; done < $R/etc/a > $R/etc/n
""",
    "a loop over a pattern": r"""
for f in $R/etc/*.conf $R/none/*; do [ -e "$f" ] || continue; rm $f; done
""",
    "a loop over split words": r"""
x="a b  c"
for w in $x; do mkdir $R/srv/$w; done
set -- $x
echo $# $2 > $R/etc/n
""",
    "a while loop counts": r"""
i=0
while [ $i -lt 3 ]; do i=$((i + 1)); echo $i >> $R/etc/n; done
""",
    "functions and their truth": r"""
f() { [ -f "$1" ] || return 1; echo yes; }
if f $R/etc/a > $R/etc/n
then rm $R/etc/b; fi
f $R/none || echo no >> $R/etc/n
""",
    "substitutions": r"""
x=$(cat $R/etc/a | grep -v "^#" |
 head -n 1 | cut -d= -f2 | tr a-z A-Z)
echo "[$x]" > $R/etc/n
""",
    "parameters": r"""
p=/usr/lib/x.so.1
echo ${p##*/} ${p%.*} ${p#/usr} ${q:-none} ${p:+some} ${#p} > $R/etc/n
""",
    "xargs and find": r"""
find $R/srv -name '*.pyc' | xargs -r rm -f
find $R/srv -type d -empty | xargs -r rm -rf
""",
    "find keeps out of a folder": r"""
find $R/srv \( -name d -prune \) -o \
 \( -type f -print \) | sort | sed 's,.*/,,' > $R/etc/n
""",
    "files are compared": r"""
cmp -s $R/etc/a $R/etc/a2 && rm $R/etc/a2
if ! cmp -s $R/etc/a $R/etc/b
then touch $R/etc/n; fi
""",
    "a temporary file": r"""
t=$(mktemp $R/srv/t.XXXXXX)
echo x > $t
cp $t $R/etc/n
rm -f $t
""",
    "links are read": r"""
readlink $R/etc/l > $R/etc/n
stat -c %a $R/etc/c >> $R/etc/n
[ -L $R/etc/l ] \
 && [ ! -L $R/etc/a ] && echo l >> $R/etc/n
""",
    "a subshell forgets": r"""
x=1
(x=2; echo $x > $R/etc/n)
echo $x >> $R/etc/n
echo a | { read x
echo $x >> $R/etc/n; }
echo $x >> $R/etc/n
""",
    "a hard link stays one": r"""
echo more >> $R/etc/h1
rm -f $R/etc/h2
""",
    "a dangling link is written through": r"""
echo x > $R/etc/dangling
""",
    "awk decides": r"""
if [ "$(awk -F= '/^k/ {print $2}' $R/etc/a)" = v ]; then mv $R/etc/a $R/etc/v; fi
""",
}


def make_tree(root: Path) -> None:
    for folder in ("etc", "srv/d", "srv/e/f", "srv/c2"):
        (root / folder).mkdir(parents=True)
    (root / "etc/a").write_text("# a remark\none\ntwo words\nthree=3\nk=v\n")
    (root / "etc/a2").write_bytes((root / "etc/a").read_bytes())
    for name in ("b", "c", "x.conf", "y.conf"):
        (root / "etc" / name).write_text(f"{name}\n")
    (root / "etc/c").chmod(0o640)
    (root / "etc/h1").write_text("h\n")
    (root / "etc/h2").hardlink_to(root / "etc/h1")
    (root / "etc/l").symlink_to("a")
    (root / "etc/dangling").symlink_to("../srv/made")
    (root / "srv/dl").symlink_to("d")
    (root / "srv/d/m.pyc").write_text("x")
    (root / "srv/d/file").write_text("x")
    (root / "srv/c2/m.pyc").write_text("x")


def pack(root: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(root, arcname="")
    return buffer.getvalue()


def look(root: Path) -> dict[str, object]:
    """Return every path with its mode and content; hard links by how many there are."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = (path.read_bytes(), status.st_nlink)
        mode = 0 if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(root))] = (stat.S_IFMT(status.st_mode), mode, content)
    return found


@pytest.mark.interop
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_leaves_what_a_real_shell_leaves(tmp_path: Path, name: str) -> None:
    script = f'#!/bin/sh\nR="$DPKG_ROOT"\n{SCRIPTS[name]}\n:\n'
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for tree in (theirs, ours):
        make_tree(tree)
    environment = {"DPKG_ROOT": str(theirs), "PATH": os.environ["PATH"], "LC_ALL": "C"}
    subprocess.run([require_tool("sh"), "-c", f"umask 022\n{script}"], check=True, env=environment)

    layer, kept = pack(ours), io.BytesIO()
    index = scan_layer(
        io.BytesIO(layer), "", keep=lambda _: True, captures=kept, captures_name="captures", where="tree"
    )
    data = kept.getvalue()
    stage = Stage(RootFS([index], lambda span: data[span.offset : span.offset + span.size]), 1)
    scene = Scene(stage, "postinst", ("configure", "1"), "tool", "1", lambda _kind, _unit: False)
    assert run_script(script.encode(), scene) is None
    apply(ours, stage.entries(), data)
    assert look(ours) == look(theirs)
