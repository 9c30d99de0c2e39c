"""Hand-made tars: members that no tar program would write, and layers from a few words."""

import io

from proxy.engine.layerindex import LayerIndex
from proxy.engine.scan import scan_layer

END = bytes(1024)


def member(
    name: bytes | str,
    body: bytes = b"",
    *,
    flag: bytes = b"0",
    target: bytes | str = b"",
    size: int | bytes | None = None,
    mode: int = 0o644,
    uid: bytes = b"0000000\0",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """Return one member: header, body, padding; every field as it is told."""
    name = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    target = target.encode("utf-8", "surrogateescape") if isinstance(target, str) else target
    length = b"%011o\0" % (len(body) if size is None else size) if not isinstance(size, bytes) else size
    head = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            b"%07o\0" % mode,
            uid,
            b"0000000\0",
            length,
            b"%011o\0" % 0,
            b" " * 8,
            flag,
            target[:100].ljust(100, b"\0"),
            magic,
            bytes(64),
            b"0000001\x000000003\0",
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    assert len(head) == 512
    total = b"%06o\0 " % sum(head) if checksum is None else checksum
    return head[:148] + total + head[156:] + body + bytes(-len(body) % 512)


def pax(records: dict[str, bytes | str], *, flag: bytes = b"x") -> bytes:
    """Return a pax extended header."""
    body = b""
    for key, value in records.items():
        line = b" " + key.encode() + b"=" + (value.encode() if isinstance(value, str) else value) + b"\n"
        size = len(line) + 1
        while len(str(size)) + len(line) != size:
            size = len(str(size)) + len(line)
        body += str(size).encode() + line
    return member("PaxHeaders/x", body, flag=flag)


def tree(*lines: str) -> bytes:
    """Return a tar of lines: `d PATH [MODE]`, `f PATH CONTENT`, `l PATH TARGET`, `h PATH TARGET`, `c PATH`."""
    out = b""
    for line in lines:
        kind, path, *rest = line.split(" ", 2)
        word = rest[0] if rest else ""
        match kind:
            case "d":
                out += member(f"{path}/", flag=b"5", mode=int(word or "755", 8))
            case "f":
                out += member(path, word.encode())
            case "l":
                out += member(path, flag=b"2", target=word)
            case "h":
                out += member(path, flag=b"1", target=word)
            case "c":
                out += member(path, flag=b"3")
    return out + END


def scan(tar: bytes, captures: io.BytesIO | None = None, *, media_type: str = "", keep: bool = True) -> LayerIndex:
    """Scan a layer held in memory."""
    captures = io.BytesIO() if captures is None else captures
    return scan_layer(
        io.BytesIO(tar), media_type, keep=lambda _: keep, captures=captures, captures_name="captures", where="layer"
    )
