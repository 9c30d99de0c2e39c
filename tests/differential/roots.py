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
SAME = ("libssl3", "liblzma5", "zlib1g", "libzstd1", "libstdc++6", "libgcc-s1", "libbz2-1.0", "libcom-err2")
EXCLUDES = (
    "path-exclude=/usr/share/judge-excluded/*",
    "path-include=/usr/share/judge-excluded/keep",
)
# What an old Ubuntu gets most often: packages that are built anew from the tree itself, in two pockets.
NEWER = (
    *("apt", "base-files", "bash", "bsdutils", "bzip2", "coreutils", "diffutils", "dpkg", "e2fsprogs", "fdisk"),
    *("findutils", "gpgv", "grep", "gzip", "libapt-pkg6.0", "libblkid1", "libbz2-1.0", "libc-bin", "libc6"),
    *("libcom-err2", "libext2fs2", "libfdisk1", "libgcrypt20", "libgnutls30", "libhogweed5", "liblz4-1", "liblzma5"),
    *("libmount1", "libncurses6", "libncursesw6", "libnettle7", "libp11-kit0", "libpam-modules", "libpam-modules-bin"),
    *("libpam-runtime", "libpam0g", "libpcre2-8-0", "libpcre3", "libprocps8", "libsmartcols1", "libss2", "libsystemd0"),
    *("libtasn1-6", "libtinfo6", "libudev1", "libuuid1", "libzstd1", "login", "logsave", "mount", "ncurses-base"),
    *("ncurses-bin", "passwd", "perl-base", "procps", "sed", "tar", "util-linux", "zlib1g"),
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
        foreign: further architectures; `newer` names their packages as dpkg does, name:arch.
        newer: packages of it that a signed source on loopback has newer versions of; its own sources are not asked.
        recorded: a tar under the recorded data's `rootfs`, instead of one that is made.
        handmade: whether it is the one with the packages made by hand, which count for no coverage.
        distribution: the id in its os-release.
        version: the release's number.
    """

    name: str
    suite: str
    include: tuple[str, ...] = ()
    dpkg: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    recorded: str = ""
    handmade: bool = False
    newer: tuple[str, ...] = ()
    distribution: str = "debian"
    version: str = ""


ROOTS = {
    root.name: root
    for root in (
        Root("bookworm-minbase", "bookworm", version="12"),
        Root("bookworm-slim", "bookworm", ("openssl", "ca-certificates", "tzdata"), SLIM, version="12"),
        Root("bookworm-services", "bookworm", (*SERVICES, "openjdk-17-jre-headless"), version="12"),
        Root(
            "bookworm-foreign",
            "bookworm",
            ("openssl", *(f"{name}:i386" for name in SAME)),
            foreign=("i386",),
            newer=(*SAME, *(f"{name}:i386" for name in SAME), "openssl"),
            version="12",
        ),
        Root("trixie-minbase", "trixie", version="13"),
        Root("trixie-services", "trixie", (*SERVICES, "openjdk-21-jre-headless"), version="13"),
        Root("bullseye-minbase", "bullseye", version="11"),
        Root("bullseye-services", "bullseye", (*SERVICES, "openjdk-11-jre-headless"), version="11"),
        Root("debian-11.5-nginx", "bullseye", recorded="debian-11.5-nginx1.23-amd64.tar.xz", version="11"),
        Root(
            "ubuntu-20.04.6",
            "focal",
            recorded="ubuntu-20.04.6-amd64.tar.xz",
            newer=NEWER,
            distribution="ubuntu",
            version="20.04",
        ),
        Root("bookworm-handmade", "bookworm", dpkg=EXCLUDES, handmade=True, version="12"),
    )
}
