"""The repositories that an image's apk would use: `etc/apk/repositories` and `etc/apk/repositories.d/*.list`.

Owns their parsing. What admend would never fetch from (local folders, addresses with credentials, unknown schemes) is
skipped with the reason.
Specification: apk-repositories(5)
"""

from urllib.parse import urlsplit

from proxy.engine.family import InstalledDb, PackageSource, SkippedSource
from proxy.engine.rootfs import RootFS

REPOSITORIES = "etc/apk/repositories"
FOLDER = "etc/apk/repositories.d"
SUFFIX = ".list"
MAX_LINE = 4096  # characters


def read_sources(fs: RootFS, db: InstalledDb) -> tuple[tuple[PackageSource, ...], tuple[SkippedSource, ...]]:
    """Return the repositories in the order of their files, and those that cannot be used."""
    files = [REPOSITORIES, *(f"{FOLDER}/{name}" for name in fs.listdir(FOLDER) if name.endswith(SUFFIX))]
    used: list[PackageSource] = []
    skipped: list[SkippedSource] = []
    for file in files:
        text = (fs.read(file) or b"").decode("utf-8", "replace")
        for number, line in enumerate(text.split("\n"), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            item = _parse(words, f"{file}:{number}", db)
            if isinstance(item, PackageSource):
                used.append(item)
            else:
                skipped.append(item)
    return tuple(used), tuple(skipped)


def _parse(words: list[str], written: str, db: InstalledDb) -> PackageSource | SkippedSource:
    """Parse the words of `[@tag] address`."""
    tag = words[0][1:] if words[0].startswith("@") else ""
    uri, *rest = (words[1:] if tag else words) or [""]
    reason = "not an address, perhaps after a tag" if rest or not uri else _unusable(uri)
    if reason:
        return SkippedSource(_without_credentials(uri)[:MAX_LINE], written, reason)
    options = {"tag": tag} if tag else {}
    keys = (db.distribution.id,) if db.distribution.id else ()
    return PackageSource("apk", uri.rstrip("/"), arch=db.arch, keys=keys, written=written, options=options)


def _unusable(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        host, credentials = parts.hostname, parts.username is not None
    except ValueError:
        return "not an address"
    if len(uri) > MAX_LINE:
        return "an address that long is none"
    if parts.scheme not in {"http", "https"}:
        return "a local folder or an unknown scheme: only http and https are used"
    if credentials:
        return "credentials in an image are not used"
    return "" if host else "an address without a host"


def _without_credentials(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}" if separator else uri
