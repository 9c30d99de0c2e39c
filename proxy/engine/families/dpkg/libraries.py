"""What ldconfig wants to know of one shared library: its soname, which kind it is, what it needs.

Owns the flags of glibc's cache by the ELF header, for the architectures that are supported here. Refuses, by None, what
ldconfig passes over: text files, programs, libraries of another machine.
Format: ld.so(8), elf(5), the ABI note and the property note of the gABI supplements
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.engine.elf import MAGIC, SHARED_OBJECT, Elf, open_elf
from proxy.engine.families.dpkg.findings import NotReproduced

_I386, _X86_64, _ARM, _AARCH64, _PPC64, _S390, _RISCV = 3, 62, 40, 183, 21, 22, 243
_MACHINES: Mapping[str, frozenset[int]] = {
    "amd64": frozenset({_I386, _X86_64}),
    "i386": frozenset({_I386, _X86_64}),
    "x32": frozenset({_I386, _X86_64}),
    "arm64": frozenset({_ARM, _AARCH64}),
    "armhf": frozenset({_ARM, _AARCH64}),
    "armel": frozenset({_ARM, _AARCH64}),
    "ppc64el": frozenset({_PPC64}),
    "s390x": frozenset({_S390}),
    "riscv64": frozenset({_RISCV}),
}
_WIDE: Mapping[int, int] = {_X86_64: 0x303, _AARCH64: 0xA03, _PPC64: 0x503, _S390: 0x403}
_LIBC6 = 3
_HARD_FLOAT, _SOFT_FLOAT, _DOUBLE_FLOAT = 0x400, 0x200, 0x4  # e_flags of ARM and RISC-V
_ISA_NEEDED = 0xC0008002  # the property of x86 that names the instruction sets it needs
_ABI_NOTE, _PROPERTIES = 1, 5


@dataclass(frozen=True, slots=True)
class Library:
    """One shared library: its soname (None if it says none), its kind, the kernel and instruction set it asks for."""

    soname: str | None
    flags: int
    kernel: int = 0
    level: int = 0


def read_library(data: bytes, path: str, arch: str) -> Library | None:
    """Return what ldconfig of the architecture `arch` (dpkg's name) sees in a file, or None if it passes over it.

    Raises MalformedInput for a damaged ELF file, NotReproduced for one whose kind is not known here.
    """
    if not data.startswith(MAGIC):
        return None
    elf = open_elf(data, path)
    machines = _MACHINES.get(arch)
    if machines is None:
        raise NotReproduced(f"libraries of the architecture {arch}")
    if elf.kind != SHARED_OBJECT or elf.machine not in machines or not elf.dynamic:
        return None
    return Library(elf.soname, _flags(elf, path), _kernel(elf), _level(elf))


def _flags(elf: Elf, path: str) -> int:
    wide = elf.bits == 64  # noqa: PLR2004
    if elf.machine == _RISCV and wide:
        return 0x1003 if elf.flags & _DOUBLE_FLOAT else 0xF03
    if wide:
        return _WIDE[elf.machine]
    if elf.machine == _X86_64:
        return 0x803
    if elf.machine == _ARM:
        return _LIBC6 | (0x900 if elf.flags & _HARD_FLOAT else 0xB00 if elf.flags & _SOFT_FLOAT else 0)
    if not {"libc.so.6", "libm.so.6"} & set(elf.needed):
        raise NotReproduced(f"/{path} does not tell which C library it is for")
    return _LIBC6


def _kernel(elf: Elf) -> int:
    for note in elf.notes:
        if note.owner == b"GNU" and note.kind == _ABI_NOTE and len(note.data) == 16:  # noqa: PLR2004
            little = elf.order == "<"
            parts = bytes(note.data[at if little else at + 3] for at in range(0, 16, 4))  # system, then the version
            return int.from_bytes(parts, "big")
    return 0


def _level(elf: Elf) -> int:
    """Return the number of the newest instruction set that it needs (x86)."""
    align = elf.bits // 8
    for note in elf.notes:
        if note.owner != b"GNU" or note.kind != _PROPERTIES or elf.machine not in {_I386, _X86_64}:
            continue
        at = 0
        while at + 8 <= len(note.data):
            kind, size = struct.unpack_from(f"{elf.order}II", note.data, at)
            if kind == _ISA_NEEDED and size == 4 and at + 12 <= len(note.data):  # noqa: PLR2004
                return max(int.from_bytes(note.data[at + 8 : at + 12], "little").bit_length() - 1, 0)
            at += 8 + -(-size // align) * align
    return 0
