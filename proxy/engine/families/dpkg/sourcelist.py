"""apt's source lists, one-line and deb822 style, as values; what they are worth is decided elsewhere.

Owns the two formats. Leaves out what offers no binary packages (``deb-src``) and what is disabled. A line that cannot
be read is one entry with a `fault`, so that a file is never lost for one bad line.
Specification: sources.list(5).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from proxy.engine.families.dpkg.deb822 import Stanza, parse_stanzas
from proxy.errors import MalformedInput

MAX_FILE = 1 << 20  # bytes; a source list of a real image has a few hundred
MAX_ENTRIES = 256
SIGNED_BY, SIGNED_BY_KEY = "signed-by", "signed-by-key"  # options of sources: fingerprints, a block of keys

_OPTIONS = re.compile(r"\[([^\]]*)\]\s*(.*)")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_~-]*(?:/[A-Za-z0-9.+_~-]+)*/?")
_FLAT = re.compile(r"(?:\./|/|[A-Za-z0-9.+_~-]+(?:/[A-Za-z0-9.+_~-]+)*/)")
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{40}!?")
_TRUSTING = ("trusted", "allow-insecure", "allow-weak", "allow-downgrade-to-insecure")
_CHECKS = ("check-valid-until", "check-date")
_RENAMED = {"architectures": "arch", "languages": "lang", "targets": "target"}  # deb822's names of options
_NO = frozenset({"no", "false", "without", "off", "disable", "0"})


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One address and suite. `archs` is empty for any; `options` has lower-case names; `fault` says what is bad.

    An option may add to a list or take from it (``arch+=``, ``Architectures-Remove``): its name ends in ``+`` or ``-``.
    """

    uri: str
    suite: str
    components: tuple[str, ...] = ()
    archs: tuple[str, ...] = ()
    written: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""


def serves(entry: SourceEntry, arch: str) -> bool:
    """Say whether an entry is for packages of `arch`."""
    archs = {*entry.archs, *(_words(entry.options.get("arch+", "")) if entry.archs else ())}
    return (not archs or arch in archs or arch == "all") and arch not in _words(entry.options.get("arch-", ""))


def unsafe_options(entry: SourceEntry) -> tuple[str, ...]:
    """Return the options, as written, by which an entry asks for less care than apt takes by itself."""
    asked = [f"{name}={entry.options[name]}" for name in _TRUSTING if entry.options.get(name, "no").lower() not in _NO]
    given_up = [f"{name}={entry.options[name]}" for name in _CHECKS if entry.options.get(name, "yes").lower() in _NO]
    return (*asked, *given_up)


def signed_by(entry: SourceEntry) -> dict[str, str]:
    """Return what Signed-By narrows the keys to: fingerprints, or a block of keys. A file's name is left out."""
    text = entry.options.get("signed-by", "")
    if "-----BEGIN PGP PUBLIC KEY BLOCK-----" in text:
        lines = (line.strip() for line in text.split("\n"))
        return {SIGNED_BY_KEY: "\n".join("" if line == "." else line for line in lines).strip() + "\n"}
    prints = [word.rstrip("!").upper() for word in _words(text) if _FINGERPRINT.fullmatch(word)]
    return {SIGNED_BY: " ".join(prints)} if prints else {}


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def is_list_name(name: str) -> bool:
    """Say whether apt reads a file of this name in sources.list.d."""
    return re.fullmatch(r"[A-Za-z0-9_.-]+\.(list|sources)", name) is not None


def parse_source_list(data: bytes, file: str) -> tuple[SourceEntry, ...]:
    """Parse a source list; its name decides the format. Never raises: what is wrong is an entry's `fault`."""
    if len(data) > MAX_FILE:
        return (SourceEntry("", "", written=file, fault=f"a source list of more than {MAX_FILE} bytes"),)
    entries = _parse_deb822(data, file) if file.endswith(".sources") else _parse_lines(data, file)
    found: list[SourceEntry] = []
    for entry in entries:
        if len(found) == MAX_ENTRIES:
            found.append(SourceEntry("", "", written=file, fault=f"more than {MAX_ENTRIES} sources; the rest"))
            break
        found.append(entry)
    return tuple(found)


def _parse_lines(data: bytes, file: str) -> Iterator[SourceEntry]:
    for number, raw in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        line = raw.partition("#")[0].strip()
        kind, _, rest = line.replace("\t", " ").partition(" ")
        written = f"{file}:{number}"
        if not line or kind == "deb-src":
            continue
        if kind != "deb":
            yield SourceEntry("", "", written=written, fault=f"not a `deb` line: {line[:80]!r}")
            continue
        yield _parse_line(rest.strip(), written)


def _parse_line(text: str, written: str) -> SourceEntry:
    options: dict[str, str] = {}
    match = _OPTIONS.fullmatch(text)
    if match is not None:
        for option in match[1].split():
            name, _, value = option.partition("=")
            options[name.lower()] = value.strip('"')
        text = match[2]
    words = re.sub(r"\[[^\]]*\]", "[]", text).split()  # a CD-ROM's name stands in brackets, with blanks
    if len(words) < 2:  # noqa: PLR2004 - an address and a suite
        return SourceEntry(words[0] if words else "", "", written=written, fault="an address and a suite are needed")
    archs = tuple(_words(options.get("arch", "")))
    return _checked(SourceEntry(words[0], words[1], tuple(words[2:]), archs, written, options))


def _parse_deb822(data: bytes, file: str) -> Iterator[SourceEntry]:
    try:
        stanzas = parse_stanzas(data, file, comments=True)
    except MalformedInput as error:
        yield SourceEntry("", "", written=file, fault=str(error))
        return
    for stanza in stanzas:
        yield from _parse_stanza(stanza, f"{file}:{stanza.line}")


def _parse_stanza(stanza: Stanza, written: str) -> Iterator[SourceEntry]:
    if stanza.get("Enabled", "yes").strip().lower() in _NO or "deb" not in stanza.get("Types").split():
        return
    uris, suites = stanza.get("URIs").split(), stanza.get("Suites").split()
    if not uris or not suites:
        yield SourceEntry(" ".join(uris), "", written=written, fault="URIs and Suites are needed")
        return
    components, archs = tuple(stanza.get("Components").split()), tuple(stanza.get("Architectures").split())
    options = {_option(name): value.strip() for name, value in stanza.items()}
    for uri in uris:
        for suite in suites:
            yield _checked(SourceEntry(uri, suite, components, archs, written, options))


def _option(field: str) -> str:
    """Return the one-line style's name of a deb822 field."""
    name = field.lower()
    for ending, sign in (("-add", "+"), ("-remove", "-")):
        if name.endswith(ending):
            return _RENAMED.get(name.removesuffix(ending), name.removesuffix(ending)) + sign
    return _RENAMED.get(name, name)


def _checked(entry: SourceEntry) -> SourceEntry:
    """Return the entry, with a fault where suite or components are not of the form that makes a safe path."""
    fault = ""
    words = (entry.suite, *entry.components)
    if any(part in {"..", "."} for word in words for part in word.rstrip("/").split("/") if word != "./"):
        fault = "a suite or component with `.` or `..` in its path"
    elif entry.suite.endswith("/"):
        if entry.components:
            fault = "a flat source (its suite ends in a slash) has no components"
        elif _FLAT.fullmatch(entry.suite.replace("$(ARCH)", "x")) is None:
            fault = "a suite of letters that are not allowed"
    elif not entry.components:
        fault = "no component is named"
    elif any(_WORD.fullmatch(word.replace("$(ARCH)", "x")) is None for word in words):
        fault = "a suite or component of letters that are not allowed"
    if not fault:
        return entry
    return SourceEntry(entry.uri, entry.suite, (), entry.archs, entry.written, entry.options, fault)
