"""Packages made by hand of which some go: installed ones that newer versions of others must not be with.

Owns their description, as `packages` does; they are installed beside those where upgrades may remove packages.
Specification: the Debian policy manual, chapters 6 and 7; deb-conffiles(5), deb-triggers(5).
"""

from tests.differential.packages import HELPER, Item, Made, files

ALTERNATIVE = """if [ "$1" = {when} ]; then
    update-alternatives --{what} judge-chosen /usr/bin/judge-chosen-{name}{more}
fi"""
INSTALL = "install /usr/bin/judge-chosen"
REMAINS = HELPER.format(lines='if [ "$1" = remove ]; then echo "$@" > /var/lib/judge-said-$DPKG_MAINTSCRIPT_NAME; fi')
NEW_NAME = {"Conflicts": "judge-old-name", "Replaces": "judge-old-name", "Provides": "judge-old-name"}


def _alternative(name: str, number: int) -> dict[str, str]:
    install = ALTERNATIVE.format(when="configure", what=INSTALL, name=name, more=f" {number}")
    remove = ALTERNATIVE.format(when="remove", what="remove", name=name, more="")
    return {"postinst": HELPER.format(lines=install), "prerm": HELPER.format(lines=remove)}


def _conf(*names: str) -> tuple[str, ...]:
    return tuple(f"etc/judge-name/{name}" for name in names)


# name -> (old, new); None: not there before, or no newer one
REMOVALS: dict[str, tuple[Made | None, Made | None]] = {
    "judge-user": (
        Made(files("usr/share/judge-user"), fields={"Depends": "judge-old-name"}),
        Made(files("usr/share/judge-user", text="new\n"), fields={"Depends": "judge-new-name"}),
    ),
    "judge-old-name": (
        Made(
            files("usr/bin/judge-name", "usr/bin/judge-chosen-old", mode=0o755)
            | files("usr/share/judge-name/shared", "usr/share/judge-name/deep/er/alone", "usr/share/judge-name/mine/it")
            | files(*_conf("plain", "edited", "left", "left-edited", "deleted", "below/left"))
            | {"usr/share/judge-name/link": Item(target="shared"), "var/lib/judge-name": Item(folder=True)},
            _conf("plain", "edited", "left", "left-edited", "deleted", "below/left"),
            scripts={**_alternative("old", 50), "postrm": REMAINS},
            fields={"Section": "oldlibs", "Priority": "optional", "Homepage": "https://archive.example"},
        ),
        None,
    ),
    "judge-new-name": (
        None,
        Made(
            files("usr/bin/judge-name", "usr/bin/judge-chosen-new", text="new\n", mode=0o755)
            | files("usr/share/judge-name/shared", "usr/share/judge-name/fresh", text="new\n")
            | files(*_conf("plain", "edited"), text="new\n"),
            _conf("plain", "edited"),
            scripts=_alternative("new", 60),
            fields=NEW_NAME,
        ),
    ),
    "judge-breaker": (
        Made(files("usr/share/judge-breaker/a")),
        Made(files("usr/share/judge-breaker/a", text="new\n"), fields={"Breaks": "judge-leaf (<< 2.0~)"}),
    ),
    "judge-leaf": (
        Made(
            files("usr/share/judge-leaf/a", "usr/share/judge-breaker/leaf", "usr/share/judge-trigger/watched/leaf")
            | files("usr/bin/judge-leaf", mode=0o755)
            | {"usr/share/judge-leaf/b": Item(same="usr/share/judge-leaf/a")},
            triggers="interest-noawait /usr/share/judge-needs\nactivate-noawait ldconfig\n",
        ),
        None,
    ),
    "judge-clash": (
        Made(files("usr/share/judge-clash/a")),
        Made(files("usr/share/judge-clash/a", text="new\n"), fields={"Conflicts": "judge-base"}),
    ),
    "judge-base": (
        Made(files("usr/share/judge-base/a", "etc/judge-base"), ("etc/judge-base",), scripts={"prerm": REMAINS}),
        None,
    ),
    "judge-top": (
        Made(files("usr/share/judge-base/top"), scripts={"postrm": REMAINS}, fields={"Depends": "judge-base"}),
        None,
    ),
    "judge-strange": (
        Made(files("usr/share/judge-strange"), scripts={"prerm": HELPER.format(lines="/usr/bin/judge-chosen --clear")}),
        None,
    ),
    "judge-stranger": (
        Made(files("usr/share/judge-stranger")),
        Made(files("usr/share/judge-stranger", text="new\n"), fields={"Conflicts": "judge-strange"}),
    ),
    "judge-rival": (
        Made(files("usr/share/judge-rival")),
        Made(files("usr/share/judge-rival", text="new\n"), fields={"Conflicts": "judge-essential"}),
    ),
    "judge-exact": (
        Made(files("usr/share/judge-exact"), fields={"Depends": "judge-gone (= 1.0)"}),
        None,
    ),
}

# What the image's owner did between the installation and the update, beside what `packages` says.
REMOVALS_OWNER = """
echo edited >> /etc/judge-name/edited
echo edited >> /etc/judge-name/left-edited
rm /etc/judge-name/deleted
echo mine > /usr/share/judge-name/mine/mine
dpkg-divert --local --rename --divert /usr/bin/judge-leaf.real --add /usr/bin/judge-leaf
echo mine > /usr/bin/judge-leaf
rm /usr/share/judge-base/top
apt-mark auto judge-leaf judge-top judge-old-name
"""
