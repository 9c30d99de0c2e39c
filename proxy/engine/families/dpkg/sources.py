"""Which package sources serve an image: its own, as far as they may be used, or the machine's for its release.

Owns the judgement over addresses that an image names: everything in an image is hostile. Uses http and https only;
only hosts that this machine's own apt uses for the same distribution, that the operator mapped, or that he allowed.
Ignores proxies, credentials and ``trusted=yes`` of an image: keys are pinned per distribution, by the distribution's
id; a keyring named like a host is trusted for that host; ``Signed-By`` narrows them down. No host is written here.
Specification: sources.list(5), apt.conf(5), os-release(5).

Algorithm (numbers in the code): 1. the image's own lists, each entry judged; 2. if that leaves none (distroless images
have no lists), the machine's entries of the same distribution, with the image's codename in place of the machine's and
component main, and the operator's sources that are meant for this; 3. the operator's own additional sources for that
release; 4. a release that the operator knows to be archived comes from its archive's host, whatever was named.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from proxy.engine.families.dpkg.aptconf import AptConf, apply_apt_conf, conf_files
from proxy.engine.families.dpkg.sourcelist import (
    SourceEntry,
    is_list_name,
    parse_source_list,
    serves,
    signed_by,
    unsafe_options,
)
from proxy.engine.family import Distribution, PackageSource, SkippedSource, SourceSettings
from proxy.engine.osrelease import parse_distribution
from proxy.engine.rootfs import RootFS

LISTS = "etc/apt/sources.list"
LISTS_FOLDER = "etc/apt/sources.list.d"
MOVING = frozenset({"stable", "oldstable", "oldoldstable", "testing"})
DEBIAN_CODENAMES = {
    "9": "stretch",
    "10": "buster",
    "11": "bullseye",
    "12": "bookworm",
    "13": "trixie",
    "14": "forky",
}
OLD_SECURITY = frozenset({"buster", "stretch", "jessie"})  # their security suite is written buster/updates

_PROXY = re.compile(r"::proxy(?:-auto-?detect)?(?:::|$)")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,2000}")


def image_sources(
    fs: RootFS, distribution: Distribution, arch: str, settings: SourceSettings, foreign: Sequence[str] = ()
) -> tuple[tuple[PackageSource, ...], tuple[SkippedSource, ...]]:
    """Return the sources to use for an image of `arch`, and what it names and is not used, with reasons.

    Args:
        fs: the image.
        distribution: what its os-release says.
        arch: its native architecture.
        settings: the machine's and the operator's.
        foreign: further architectures that it has packages of; each is a source of its own.
    """
    distribution = _with_codename(distribution)
    machine = _Machine(settings, distribution)
    archs = (arch, *foreign)
    sources: dict[tuple[str, str, str], PackageSource] = {}
    skipped: list[SkippedSource] = [*_named_proxies(fs)]
    for written in _image_entries(fs):  # (1)
        entry = replace(written, uri=written.uri.replace("$(ARCH)", arch), suite=written.suite.replace("$(ARCH)", arch))
        judged = [_judge(entry, distribution, name, settings, machine) for name in archs]
        usable = [item for item in judged if isinstance(item, PackageSource)]
        skipped += [item for item in judged[:1] if isinstance(item, SkippedSource) and not usable]
        skipped += _ignored_options(entry) if usable else ()
        for source in usable:
            _add(sources, source)
    own = bool(sources)
    if not own:  # (2)
        for source in (source for name in archs for source in machine.sources(name)):
            _add(sources, _archived(source, distribution, settings))
    for extra in settings.extra:  # (3)
        if extra.family == "dpkg" and distribution.id in extra.keys and _fits(extra.suite, distribution):
            serving = extra.options.get("architectures", "").split() or archs
            for name in (name for name in archs if name in serving and not (own and "fallback" in extra.options)):
                _add(sources, replace(extra, arch=name, components=extra.components or ("main",)))
    if not sources:
        skipped.append(SkippedSource("", "settings", _nothing(distribution)))
    return tuple(sources.values()), tuple(skipped)


def _add(sources: dict[tuple[str, str, str], PackageSource], source: PackageSource) -> None:
    """Add a source; components of one address, suite and architecture are joined, as apt does."""
    key = (source.uri.rstrip("/"), source.suite, source.arch)
    known = sources.get(key)
    if known is not None:
        source = replace(known, components=tuple(dict.fromkeys((*known.components, *source.components))))
    sources[key] = source


def _nothing(distribution: Distribution) -> str:
    release = " ".join(part for part in (distribution.id, distribution.version, distribution.codename) if part)
    return (
        f"no package source is known for {release or 'a system without os-release'}: set sources.extra for it, or"
        " sources.mirrors or sources.allow for the addresses that its images name, or sources.archives if it is at the"
        " end of its life"
    )


def _with_codename(distribution: Distribution) -> Distribution:
    """Return the distribution with its codename: distroless images of Debian 11 and older do not tell theirs."""
    if distribution.codename or distribution.id != "debian":
        return distribution
    return replace(distribution, codename=DEBIAN_CODENAMES.get(distribution.version.partition(".")[0], ""))


def _named_proxies(fs: RootFS) -> Iterator[SkippedSource]:
    for path, data in conf_files(fs):
        conf = AptConf()
        apply_apt_conf(conf, data)
        if any(_PROXY.search(name) and value.lower() not in {"", "direct", "false"} for name, value in conf.items()):
            yield SkippedSource("", f"/{path}", "apt.conf names a proxy; ignored")


def _ignored_options(entry: SourceEntry) -> Iterator[SkippedSource]:
    """Yield what an entry that is used asks for and does not get."""
    for option in unsafe_options(entry):
        reason = f"its option {option} is ignored: the source must be signed and valid all the same"
        yield SkippedSource(_without_credentials(entry.uri), entry.written, reason)


def _image_entries(fs: RootFS) -> Iterator[SourceEntry]:
    names = sorted(name for name in fs.listdir(LISTS_FOLDER) if is_list_name(name))
    for path in (LISTS, *(f"{LISTS_FOLDER}/{name}" for name in names)):
        data = fs.read(path)
        if data is not None:
            yield from parse_source_list(data, f"/{path}")


def _judge(
    entry: SourceEntry, distribution: Distribution, arch: str, settings: SourceSettings, machine: "_Machine"
) -> PackageSource | SkippedSource:
    """(1) Return the image's entry as a source, or why it is not used."""
    uri = entry.uri
    reason = entry.fault or _bad_address(uri)
    if not reason and not serves(entry, arch):
        wanted = ", ".join(entry.archs) or "other architectures"
        reason = f"it is for {wanted}, the image is {arch}"
    keys: tuple[str, ...] = (distribution.id,)
    if not reason:
        mapped = _mapped(uri, settings) or _archive_of(uri, entry.suite, distribution, settings)
        host = urlsplit(mapped or uri).hostname or ""
        keys += (host,) if host in settings.keyrings else ()
        if mapped is None and _endpoint(uri) not in machine.endpoints and not _allowed(uri, settings.allowed):
            reason = (
                f"{host} is not a source of {distribution.id or 'this system'} that this machine uses: allow it in"
                " sources.allow or map it in sources.mirrors"
            )
        uri = mapped or uri
    if reason:
        return SkippedSource(_without_credentials(entry.uri), entry.written, reason)
    written = replace(entry, written=f"image: {entry.written}")
    source = _source(written, uri, entry.suite, distribution, arch=arch, keys=keys)
    return _without_end(source, entry.uri, distribution, settings)


def _source(
    entry: SourceEntry, uri: str, suite: str, distribution: Distribution, *, arch: str, keys: tuple[str, ...]
) -> PackageSource:
    moving = re.split("[-/]", suite, maxsplit=1)[0] in MOVING
    options = {**signed_by(entry), **({"codename": distribution.codename} if moving and distribution.codename else {})}
    security = suite.endswith("-security") or "/updates" in suite
    return PackageSource("dpkg", uri.rstrip("/"), suite, entry.components, arch, keys, security, entry.written, options)


def _bad_address(uri: str) -> str:
    """Return why an address that an image names must not be used, or ``""``."""
    scheme = uri.partition(":")[0].lower()
    if scheme not in {"http", "https"}:
        return f"{scheme}: addresses of an image are not used; http and https are"
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return "not an address"
    if _URI.fullmatch(uri) is None or not parts.hostname or parts.query or parts.fragment:
        return "not an address"
    if "@" in parts.netloc:
        return "it carries credentials; give them in admend's own settings"
    if any(part in {".", ".."} for part in parts.path.split("/")) or "%" in parts.path:
        return "an address with `.`, `..` or `%` in its path"
    return ""


def _without_credentials(uri: str) -> str:
    return re.sub(r"(?<=//)[^/]*@", "", uri)


def _endpoint(uri: str) -> tuple[str, int]:
    """Return host and port; http and https of one host are one (packages are signed either way)."""
    parts = urlsplit(uri)
    port = parts.port or 0
    return (parts.hostname or "").lower(), 0 if port in {80, 443} else port


def _under(uri: str, prefix: str) -> bool:
    return uri.rstrip("/") == prefix.rstrip("/") or uri.startswith(prefix.rstrip("/") + "/")


def _mapped(uri: str, settings: SourceSettings) -> str | None:
    """Return where the operator's longest matching prefix maps `uri`, or None."""
    prefixes = [prefix for prefix in settings.mirrors if _under(uri, prefix)]
    if not prefixes:
        return None
    prefix = max(prefixes, key=len)
    return settings.mirrors[prefix].rstrip("/") + uri[len(prefix.rstrip("/")) :]


def _archive_of(uri: str, suite: str, distribution: Distribution, settings: SourceSettings) -> str | None:
    """(4) Return where the archive of an old release has what the distribution had at `uri`, or None."""
    base = next((settings.archives[name] for name in _release_names(distribution) if name in settings.archives), None)
    path = urlsplit(uri).path.rstrip("/")
    theirs = path == f"/{distribution.id}" or path.startswith((f"/{distribution.id}-", f"/{distribution.id}/"))
    first = re.split("[-/]", suite, maxsplit=1)[0]
    if base is None or not theirs or first not in {distribution.codename, *MOVING}:
        return None
    return base.rstrip("/") + path


def _archived(source: PackageSource, distribution: Distribution, settings: SourceSettings) -> PackageSource:
    """(4) Return the machine's source, from the archive's host if the release is there."""
    moved = _archive_of(source.uri, source.suite, distribution, settings)
    return source if moved is None else _without_end(replace(source, uri=moved), source.uri, distribution, settings)


def _without_end(
    source: PackageSource, uri: str, distribution: Distribution, settings: SourceSettings
) -> PackageSource:
    """Return a source from an archive, whose releases have expired for good, as one that may be old."""
    if source.uri != (_archive_of(uri, source.suite, distribution, settings) or "").rstrip("/"):
        return source
    return replace(source, options={**source.options, "check-valid-until": "no"})


def _release_names(distribution: Distribution) -> tuple[str, ...]:
    names = (distribution.codename, distribution.version)
    return tuple(f"{distribution.id}/{name}" for name in names if name)


def _allowed(uri: str, prefixes: Iterable[str]) -> bool:
    return any(_under(uri, prefix) for prefix in prefixes)


def _fits(suite: str, distribution: Distribution) -> bool:
    """Say whether a suite that the operator named belongs to the image's release; flat ones belong to any."""
    first = re.split("[-/]", suite, maxsplit=1)[0]
    return suite.endswith("/") or first == distribution.codename or first in MOVING


class _Machine:
    """What the machine's own apt configuration offers for a distribution.

    Args:
        settings: holds the machine's files.
        distribution: the image's.
    """

    def __init__(self, settings: SourceSettings, distribution: Distribution) -> None:
        release = parse_distribution(settings.machine.get("os-release", b""))
        self._distribution = distribution
        self._same = bool(distribution.id) and release.id == distribution.id
        self._codename = release.codename
        entries = [
            entry
            for name, data in sorted(settings.machine.items())
            if name != "os-release"
            for entry in parse_source_list(data, name)
            if not entry.fault and not _bad_address(entry.uri)
        ]
        self._entries = [entry for entry in entries if self._is_distribution(entry)]
        self.endpoints = {_endpoint(entry.uri) for entry in self._entries}

    def _is_distribution(self, entry: SourceEntry) -> bool:
        """Say whether the entry is of the image's distribution: by its keyring, else by the machine's codename."""
        path = entry.options.get("signed-by", "")
        keyring = path.rpartition("/")[2] if path.startswith("/") else ""  # else fingerprints, or a block of keys
        if keyring:
            return keyring.startswith(f"{self._distribution.id}-") and bool(self._distribution.id)
        first = re.split("[-/]", entry.suite, maxsplit=1)[0]
        return self._same and first in {self._codename, *MOVING} - {""}

    def sources(self, arch: str) -> Iterator[PackageSource]:
        """(2) Yield the machine's release, updates and security suites, written for the image's release."""
        codename = self._distribution.codename
        for entry in self._entries:
            first, rest = re.match(r"([^-/]*)(.*)", entry.suite.rstrip("/"), re.DOTALL).groups()  # type: ignore[union-attr]
            if not codename or rest not in {"", "-updates", "-security", "/updates"}:
                continue
            if first not in {self._codename, *MOVING}:
                continue
            if rest in {"-security", "/updates"}:
                rest = "/updates" if codename in OLD_SECURITY else "-security"
            plain = replace(entry, components=("main",), written=f"machine: {entry.written}")
            keys = (self._distribution.id,)
            source = _source(plain, entry.uri, codename + rest, self._distribution, arch=arch, keys=keys)
            if entry.options.get("check-valid-until", "").lower() in {"no", "false"}:
                source = replace(source, options={**source.options, "check-valid-until": "no"})
            yield source
