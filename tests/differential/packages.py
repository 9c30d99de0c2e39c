"""Packages made by hand, in an old and a new version, for what no archive's update of the day happens to show.

Owns their description, and what the owner of the image did after the old ones were installed; `handmade` builds them.
Specification: the Debian policy manual, chapters 3, 6, 7 and 10; dpkg-maintscript-helper(1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

HELPER = "#!/bin/sh\nset -e\n{lines}\nexit 0\n"


@dataclass(frozen=True, slots=True)
class Item:
    """One path: a file with `text`, a folder, a symlink to `target`, or another name of the file `same`."""

    text: str = ""
    mode: int = 0o644
    owner: int = 0
    group: int = 0
    target: str = ""
    same: str = ""
    folder: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """One version of a package."""

    items: Mapping[str, Item]
    conffiles: tuple[str, ...] = ()
    scripts: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    triggers: str = ""
    version: str = ""


def files(*paths: str, text: str = "", mode: int = 0o644) -> dict[str, Item]:
    """Return files whose text is their path and `text`."""
    return {path: Item(f"{path}\n{text}", mode) for path in paths}


def helper(*calls: str) -> dict[str, str]:
    """Return the scripts that call dpkg-maintscript-helper, as debhelper writes them."""
    lines = "\n".join(f'dpkg-maintscript-helper {call} -- "$@"' for call in calls)
    return {name: HELPER.format(lines=lines) for name in ("preinst", "postinst", "prerm", "postrm")}


ADDED = '#!/bin/sh\nset -e\nmkdir -p /var/lib/judge-added\necho "$1:$2" > "/var/lib/judge-added/$1"\n'
CONF = "etc/judge-conf"


def _conf(*names: str) -> tuple[str, ...]:
    return tuple(f"{CONF}/{name}" for name in names)


TOO_LONG = "usr/share/judge-names/" + "/".join(["a-folder-with-quite-a-long-name"] * 5) + "/" + "f" * 90
ALTERNATIVE = HELPER.format(
    lines="""if [ "$1" = configure ]; then
    update-alternatives --install /usr/bin/judge-alt judge-alt /usr/bin/judge-alt-{number} {number}
fi"""
)

# name -> (old, new)
PACKAGES: dict[str, tuple[Made | None, Made]] = {  # None: not there before
    "judge-conf": (
        Made(
            files(f"{CONF}/plain", f"{CONF}/edited", f"{CONF}/edited-same", f"{CONF}/deleted", f"{CONF}/dropped")
            | files(f"{CONF}/dropped-edited", f"{CONF}/mode"),
            _conf("plain", "edited", "edited-same", "deleted", "dropped", "dropped-edited", "mode"),
        ),
        Made(
            files(
                f"{CONF}/plain", f"{CONF}/edited", f"{CONF}/deleted", f"{CONF}/fresh", f"{CONF}/present", text="new\n"
            )
            | files(f"{CONF}/edited-same")
            | files(f"{CONF}/mode", text="new\n", mode=0o600),
            _conf("plain", "edited", "edited-same", "deleted", "fresh", "present", "mode"),
        ),
    ),
    "judge-rmconf": (
        Made(
            files("etc/judge-rm/gone", "etc/judge-rm/gone-edited", "etc/judge-rm/moves"),
            ("etc/judge-rm/gone", "etc/judge-rm/gone-edited", "etc/judge-rm/moves"),
        ),
        Made(
            files("etc/judge-rm/moved"),
            ("etc/judge-rm/moved",),
            helper(
                "rm_conffile /etc/judge-rm/gone 2.0~",
                "rm_conffile /etc/judge-rm/gone-edited 2.0~",
                "mv_conffile /etc/judge-rm/moves /etc/judge-rm/moved 2.0~",
            ),
        ),
    ),
    "judge-diverted": (
        Made(files("usr/bin/judge-tool", mode=0o755)),
        Made(files("usr/bin/judge-tool", text="new\n", mode=0o755)),
    ),
    "judge-override": (
        Made(files("usr/bin/judge-set", mode=0o755) | {"var/lib/judge-set": Item(folder=True, mode=0o755)}),
        Made(
            files("usr/bin/judge-set", text="new\n", mode=0o755) | {"var/lib/judge-set": Item(folder=True, mode=0o755)}
        ),
    ),
    "judge-move-from": (
        Made(files("usr/share/judge-move/stays", "usr/share/judge-move/moves")),
        Made(files("usr/share/judge-move/stays", text="new\n")),
    ),
    "judge-move-to": (
        Made(files("usr/share/judge-move/other")),
        Made(
            files("usr/share/judge-move/other", "usr/share/judge-move/moves", text="new\n"),
            fields={"Replaces": "judge-move-from (<< 2.0~)", "Breaks": "judge-move-from (<< 2.0~)"},
        ),
    ),
    "judge-to-link": (
        Made(files("usr/share/judge-to-link/doc/a", "usr/share/judge-to-link/real/b")),
        Made(
            files("usr/share/judge-to-link/real/b", text="new\n")
            | {"usr/share/judge-to-link/doc": Item(target="real")},
            scripts=helper("dir_to_symlink /usr/share/judge-to-link/doc real 2.0~"),
        ),
    ),
    "judge-to-folder": (
        Made(files("usr/share/judge-to-folder/real/b") | {"usr/share/judge-to-folder/doc": Item(target="real")}),
        Made(
            files("usr/share/judge-to-folder/real/b", "usr/share/judge-to-folder/doc/a", text="new\n"),
            scripts=helper("symlink_to_dir /usr/share/judge-to-folder/doc real 2.0~"),
        ),
    ),
    "judge-linked": (
        Made(
            files("usr/share/judge-linked/a", "usr/share/judge-linked/alone")
            | {f"usr/share/judge-linked/{name}": Item(same="usr/share/judge-linked/a") for name in "bc"}
        ),
        Made(
            files("usr/share/judge-linked/a", "usr/share/judge-linked/b", text="new\n")
            | {
                "usr/share/judge-linked/c": Item(same="usr/share/judge-linked/b"),
                "usr/share/judge-linked/alone": Item(same="usr/share/judge-linked/a"),
            }
        ),
    ),
    "judge-modes": (
        Made(
            files("usr/bin/judge-setuid", mode=0o4755)
            | {
                "usr/share/judge-modes/owned": Item("owned", 0o640, 33, 42),
                "usr/share/judge-modes/folder": Item(folder=True, mode=0o755),
                "usr/share/judge-modes/plain": Item("plain", 0o644),
            }
        ),
        Made(
            files("usr/bin/judge-setuid", text="new\n", mode=0o4755)
            | {
                "usr/share/judge-modes/owned": Item("owned", 0o600, 33, 33),
                "usr/share/judge-modes/folder": Item(folder=True, mode=0o2775, group=50),
                "usr/share/judge-modes/fresh": Item(folder=True, mode=0o1777),
                "usr/share/judge-modes/plain": Item("plain", 0o600),
            }
        ),
    ),
    "judge-kinds": (
        Made(
            files("usr/share/judge-kinds/file-link", "usr/share/judge-kinds/file-folder")
            | {
                "usr/share/judge-kinds/link-file": Item(target="file-link"),
                "usr/share/judge-kinds/link-link": Item(target="file-link"),
            }
        ),
        Made(
            {
                "usr/share/judge-kinds/file-link": Item(target="link-file"),
                "usr/share/judge-kinds/file-folder/inside": Item("inside"),
                "usr/share/judge-kinds/link-file": Item("a file now"),
                "usr/share/judge-kinds/link-link": Item(target="elsewhere"),
            }
        ),
    ),
    "judge-gone": (
        Made(
            files("usr/share/judge-gone/deep/er/file", "usr/share/judge-gone/shared/file", "usr/share/judge-gone/stays")
        ),
        Made(files("usr/share/judge-gone/stays")),
    ),
    "judge-merged": (
        Made(files("lib/judge-merged/a", "usr/lib/judge-merged/b", "sbin/judge-merged")),
        Made(files("usr/lib/judge-merged/a", "lib/judge-merged/b", "usr/sbin/judge-merged", text="new\n")),
    ),
    "judge-names": (
        Made(files("usr/share/judge-names/mit Leerzeichen", "usr/share/judge-names/größe", TOO_LONG)),
        Made(files("usr/share/judge-names/mit Leerzeichen", "usr/share/judge-names/größe", TOO_LONG, text="new\n")),
    ),
    "judge-excluded": (
        Made(files("usr/share/judge-excluded/a", "usr/share/judge-excluded/deep/b", "usr/share/judge-excluded/keep")),
        Made(
            files(
                "usr/share/judge-excluded/a",
                "usr/share/judge-excluded/deep/b",
                "usr/share/judge-excluded/keep",
                text="new\n",
            )
            | files("usr/share/judge-excluded/fresh/c/d")
        ),
    ),
    "judge-trigger": (
        Made(
            files("usr/share/judge-trigger/watched/own"),
            triggers="interest-noawait /usr/share/judge-trigger/watched\n",
            scripts={"postinst": HELPER.format(lines=":")},
        ),
        Made(
            files("usr/share/judge-trigger/watched/own", text="new\n"),
            triggers="interest-noawait /usr/share/judge-trigger/watched\ninterest-noawait judge-explicit\n",
            scripts={"postinst": HELPER.format(lines=":")},
        ),
    ),
    "judge-triggers": (
        Made(files("usr/share/judge-trigger/watched/other")),
        Made(files("usr/share/judge-trigger/watched/other", text="new\n"), triggers="activate-noawait ldconfig\n"),
    ),
    "judge-epoch": (
        Made(files("usr/share/judge-epoch"), version="1:3.0~rc1-1+b1"),
        Made(files("usr/share/judge-epoch", text="new\n"), version="1:3.0-1"),
    ),
    "judge-capable": (
        Made(files("usr/bin/judge-capable", "usr/bin/judge-capable-gone", mode=0o755)),
        Made(files("usr/bin/judge-capable", text="new\n", mode=0o755)),
    ),
    "judge-local": (
        Made(files("srv/judge-local/a", "usr/share/judge-local/deleted", "usr/share/judge-local/edited")),
        Made(files("srv/judge-local/a", "usr/share/judge-local/deleted", "usr/share/judge-local/edited", text="new\n")),
    ),
    "judge-alternative": (
        Made(files("usr/bin/judge-alt-10", mode=0o755), scripts={"postinst": ALTERNATIVE.format(number=10)}),
        Made(
            files("usr/bin/judge-alt-10", text="new\n", mode=0o755), scripts={"postinst": ALTERNATIVE.format(number=10)}
        ),
    ),
    "judge-same": (
        Made(files("usr/share/judge-same/a"), fields={"Multi-Arch": "same", "Architecture": "amd64"}),
        Made(files("usr/share/judge-same/a", text="new\n"), fields={"Multi-Arch": "same", "Architecture": "amd64"}),
    ),
    "judge-inplace": (
        Made(files("usr/share/judge-inplace/a")),
        Made(
            files("usr/share/judge-inplace/a", "usr/share/judge-inplace/file", "usr/share/judge-inplace/through/b")
            | files("usr/share/judge-inplace/dangling/c")
            | {"usr/share/judge-inplace/folder": Item(target="a"), "usr/share/judge-inplace/link": Item("a file")}
        ),
    ),
    "judge-take-from": (Made(files("usr/share/judge-take/a", "usr/share/judge-take/b")),) * 2,
    "judge-take-to": (
        Made(files("usr/share/judge-take/c")),
        Made(files("usr/share/judge-take/c", "usr/share/judge-take/b"), fields={"Replaces": "judge-take-from"}),
    ),
    "judge-vanish-from": (Made(files("usr/share/judge-vanish/a")),) * 2,
    "judge-vanish-to": (
        Made(files("usr/share/judge-vanish/b")),
        Made(files("usr/share/judge-vanish/a", "usr/share/judge-vanish/b"), fields={"Replaces": "judge-vanish-from"}),
    ),
    "judge-confmove-from": (
        Made(files("etc/judge-confmove", "usr/share/judge-confmove/a"), ("etc/judge-confmove",)),
        Made(files("usr/share/judge-confmove/a", text="new\n")),
    ),
    "judge-confmove-to": (
        Made(files("usr/share/judge-confmove/b")),
        Made(
            files("etc/judge-confmove", "usr/share/judge-confmove/b", text="new\n"),
            ("etc/judge-confmove",),
            fields={"Replaces": "judge-confmove-from (<< 2.0~)", "Breaks": "judge-confmove-from (<< 2.0~)"},
        ),
    ),
    "judge-essential": (
        Made(files("usr/share/judge-essential"), fields={"Essential": "yes"}),
        Made(files("usr/share/judge-essential", text="new\n"), fields={"Essential": "yes"}),
    ),
    "judge-held": (Made(files("usr/share/judge-held")), Made(files("usr/share/judge-held", text="new\n"))),
    "judge-needs": (
        Made(files("usr/share/judge-needs")),
        Made(files("usr/share/judge-needs", text="new\n"), fields={"Depends": "judge-not-here"}),
    ),
    "judge-grows": (
        Made(files("usr/share/judge-grows")),
        Made(files("usr/share/judge-grows", text="new\n"), fields={"Depends": "judge-added (>= 2.0), judge-needs"}),
    ),
    "judge-added": (
        None,
        Made(
            files("usr/share/judge-added/a", "etc/judge-added/conf"),
            ("etc/judge-added/conf",),
            scripts={"postinst": ADDED, "preinst": ADDED},
            fields={"Depends": "judge-added-too", "Section": "misc", "Priority": "optional"},
        ),
    ),
    "judge-added-too": (None, Made(files("usr/share/judge-added-too/a", "usr/share/judge-added/b"))),
}

# What the image's owner did between the installation and the update.
OWNER = f"""
set -e
echo edited >> /{CONF}/edited
echo edited >> /{CONF}/edited-same
echo edited >> /{CONF}/dropped-edited
echo mine > /{CONF}/present
rm /{CONF}/deleted
chmod 0640 /{CONF}/mode
echo edited >> /etc/judge-rm/gone-edited
dpkg-divert --local --rename --divert /usr/bin/judge-tool.real --add /usr/bin/judge-tool
echo mine > /usr/bin/judge-tool
dpkg-statoverride --update --add root games 4750 /usr/bin/judge-set
dpkg-statoverride --update --add games games 2770 /var/lib/judge-set
echo mine > /usr/share/judge-gone/shared/mine
cd /usr/share/judge-inplace
echo mine > file
mkdir folder elsewhere
echo mine > folder/mine
ln -s elsewhere through
ln -s nowhere dangling
ln -s a link
mv /srv/judge-local /srv/judge-elsewhere
ln -s judge-elsewhere /srv/judge-local
rm /usr/share/judge-local/deleted
echo edited >> /usr/share/judge-local/edited
echo judge-held hold | dpkg --set-selections
"""
CAPABLE = ("usr/bin/judge-capable", "usr/bin/judge-capable-gone")
NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep
