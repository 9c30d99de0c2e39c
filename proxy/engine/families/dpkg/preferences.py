"""apt's pins: which priority the image's own configuration gives to a version.

Owns reading ``/etc/apt/preferences*`` and ``APT::Default-Release``, and apt's arithmetic of priorities. A record that
apt refuses, or that is not followed here, is a `fault`: the caller then skips rather than guesses.
Specification: apt_preferences(5), apt.conf(5).

Algorithm (numbers in the code): 1. a version has the priority of the first specific pin that names its package and
matches the version or any file that has it, unless no file may ever be used; 2. else the highest priority of its
files; 3. a file has the priority of the first general pin that matches it (``never`` beats all others), else 100 for
the installed state and for ButAutomaticUpgrades, 1 for NotAutomatic, 500 for the rest.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.engine.families.dpkg.aptconf import AptConf, read_apt_conf
from proxy.engine.families.dpkg.deb822 import Stanza, parse_stanzas
from proxy.engine.families.dpkg.patterns import is_pattern, matches
from proxy.engine.family import Package
from proxy.engine.rootfs import RootFS
from proxy.errors import MalformedInput

DEFAULT_PRIORITY = 500
INSTALLED_PRIORITY = 100
DEFAULT_RELEASE_PRIORITY = 990
DOWNGRADE_PRIORITY = 1000  # from here on apt would take an older version
NEVER = -32768
MOST = 32767
MAX_RECORDS = 4096
MAX_DATA = 299  # characters of a release pin; apt cuts them off there

_CONDITIONS = {"v": "version", "o": "origin", "a": "archive", "n": "codename", "l": "label", "c": "component"}
_CONDITIONS |= {"b": "arch"}
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class PackageFile:
    """What a pin may ask of the file that lists a version: an index of a source, or the installed state (``now``)."""

    archive: str = ""
    codename: str = ""
    version: str = ""
    origin: str = ""
    label: str = ""
    component: str = ""
    arch: str = ""
    site: str = ""
    priority: int = DEFAULT_PRIORITY  # without any pin


INSTALLED = PackageFile("now", priority=INSTALLED_PRIORITY)


@dataclass(frozen=True, slots=True)
class Pin:
    """One record: names (none makes it general), ``version``, ``release`` or ``origin``, what of it, the priority."""

    names: tuple[str, ...]
    kind: str
    data: str
    priority: int
    conditions: Mapping[str, str] = field(default_factory=dict)

    def matches_file(self, file: PackageFile) -> bool:
        """Say whether a release or origin pin means this file; what a file does not tell matches nothing."""
        if self.kind == "origin":
            return bool(self.data and file.site) and matches(self.data, file.site)  # "" means sources on a disk
        if self.kind != "release":
            return False
        held = (_holds(name, pattern, file) for name, pattern in self.conditions.items())
        return self.data == "*" or (bool(self.conditions) and all(held))

    def matches_version(self, version: str, files: Sequence[PackageFile]) -> bool:
        """Say whether the pin means this version, which `files` list."""
        if self.kind == "version":
            return _is_version(self.data, version)
        return any(self.matches_file(file) for file in files)

    def names_package(self, package: Package, native: str) -> bool:
        """Say whether one of the pin's names is the package's, or its source's."""
        return any(_is_named(name, package, native) for name in self.names)


@dataclass(frozen=True, slots=True)
class Preferences:
    """The image's pins in apt's order; `fault` says what could not be read, or is empty.

    `default_release` is what the image prefers; it must be known to the sources, see `unknown_release`.
    """

    pins: tuple[Pin, ...] = ()
    fault: str = ""
    default_release: str = ""

    def file_priority(self, file: PackageFile) -> int:
        """(3) Return the priority of all that a file lists."""
        found: int | None = None
        for pin in self.pins:
            if not pin.names and (found is None or pin.priority == NEVER) and pin.matches_file(file):
                found = pin.priority
        return file.priority if found is None else found

    def priority(self, package: Package, native: str, files: Mapping[PackageFile, int]) -> int:
        """Return the priority of one version, which `files` list; their own priorities are given."""
        for pin in self.pins:  # (1)
            if not pin.names or not pin.names_package(package, native):
                continue
            if pin.matches_version(package.version, tuple(files)):
                if any(priority != NEVER for priority in files.values()):
                    return pin.priority
                break
        return max(files.values(), default=0)  # (2)

    def unknown_release(self, files: Sequence[PackageFile]) -> str:
        """Return why apt would refuse to work with the image's default release, or ``""``."""
        wanted = self.default_release
        if not wanted or wanted[1:2] == "=" or matches(wanted, INSTALLED.archive):
            return ""
        told = {text for file in files for text in (file.archive, file.codename, file.version) if text}
        if any(matches(wanted, text) for text in told):
            return ""
        return f"the image's APT::Default-Release is {wanted}, which none of its sources is; apt refuses to work"


def read_preferences(fs: RootFS, conf: AptConf | None = None) -> Preferences:
    """Return the preferences of an image; never raises for what they hold."""
    pins: list[Pin] = []
    release = (read_apt_conf(fs) if conf is None else conf).get("apt::default-release", "")
    try:
        if release:
            pins.append(_release_pin((), release, DEFAULT_RELEASE_PRIORITY))
            matches(release, "")
        for path, data in _files(fs):
            for stanza in parse_stanzas(data, f"/{path}", comments=True):
                pins += _parse_pin(stanza)
            if len(pins) > MAX_RECORDS:
                return Preferences(fault=f"/{path}: the image's apt preferences have over {MAX_RECORDS} records")
    except MalformedInput as error:
        return Preferences(fault=f"the image's apt preferences cannot be followed: {error}")
    return Preferences(tuple(pins), default_release=release)


def _files(fs: RootFS) -> Iterator[tuple[str, bytes]]:
    folder = "etc/apt/preferences.d"
    names = [name for name in fs.listdir(folder) if _NAME.fullmatch(name)]
    names = [name for name in names if "." not in name or name.endswith(".pref")]
    for path in ("etc/apt/preferences", *(f"{folder}/{name}" for name in sorted(names))):
        data = fs.read(path)
        if data is not None:
            yield path, data


def _parse_pin(stanza: Stanza) -> Iterator[Pin]:
    """Yield the record's pin; apt passes over one without a Pin and over kinds of pins that it does not know."""
    names = tuple(stanza.need("Package").split())
    kind, _, data = stanza.get("Pin").strip().partition(" ")
    kind, data = kind.lower(), data.strip()
    general = names == ("*",)
    if kind not in {"release", "origin", "version"} or (kind == "version" and general):
        return
    priority = _priority(stanza)
    if priority == NEVER and not general:
        raise stanza.wrong("`Pin-Priority: never` is for `Package: *` only")
    names = () if general else names
    try:
        pin = _release_pin(names, data, priority) if kind == "release" else _plain_pin(names, kind, data, priority)
        for text in (*names, pin.data, *pin.conditions.values()):
            matches(text.removeprefix("src:").rpartition(":")[0] or text, "")  # what is not followed is found here
    except MalformedInput as error:
        raise stanza.wrong(str(error)) from error
    yield pin


def _priority(stanza: Stanza) -> int:
    text = stanza.get("Pin-Priority").strip()
    if text == "never":
        return NEVER
    if re.fullmatch(r"[+-]?[0-9]{1,9}", text) is None or not NEVER <= int(text) <= MOST or int(text) == 0:
        raise stanza.wrong("Pin-Priority is not a number other than 0, from -32768 to 32767", text)
    return int(text)


def _plain_pin(names: tuple[str, ...], kind: str, data: str, priority: int) -> Pin:
    if kind == "origin" and len(data) > 1 and data[0] == data[-1] == '"':
        data = data[1:-1]
    return Pin(names, kind, data, priority)


def _release_pin(names: tuple[str, ...], data: str, priority: int) -> Pin:
    """Return a release pin: conditions ``x=``, the last of a kind counts, or a version, archive or codename alone."""
    if len(data) > MAX_DATA:
        raise MalformedInput(f"a release pin of more than {MAX_DATA} characters", text=data)
    if data == "*":
        conditions = {}
    elif "=" not in data:
        conditions = {"version" if data[:1].isdigit() else "release": data} if data else {}
    else:
        parts = [part.strip() for part in data.split(",")]
        named = [(part[:1].lower(), part[2:]) for part in parts if len(part) > 2 and part[1] == "="]  # noqa: PLR2004
        conditions = {_CONDITIONS[name]: value for name, value in named if name in _CONDITIONS}
    return Pin(names, "release", data, priority, conditions)


def _holds(name: str, pattern: str, file: PackageFile) -> bool:
    if name == "version":
        return bool(file.version) and _is_version(pattern, file.version)
    told = (file.archive, file.codename) if name == "release" else (getattr(file, name),)
    return any(text and matches(pattern, text) for text in told)


def _is_version(pattern: str, version: str) -> bool:
    """Say whether a version is the one of the pattern, begins so (``1.2*``), or matches it."""
    begins = pattern.endswith("*")
    wanted = pattern[:-1] if begins else pattern
    plain = version[: len(wanted)] if begins else version
    return plain.lower() == wanted.lower() or matches(wanted, version)


def _is_named(written: str, package: Package, native: str) -> bool:
    name = package.source if written.startswith("src:") else package.name
    pattern, colon, arch = written.removeprefix("src:").rpartition(":")
    if not colon:
        pattern, arch = arch, "native"
    of = native if package.arch in {"all", ""} else package.arch
    if arch not in {"any", of} and not (arch == "native" and of == native):
        return False
    return matches(pattern, name) if is_pattern(pattern) else pattern == name
