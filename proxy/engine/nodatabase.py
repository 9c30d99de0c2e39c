"""Why an image has no package database that can be opened: each cause in its own words.

Owns the texts; opens nothing.
"""

from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Kind

RPM_DATABASES = (
    *(
        f"{at}/{name}"
        for at in ("var/lib/rpm", "usr/lib/sysimage/rpm")
        for name in ("rpmdb.sqlite", "Packages.db", "Packages")
    ),
    "var/lib/rpmmanifest",
)
DATABASES = ("var/lib/dpkg/status", "lib/apk/db/installed", "usr/lib/apk/db/installed")
CHISEL = "var/lib/chisel/manifest.wall"


def why_none(fs: RootFS) -> str:
    """Say why no family can open an image."""
    found = next((path for path in RPM_DATABASES if fs.get(path) is not None), "")
    if found:
        return f"its package database is an RPM database ({found}): admend does not patch RPM packages yet"
    for path in DATABASES:
        if fs.removed(path):
            return f"its package database /{path} was removed by a later layer: nothing says which packages are there"
        there = fs.get(fs.resolve(path))
        if there is not None and there.kind is Kind.FILE:
            return f"its package database /{path} is empty: the image records no packages, so there is nothing to patch"
    if fs.get(CHISEL) is not None:
        return f"a chiselled image without dpkg's database: /{CHISEL} does not say what its packages depend on"
    return (
        "no package database found (looked for dpkg's status and status.d, apk's installed, and RPM's): "
        "the image records no packages, so there is nothing to patch"
    )
