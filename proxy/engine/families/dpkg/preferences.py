"""apt's pins: which priority the image's own preferences give to a version.

Owns reading ``/etc/apt/preferences*`` and ``APT::Default-Release``. A record that cannot be understood is a
`fault`: the caller then skips rather than guesses.
Specification: apt_preferences(5), apt.conf(5).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from proxy.engine.families.dpkg.deb822 import Stanza, parse_stanzas
from proxy.engine.family import Package, PackageIndex
from proxy.engine.rootfs import RootFS
from proxy.errors import MalformedInput

DEFAULT_PRIORITY = 500
INSTALLED_PRIORITY = 100
DEFAULT_RELEASE_PRIORITY = 990
DOWNGRADE_PRIORITY = 1000  # from here on apt would take an older version
MAX_RECORDS = 4096
MAX_PATTERN = 256  # characters of a regular expression that an image wrote; a longer one is a fault

_FACTS = {"a": "Suite", "n": "Codename", "o": "Origin", "l": "Label", "v": "Version"}
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_COMMENT = re.compile(r"/\*.*?\*/|^\s*(?://|#).*?$", re.DOTALL | re.MULTILINE)
_DEFAULT_RELEASE = re.compile(r"\bDefault-Release\s+\"?([^\";\s]+)\"?\s*;", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pin:
    """One record: name patterns (``*`` alone makes it general), the kind of pin with its conditions, the priority."""

    names: tuple[str, ...]
    kind: str
    conditions: tuple[tuple[str, str], ...]
    priority: int

    @property
    def general(self) -> bool:
        """Say whether it counts for every package of a source."""
        return self.names == ("*",)


@dataclass(frozen=True, slots=True)
class Preferences:
    """The image's pins in apt's order; `fault` says what could not be read, or is empty."""

    pins: tuple[Pin, ...] = ()
    fault: str = ""

    def priority(self, index: PackageIndex, package: Package) -> int:
        """Return the priority of `package` as `index` offers it: specific pins first, then general, then the rules."""
        for pin in self.pins:
            if not pin.general and _names(pin, package) and _matches(pin, index, package.version):
                return pin.priority
        for pin in self.pins:
            if pin.general and _matches(pin, index, package.version):
                return pin.priority
        if index.facts.get("NotAutomatic", "").lower() != "yes":
            return DEFAULT_PRIORITY
        return INSTALLED_PRIORITY if index.facts.get("ButAutomaticUpgrades", "").lower() == "yes" else 1

    def installed_priority(self, package: Package) -> int:
        """Return the priority that a pin gives to the installed version by its number, or 0."""
        by_number = (pin for pin in self.pins if pin.kind == "version" and not pin.general)
        for pin in by_number:
            if _names(pin, package) and fnmatchcase(package.version, pin.conditions[0][1]):
                return pin.priority
        return 0


def read_preferences(fs: RootFS) -> Preferences:
    """Return the preferences of an image; never raises for what they hold."""
    pins: list[Pin] = []
    try:
        release = _default_release(fs)
        if release:
            conditions = (("default", release),)
            pins.append(Pin(("*",), "release", conditions, DEFAULT_RELEASE_PRIORITY))
        for path, data in _files(fs):
            for stanza in parse_stanzas(data, f"/{path}", comments=True):
                pins += _parse_pin(stanza)
            if len(pins) > MAX_RECORDS:
                return Preferences(fault=f"/{path}: the image's apt preferences have over {MAX_RECORDS} records")
    except MalformedInput as error:
        return Preferences(fault=f"the image's apt preferences cannot be followed: {error}")
    return Preferences(tuple(pins))


def _files(fs: RootFS) -> Iterator[tuple[str, bytes]]:
    folder = "etc/apt/preferences.d"
    names = [name for name in fs.listdir(folder) if _NAME.fullmatch(name)]
    names = [name for name in names if "." not in name or name.endswith(".pref")]
    for path in (*(f"{folder}/{name}" for name in sorted(names)), "etc/apt/preferences"):
        data = fs.read(path)
        if data is not None:
            yield path, data


def _default_release(fs: RootFS) -> str:
    folder, found = "etc/apt/apt.conf.d", ""
    for path in (*(f"{folder}/{name}" for name in fs.listdir(folder)), "etc/apt/apt.conf"):
        data = fs.read(path) or b""
        for match in _DEFAULT_RELEASE.finditer(_COMMENT.sub("", data.decode("utf-8", "replace"))):
            found = match[1]
    return found


def _parse_pin(stanza: Stanza) -> Iterator[Pin]:
    if not any(name in stanza for name in ("Package", "Pin", "Pin-Priority")):
        return  # a comment of its own
    kind, _, rest = stanza.need("Pin").strip().partition(" ")
    try:
        priority = int(stanza.need("Pin-Priority"))
    except ValueError:
        raise stanza.wrong("Pin-Priority is no number", stanza.get("Pin-Priority")) from None
    rest = rest.strip().strip('"') if kind == "origin" else rest.strip()
    if kind == "release":
        conditions = tuple(_condition(part.strip(), stanza) for part in rest.split(",") if part.strip())
    elif kind in {"origin", "version"}:
        conditions = ((kind, rest),)
    else:
        raise stanza.wrong("a Pin is `release`, `origin` or `version`", stanza.get("Pin"))
    names = tuple(stanza.need("Package").split())
    for text in (*names, *(value for _, value in conditions)):
        _check_pattern(text, stanza)
    yield Pin(names, kind, conditions, priority)


def _condition(part: str, stanza: Stanza) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:  # the short form: a version if it starts with a digit, else an archive or codename
        return ("v", part) if part[:1].isdigit() else ("default", part)
    if name.strip() not in {*_FACTS, "c", "b"}:
        raise stanza.wrong("a release pin has a=, n=, o=, l=, v=, c= or b=", part)
    return name.strip(), value.strip().strip('"')


def _check_pattern(text: str, stanza: Stanza) -> None:
    """Refuse regular expressions: an image's could take for ever, and POSIX's are not Python's."""
    if text.removeprefix("src:").startswith("/") or len(text) > MAX_PATTERN:
        raise stanza.wrong("regular expressions in pins are not followed", text)


def _names(pin: Pin, package: Package) -> bool:
    for pattern in pin.names:
        name = package.source if pattern.startswith("src:") else package.name
        if fnmatchcase(name, pattern.removeprefix("src:").partition(":")[0]):
            return True
    return False


def _matches(pin: Pin, index: PackageIndex, version: str) -> bool:
    return all(_holds(name, value, index, version) for name, value in pin.conditions)


def _holds(name: str, pattern: str, index: PackageIndex, version: str) -> bool:
    facts: Mapping[str, str] = index.facts
    if name == "version":
        return fnmatchcase(version, pattern)
    if name == "origin":
        return fnmatchcase(urlsplit(index.source.uri).hostname or "", pattern)
    if name == "c":
        return any(fnmatchcase(component, pattern) for component in index.source.components)
    if name == "b":
        return index.source.arch == pattern
    if name == "default":
        return any(fnmatchcase(facts.get(fact, ""), pattern) for fact in ("Suite", "Codename", "Version"))
    return fnmatchcase(facts.get(_FACTS[name], ""), pattern)
