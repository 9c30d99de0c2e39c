"""The root file systems that are judged: one definition each, and the order in which they are.

Owns the table alone. `trees` builds what it defines.
"""

from dataclasses import dataclass

# What the slim images of the distributions leave out, as their builders write it into dpkg's configuration.
SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/linda/*",
    "path-exclude=/usr/share/lintian/overrides/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-include=/usr/share/locale/locale.alias",
)
SERVICES = ("nginx", "curl", "python3", "perl", "ca-certificates", "tzdata", "libsystemd0", "libudev1", "openssl")


@dataclass(frozen=True, slots=True)
class Root:
    """One root file system.

    Args:
        name: what it is called.
        suite: the release whose first suite it is made of; of a recorded one the release that it is of.
        include: packages beyond the smallest set.
        dpkg: lines of dpkg's configuration, in force when it is made.
        recorded: a tar under the recorded data's `rootfs`, instead of one that is made.
        distribution: the id in its os-release.
        version: the release's number.
    """

    name: str
    suite: str
    include: tuple[str, ...] = ()
    dpkg: tuple[str, ...] = ()
    recorded: str = ""
    distribution: str = "debian"
    version: str = ""


ROOTS = {
    root.name: root
    for root in (
        Root("bookworm-minbase", "bookworm", version="12"),
        Root("bookworm-slim", "bookworm", ("openssl", "ca-certificates", "tzdata"), SLIM, version="12"),
        Root("bookworm-services", "bookworm", (*SERVICES, "openjdk-17-jre-headless"), version="12"),
        Root("trixie-minbase", "trixie", version="13"),
        Root("trixie-services", "trixie", (*SERVICES, "openjdk-21-jre-headless"), version="13"),
        Root("bullseye-minbase", "bullseye", version="11"),
        Root("bullseye-services", "bullseye", (*SERVICES, "openjdk-11-jre-headless"), version="11"),
    )
}
