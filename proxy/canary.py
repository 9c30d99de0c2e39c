"""The canary: a tiny image that the proxy puts into its mirror, for nodes to prove that they can pull from there.

Owns the image, and keeping it in the mirror (`admend.internal/canary`). It is an index of one program per architecture,
a static ELF file of some 200 bytes that waits for ever and needs no file beside it; its machine code stands below, so
nothing binary is kept in the repository and every proxy makes the same digest. As the first process of a container the
program ignores SIGTERM, as every one without a handler does: give its pod a short grace period.
Specifications: elf(5), https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md
"""

import asyncio
import contextlib
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from proxy.blobs import BlobStore
from proxy.engine.tar import Entry, Kind
from proxy.engine.tarwrite import END, render_member
from proxy.errors import AdmendError
from proxy.mirror import Mirror
from proxy.oci.digest import Digest
from proxy.oci.manifest import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    render_json,
)
from proxy.oci.naming import INTERNAL_HOST
from proxy.oci.reference import ImageRef

CANARY = ImageRef(INTERNAL_HOST, "canary", "1")  # the tag counts changes of the image
PROGRAM = "wait"
NOBODY = 65534
RETRY = 30.0  # seconds, while the mirror does not take it
LOOK = 3600.0  # seconds until it is looked for again: a registry's own clean-up may have removed it

ADDRESS = 0x400000  # where the program is loaded; every kernel lets a process have it
PAGE = 0x10000  # the largest page of any of these architectures (64 KiB on arm64 and ppc64le)
_EXECUTABLE, _VERSION, _LOAD, _STACK, _READ, _WRITE, _EXECUTE = 2, 1, 1, 0x6474E551, 4, 2, 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Machine:
    """One architecture: its platform, the fields of the ELF header that name it, and the program's code."""

    platform: Platform
    number: int  # e_machine
    code: bytes
    bits: Literal[32, 64] = 64
    order: Literal["little", "big"] = "little"
    flags: int = 0  # e_flags


# pause(2) in a loop where the architecture has it; the newer ones have ppoll(2), with nothing to wait for and no end.
MACHINES = (
    Machine(
        Platform("linux", "amd64"),
        62,
        bytes.fromhex(
            "b822000000"  # mov eax, 34      pause
            "0f05"  # syscall
            "ebf7"  # jmp -9
        ),
    ),
    Machine(
        Platform("linux", "arm64"),
        183,
        bytes.fromhex(
            "000080d2"  # mov x0, #0      fds: none
            "010080d2"  # mov x1, #0      their number
            "020080d2"  # mov x2, #0      no time-out
            "030080d2"  # mov x3, #0      no signal mask
            "040080d2"  # mov x4, #0      its size
            "280980d2"  # mov x8, #73     ppoll
            "010000d4"  # svc #0
            "f9ffff17"  # b -28
        ),
    ),
    Machine(
        Platform("linux", "arm", "v6"),  # nodes of v7 take it too
        40,
        bytes.fromhex(
            "1d70a0e3"  # mov r7, #29     pause
            "000000ef"  # svc #0
            "fcffffea"  # b -8, of which 8 are the pipeline's
        ),
        bits=32,
        flags=0x05000000,  # EABI version 5
    ),
    Machine(
        Platform("linux", "386"),
        3,
        bytes.fromhex(
            "b81d000000"  # mov eax, 29      pause
            "cd80"  # int 0x80
            "ebf7"  # jmp -9
        ),
        bits=32,
    ),
    Machine(
        Platform("linux", "ppc64le"),
        21,
        bytes.fromhex(
            "1d000038"  # li r0, 29       pause
            "02000044"  # sc
            "f8ffff4b"  # b -8
        ),
        flags=2,  # the ELFv2 ABI, in which an entry point is an address
    ),
    Machine(
        Platform("linux", "s390x"),
        22,
        bytes.fromhex(
            "0a1d"  # svc 29          pause
            "a7f4ffff"  # j -2
        ),
        order="big",
    ),
    Machine(
        Platform("linux", "riscv64"),
        243,
        bytes.fromhex(
            "13050000"  # li a0, 0        fds: none
            "93050000"  # li a1, 0        their number
            "13060000"  # li a2, 0        no time-out
            "93060000"  # li a3, 0        no signal mask
            "13070000"  # li a4, 0        its size
            "93089004"  # li a7, 73       ppoll
            "73000000"  # ecall
            "6ff05ffe"  # j -28
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Image:
    """The canary: its index, the manifests of its platforms, and their blobs."""

    top: Index
    children: tuple[Manifest, ...]
    blobs: Mapping[Digest, bytes]


def render_program(machine: Machine) -> bytes:
    """Return the program as a static executable: ELF header, two program headers, code. See elf(5)."""
    order = "<" if machine.order == "little" else ">"
    wide = machine.bits == 64  # noqa: PLR2004 - as the field says
    header, entry = (64, 56) if wide else (52, 32)
    start = header + 2 * entry
    size = start + len(machine.code)
    identity = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, _VERSION]).ljust(12, b"\0")
    word = "Q" if wide else "I"
    rest = struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        *(_EXECUTABLE, machine.number, _VERSION, ADDRESS + start, header, 0, machine.flags),
        *(header, entry, 2, 0, 0, 0),
    )
    load = (_READ | _EXECUTE, 0, ADDRESS, ADDRESS, size, size, PAGE)
    stack = (_READ | _WRITE, 0, 0, 0, 0, 0, 16)  # without this entry a stack may be executable
    segments = b""
    for kind, (rights, *fields, align) in ((_LOAD, load), (_STACK, stack)):
        # 64 bits: type, flags, offset, addresses, sizes, alignment; 32 bits have the flags after the sizes.
        values = (kind, rights, *fields, align) if wide else (kind, *fields, rights, align)
        segments += struct.pack(f"{order}{'IIQQQQQQ' if wide else 'IIIIIIII'}", *values)
    return identity + rest + segments + machine.code


def build_canary() -> Image:
    """Return the image; it is the same every time."""
    blobs: dict[Digest, bytes] = {}
    children: list[Manifest] = []
    entries: list[Descriptor] = []
    for machine in MACHINES:
        program = render_program(machine)
        member = Entry(PROGRAM, Kind.FILE, 0o755, size=len(program))
        layer = b"".join((*render_member(member, iter([program])), END))
        platform = {"architecture": machine.platform.architecture, "os": machine.platform.os}
        if machine.platform.variant:
            platform["variant"] = machine.platform.variant
        config = render_json(
            {
                **platform,
                "config": {"Entrypoint": [f"/{PROGRAM}"], "User": f"{NOBODY}:{NOBODY}", "WorkingDir": "/"},
                "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
            }
        )
        manifest = _manifest(Descriptor(OCI_CONFIG, Digest.of(config), len(config)), layer)
        blobs |= {Digest.of(config): config, Digest.of(layer): layer}
        children.append(manifest)
        entries.append(replace(manifest.descriptor, platform=machine.platform))
    raw = render_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [item.to_json() for item in entries]})
    return Image(Index(raw, OCI_INDEX, tuple(entries)), tuple(children), blobs)


def _manifest(config: Descriptor, layer: bytes) -> Manifest:
    # The layer is not compressed: a compressor's next version may write other bytes.
    layers = (Descriptor(OCI_LAYER, Digest.of(layer), len(layer)),)
    document = {"config": config.to_json(), "layers": [item.to_json() for item in layers]}
    raw = render_json({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **document})
    return Manifest(raw, OCI_MANIFEST, config, layers)


async def put_canary(mirror: Mirror, store: BlobStore) -> ImageRef:
    """Put the canary into a mirror that lacks it; returns its reference by tag, as nodes pull it.

    Args:
        mirror: where it goes.
        store: keeps its blobs while they are pushed.
    """
    image, name = build_canary(), mirror.name_for(CANARY)
    found = await mirror.get_manifest(name)
    if found is None or found.digest != image.top.digest:
        with store.pin(image.blobs):
            for data in image.blobs.values():
                await store.put_bytes(data)
            files = {digest: store.path(digest) for digest in image.blobs}
            await mirror.put_image(name, image.top, image.children, files, tags=[str(CANARY.tag)])
    return name


class CanaryKeeper:
    """Keeps the canary in the mirror, from its start to its end; a mirror that refuses it is asked again."""

    def __init__(self, mirror: Mirror, store: BlobStore, *, retry: float = RETRY, look: float = LOOK) -> None:
        self._mirror, self._store, self._retry, self._look = mirror, store, retry, look
        self.problem = "it has not been put into the mirror yet"  # why it is not there, or nothing
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep(self) -> None:
        while True:
            try:
                await put_canary(self._mirror, self._store)
            except (AdmendError, OSError) as error:
                self.problem = str(error) or type(error).__name__
                _log.warning("the canary cannot be put into the mirror, tried again: %s", self.problem)
                await asyncio.sleep(self._retry)
            else:
                self.problem = ""
                await asyncio.sleep(self._look)
