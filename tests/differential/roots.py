"""The root file systems that are judged: one definition each, and the order in which they are.

Owns the table alone. `trees` builds what it defines.
"""

from dataclasses import dataclass
from typing import Literal

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
# What the owner of an image does to it: a certificate of his own, a zone, a shell, libraries and settings of his own.
OWNED = """
set -e
mkdir -p /usr/local/share/ca-certificates/own /opt/app/lib /etc/nginx
openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=judge -days 3650 \\
    -keyout /dev/null -out /usr/local/share/ca-certificates/own/judge.crt
sed -i 's#^mozilla/GTS_Root_R1.crt#!&#' /etc/ca-certificates.conf
update-ca-certificates
ln -sf /usr/share/zoneinfo/Europe/Berlin /etc/localtime
echo Europe/Berlin > /etc/timezone
sed -i 's/worker_connections 768/worker_connections 512/' /etc/nginx/nginx.conf
echo '# own' >> /etc/bash.bashrc
cp /lib/*-linux-gnu/libz.so.1 /opt/app/lib/libown.so.1
echo /opt/app/lib > /etc/ld.so.conf.d/app.conf
ldconfig
printf '#!/bin/sh\\nexec /bin/sh "$@"\\n' > /usr/local/bin/own-shell
chmod 0755 /usr/local/bin/own-shell
add-shell /usr/local/bin/own-shell
update-alternatives --set pager /bin/more
update-alternatives --install /usr/bin/editor editor /usr/local/bin/own-shell 5
rm -rf /usr/share/man /var/log/* /usr/share/doc/openssl
dpkg-divert --local --rename --divert /usr/bin/openssl.real --add /usr/bin/openssl
ln -s openssl.real /usr/bin/openssl
"""
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
EVERYTHING = ("*",)  # every package of the tree is built anew: what upgrades of any of them could be
SERVER = (
    *("apache2", "git", "openssh-client", "gnupg", "procps", "wget", "sudo", "cron", "dbus", "redis-server", "ruby"),
    *("nodejs", "postgresql-client", "vim-tiny", "less", "man-db", "rsyslog", "python3-pip"),
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
        owner: a shell script that is run in it in the end.
        newer: packages of it that a signed source on loopback has newer versions of (`EVERYTHING`: of all); its own
            sources are not asked.
        recorded: a tar under the recorded data's `rootfs`, instead of one that is made.
        transitions: whether upgrades may add packages (`new`), as `apt-get upgrade --with-new-pkgs` does, and also
            remove some (`full`), as `apt-get dist-upgrade` does.
        handmade: whether it is the one with the packages made by hand, which count for no coverage.
        distribution: the id in its os-release.
        version: the release's number.
    """

    name: str
    suite: str
    include: tuple[str, ...] = ()
    dpkg: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    owner: str = ""
    recorded: str = ""
    handmade: bool = False
    transitions: Literal["none", "new", "full"] = "none"
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
        Root(
            "bookworm-owned",
            "bookworm",
            ("openssl", "ca-certificates", "tzdata", "python3-minimal", "nginx-light", "libexpat1"),
            owner=OWNED,
            version="12",
        ),
        Root("bookworm-server", "bookworm", SERVER, newer=EVERYTHING, version="12"),
        Root("trixie-minbase", "trixie", newer=EVERYTHING, version="13"),
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
        Root("bookworm-additions", "bookworm", dpkg=EXCLUDES, handmade=True, transitions="new", version="12"),
        Root("bookworm-removals", "bookworm", dpkg=EXCLUDES, handmade=True, transitions="full", version="12"),
    )
}
