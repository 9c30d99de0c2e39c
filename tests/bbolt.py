"""Writes a bbolt file, the key/value store that trivy keeps its vulnerability database in.

A file is pages of 4096 bytes: two meta pages, the list of free pages, then one leaf per bucket, which may run over
several pages. A bucket's value in its parent's leaf is the number of its own page. Nothing is ever changed in place.
Format: https://github.com/etcd-io/bbolt/blob/v1.3.11/page.go and db.go
"""

import struct
from collections.abc import Mapping
from typing import TypeAlias

Bucket: TypeAlias = Mapping[str, "bytes | Bucket"]

PAGE = 4096
MAGIC, VERSION = 0xED0CDAED, 2
LEAF, META, FREE = 0x02, 0x04, 0x10
IS_BUCKET = 1
_HEADER = struct.Struct("<QHHI")  # page number, kind, entries, further pages that it runs over
_ENTRY = struct.Struct("<IIII")  # flags, where the key begins from here, length of key, of value
_META = struct.Struct("<IIIIQQQQQ")  # magic, version, page size, flags, root and its sequence, free list, end, change


def render_bbolt(root: Bucket) -> bytes:
    """Return the file of a tree of buckets."""
    pages: list[bytes] = []
    top = _add_bucket(root, pages)
    metas = [_render_meta(number, top, 3 + len(pages)) for number in (0, 1)]
    return b"".join([*metas, _page(2, FREE, 0, b""), *pages])


def _add_bucket(bucket: Bucket, pages: list[bytes]) -> int:
    """Append the pages of a bucket and those below it; returns the number of its first page."""
    items: list[tuple[int, bytes, bytes]] = []
    for key, value in sorted((key.encode(), value) for key, value in bucket.items()):
        if isinstance(value, bytes):
            items.append((0, key, value))
        else:
            items.append((IS_BUCKET, key, struct.pack("<QQ", _add_bucket(value, pages), 0)))
    entries, data = b"", b""
    for place, (flags, key, value) in enumerate(items):
        entries += _ENTRY.pack(flags, (len(items) - place) * _ENTRY.size + len(data), len(key), len(value))
        data += key + value
    number = 3 + len(pages)
    page = _page(number, LEAF, len(items), entries + data)
    pages += [page[start : start + PAGE] for start in range(0, len(page), PAGE)]
    return number


def _page(number: int, kind: int, count: int, body: bytes) -> bytes:
    total = -(-(_HEADER.size + len(body)) // PAGE)
    return (_HEADER.pack(number, kind, count, total - 1) + body).ljust(total * PAGE, b"\0")


def _render_meta(number: int, root: int, end: int) -> bytes:
    meta = _META.pack(MAGIC, VERSION, PAGE, 0, root, 0, 2, end, number)
    return _page(number, META, 0, meta + struct.pack("<Q", _fnv1a(meta)))


def _fnv1a(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value
