"""The ABI gate: do the libraries of a patched image still offer every symbol that the image imports.

Owns what an upgrade takes away from shared libraries, and who in the image asks for it. As the dynamic linker would:

1. lost: of every shared library that the patch replaces or removes, what the old one provided and the new one of the
   same soname does not: the soname itself, versions, versioned symbols (a default version that became an old one is
   lost to those that ask for none);
2. nothing lost: nothing more is looked at. Else every ELF file of the patched image that asks for something lost;
3. broken: those that found it in the old image and find it nowhere in the new one. A file is taken to find what the
   libraries provide that it needs, directly or not, by its search path and the linker's; one that found it in none of
   them (a plugin that leaves it to its program) to find it in any library.

What is weak does not count; programs that look up a name at run time (dlsym) do not say so in their tables, nor what
they open by name. Format: ld.so(8), elf(5)
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.engine.elf import Elf, open_elf
from proxy.engine.elfsymbols import Need, Symbols, read_symbols
from proxy.engine.family import InstalledDb, NotRecordable, Payload
from proxy.engine.libsearch import Libraries, Machine, ident_of
from proxy.engine.outline import is_library_name, outline_bytes
from proxy.engine.rootfs import RootFS
from proxy.engine.stage import Stage
from proxy.engine.tar import Entry, Kind, Span
from proxy.errors import AdmendError, MalformedInput

SMALLEST = 52  # bytes of an ELF header
MAX_WHOLE = 128 << 20  # bytes of one new library; larger ones are not read


@dataclass(frozen=True, slots=True)
class Broken:
    """Something that the image needs and the patch takes away: `path` is the library's in the old image.

    `importer` needs `symbol` (or the version, or the library itself) of `soname`; where it is empty, nobody can tell
    who does, and `symbol` says why.
    """

    path: str
    soname: str
    importer: str
    symbol: str

    @property
    def reason(self) -> str:
        """One sentence, without the package's name."""
        if not self.importer:
            return f"{self.soname} lacks symbols of the old version, and who needs them cannot be seen: {self.symbol}"
        what = f"{self.symbol} of {self.soname}" if self.symbol else self.soname
        return f"/{self.importer} needs {what}, which the new version does not have"


@dataclass(slots=True)
class _Lost:
    """What is lost of one soname; `whole` where the library itself is."""

    path: str
    names: set[str] = field(default_factory=set)
    whole: bool = False


_Losses = dict[tuple[Machine, str], _Lost]


def check_abi(fs: RootFS, entries: Sequence[Entry]) -> tuple[Broken, ...]:
    """Return what the patch layer `entries` would break in the image `fs`, sorted by importer."""
    losses = _find_losses(_old_outlines(fs, entries), _new_outlines(fs, entries))  # (1)
    if not losses:
        return ()
    try:
        view = _Patched(fs, entries)
    except AdmendError as error:  # programs too large to be looked at
        return tuple(Broken(lost.path, soname, "", str(error)) for (_, soname), lost in losses.items())
    found: dict[tuple[str, str], Broken] = {}
    for path in sorted(view.elves):
        for broken in _broken_by(view, path, losses):  # (2), (3)
            found.setdefault((broken.path, path), broken)
    return tuple(found.values())


def refuse_broken(
    fs: RootFS,
    db: InstalledDb,
    payloads: Mapping[str, Payload],
    entries: Sequence[Entry],
    removed: Collection[str] = (),
) -> None:
    """Raise NotRecordable for the packages whose libraries the image needs as they were.

    `payloads` are those that move, by key, and `removed` the keys of those that go.
    Where nothing says whose a library is, all packages are to blame: a skip is right, a broken program never.
    """
    reasons: dict[str, str] = {}
    for broken in check_abi(fs, entries):
        gone = [key for key in db.owners.get(broken.path, ()) if key in removed]
        for key in gone or _blamed(fs, db, payloads, broken):
            reasons.setdefault(key, broken.reason)
    if reasons:
        raise NotRecordable(reasons)


def _blamed(fs: RootFS, db: InstalledDb, payloads: Mapping[str, Payload], broken: Broken) -> Sequence[str]:
    stem = broken.path.rpartition("/")[2].partition(".so")[0]
    owners = [key for key in db.owners.get(broken.path, ()) if key in payloads]
    if owners:
        return owners
    same, alike = [], []
    for key, payload in payloads.items():
        paths = [entry.path for entry in payload.entries if is_library_name(entry.path)]
        if any(fs.locate(path) == broken.path for path in paths):
            same.append(key)
        elif any(path.rpartition("/")[2].partition(".so")[0] == stem for path in paths):
            alike.append(key)
    return same or alike or tuple(payloads)


def _find_losses(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> _Losses:
    here: dict[tuple[Machine, str], dict[str, set[str]]] = {}
    for path, data in new.items():
        read = _read(data, path)
        if read is not None:
            elf, symbols = read
            folder, _, name = path.rpartition("/")
            here.setdefault((ident_of(elf), elf.soname or name), {}).setdefault(folder, set()).update(symbols.provided)
    losses: _Losses = {}
    for path, data in old.items():
        if new.get(path) == data or (read := _read(data, path)) is None:
            continue
        elf, symbols = read
        folder, _, name = path.rpartition("/")
        key = ident_of(elf), elf.soname or name
        folders = here.get(key)
        if folders is None:
            losses.setdefault(key, _Lost(path)).whole = True
            losses[key].names |= symbols.provided
            continue
        offered = folders.get(folder)
        gone = symbols.provided - (set().union(*folders.values()) if offered is None else offered)
        if gone:
            losses.setdefault(key, _Lost(path)).names |= gone
    return losses


def _broken_by(view: "_Patched", path: str, losses: _Losses) -> Iterator[Broken]:
    read = view.elves.read(path)
    if read is None:
        return
    elf, symbols = read
    machine = ident_of(elf)
    for name in elf.needed:
        lost = losses.get((machine, name))
        if lost is not None and lost.whole and view.before.find(name, path) and not view.elves.find(name, path):
            yield Broken(lost.path, name, path, "")
    for soname, version in sorted(symbols.versions):
        lost = losses.get((machine, soname))
        if lost is not None and f"@{version}" in lost.names and view.loses_version(path, soname, version):
            yield Broken(lost.path, soname, path, f"version {version}")
    wanted = {need.key: need for need in symbols.needs}
    for (kind, soname), lost in losses.items():
        if kind != machine:
            continue
        for key in sorted(wanted.keys() & lost.names):
            if view.loses_symbol(path, wanted[key], lost.path):
                yield Broken(lost.path, soname, path, key)


class _Patched:
    """The image's ELF files before and after the patch."""

    def __init__(self, fs: RootFS, entries: Sequence[Entry]) -> None:
        stage = Stage(fs)
        for entry in sorted(entries, key=lambda entry: (entry.kind is not Kind.WHITEOUT, entry.path)):
            if entry.kind is Kind.WHITEOUT:
                stage.remove_tree(entry.path)
            else:
                stage.put(entry)
        old = fs.outlines(entry.path for entry in fs.walk() if entry.kind is Kind.FILE and entry.size >= SMALLEST)
        written = {entry.path for entry in entries}
        kept = {path: data for path, data in old.items() if path not in written and stage.get(path) is not None}
        new = {path: data for path, data in _outlines(fs, entries).items() if data}
        self.before, self.elves = Libraries(fs, old), Libraries(stage, kept | new)

    def loses_version(self, path: str, soname: str, version: str) -> bool:
        """Say whether the linker found the version in the library of that name, and does no longer."""
        then, now = self.before.find(soname, path), self.elves.find(soname, path)
        return (
            then is not None
            and self.before.has_version(then, version)
            and not (now is None or self.elves.has_version(now, version))
        )

    def loses_symbol(self, path: str, need: Need, library: str) -> bool:
        """Say whether a file found the symbol in that library, or nowhere one can tell, and finds it no longer."""
        if any(self.elves.has_symbol(one, need) for one in self.elves.closure(path)):
            return False
        then = self.before.closure(path)
        if library in then:
            return True
        told = any(self.before.has_symbol(one, need) for one in then)
        return not told and not any(self.elves.has_symbol(one, need) for one in self.elves.libraries())


def _old_outlines(fs: RootFS, entries: Iterable[Entry]) -> dict[str, bytes]:
    """Return the outlines of the shared libraries that the patch replaces or removes, or whose names it does."""
    paths: list[str] = []
    for entry in entries:
        there = fs.get(entry.path)
        if there is None or (entry.kind is Kind.DIR and there.kind is Kind.DIR):
            continue
        below = fs.walk(entry.path) if there.kind is Kind.DIR else (there,)
        paths += [one.path for one in below if one.kind in {Kind.FILE, Kind.SYMLINK} and is_library_name(one.path)]
    return fs.outlines(dict.fromkeys(fs.resolve(path) for path in paths))


def _new_outlines(fs: RootFS, entries: Iterable[Entry]) -> dict[str, bytes]:
    return _outlines(fs, (entry for entry in entries if is_library_name(entry.path)))


def _outlines(fs: RootFS, entries: Iterable[Entry]) -> dict[str, bytes]:
    """Return the outlines of the ELF files among the files of a patch."""
    found = {}
    for entry in entries:
        if entry.kind is not Kind.FILE or not SMALLEST <= entry.size <= MAX_WHOLE:
            continue
        content = entry.content
        whole = fs.read_span(content) if isinstance(content, Span) else content or b""
        try:
            data = outline_bytes(whole, entry.path)
        except MalformedInput:
            continue
        if data:
            found[entry.path] = data
    return found


def _read(data: bytes, path: str) -> tuple[Elf, Symbols] | None:
    """Return what an outline says; None for a damaged one: nothing can load it."""
    try:
        elf = open_elf(data, path)
        return elf, read_symbols(elf)
    except MalformedInput:
        return None
