"""Java's keystore of CA certificates, written again by a Java that was told of no change.

Owns the older hook of ca-certificates-java, which runs Java on every update: the same entries come out in the order in
which Java's hash table gives them after they were put in one by one. Refuses (NotReproduced) stores of another format
or password, and images where the hook would arrange NSS' library first.
Format: JKS, https://docs.oracle.com/javase/8/docs/technotes/guides/security/crypto/CryptoSpec.html#KeystoreImplementation
"""

import hashlib
import re
import struct
from collections.abc import Sequence

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind

KEYSTORE = "etc/ssl/certs/java/cacerts"
DEFAULTS = "etc/default/cacerts"
MAX_ENTRIES = 100_000

_HOOK = (b"nsslib_name()", b'if java -Xmx64m -jar $JAR -storepass "$storepass"; then')
_MAGIC = 0xFEEDFEED
_KEY, _CERTIFICATE = 1, 2
_DIGEST = 20  # bytes of SHA-1
_FIRST_SIZE = 11  # of a java.util.Hashtable


def is_keystore_hook(script: bytes) -> bool:
    """Say whether a hook is the one that runs Java itself."""
    return all(part in script for part in _HOOK)


def run_keystore_hook(stage: Stage) -> None:
    """Do to `stage` what the hook would do without a certificate to add or remove; raises NotReproduced."""
    settings = (stage.read(DEFAULTS) or b"").decode("utf-8", "replace")
    if re.findall(r"(?m)^cacerts_updates=['\"]?(\w+)", settings)[-1:] != ["yes"]:
        return
    if stage.follow("usr/share/ca-certificates-java/ca-certificates-java.jar") is None:
        return
    for name in stage.listdir("usr/lib/jvm"):
        config = (stage.read(f"etc/{name.rpartition('-')[0]}/security/nss.cfg") or b"").decode("utf-8", "replace")
        for folder in re.findall(r"(?m)^nssLibraryDirectory\s*=\s*(\S+)", config):
            there = stage.get(f"{folder}/libnss3.so")
            if there is not None and there.kind is not Kind.FILE:
                raise NotReproduced(f"{folder}/libnss3.so would be removed")
    password = re.findall(r"(?m)^storepass=['\"]?([^'\"\n]*)", settings)[-1:] or ["changeit"]
    data = stage.read(KEYSTORE)
    if data is None:
        raise NotReproduced(f"/{KEYSTORE} would be made by Java")
    stage.write(KEYSTORE, rewrite_keystore(data, password[0]))


def rewrite_keystore(data: bytes, password: str) -> bytes:
    """Return a store as Java writes it after reading it; raises NotReproduced for what is no such store."""
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if _sum(body, password) != digest:
        raise NotReproduced(f"/{KEYSTORE} is no JKS store, or has another password")
    magic, version, count = struct.unpack_from(">III", body)
    if magic != _MAGIC or version != 2 or count > MAX_ENTRIES:  # noqa: PLR2004 - the version of every JDK since 1.2
        raise NotReproduced(f"/{KEYSTORE} is a store of another version")
    try:
        entries = _parse(body, count)
    except (struct.error, UnicodeDecodeError) as error:
        raise NotReproduced(f"/{KEYSTORE} is damaged") from error
    written = body[:12] + b"".join(entries[alias] for alias in table_order(list(entries)))
    return written + _sum(written, password)


def table_order(names: Sequence[str]) -> list[str]:
    """Return names in the order in which a java.util.Hashtable enumerates them that were put into it one by one."""
    table: list[list[str]] = [[] for _ in range(_FIRST_SIZE)]
    for count, name in enumerate(names):
        if count >= len(table) * 3 // 4:
            larger: list[list[str]] = [[] for _ in range(len(table) * 2 + 1)]
            for bucket in reversed(table):
                for other in bucket:
                    larger[_place(other, len(larger))].insert(0, other)
            table = larger
        table[_place(name, len(table))].insert(0, name)
    return [name for bucket in reversed(table) for name in bucket]


def _place(name: str, size: int) -> int:
    value = 0
    units = name.encode("utf-16-be", "surrogatepass")
    for (unit,) in struct.iter_unpack(">H", units):
        value = (value * 31 + unit) & 0xFFFFFFFF
    return (value & 0x7FFFFFFF) % size


def _parse(body: bytes, count: int) -> dict[str, bytes]:
    """Return every entry's bytes by its alias."""
    entries: dict[str, bytes] = {}
    at = 12
    for _ in range(count):
        start = at
        (kind, size) = struct.unpack_from(">IH", body, at)
        alias = body[at + 6 : at + 6 + size].decode("utf-8")
        at += 6 + size + 8  # the date
        certificates = 1
        if kind == _KEY:
            at += 4 + struct.unpack_from(">I", body, at)[0]
            (certificates,) = struct.unpack_from(">I", body, at)
            at += 4
        elif kind != _CERTIFICATE:
            raise NotReproduced(f"/{KEYSTORE} has an entry of a kind that is not known")
        for _ in range(min(certificates, MAX_ENTRIES)):
            at += 2 + struct.unpack_from(">H", body, at)[0]
            at += 4 + struct.unpack_from(">I", body, at)[0]
        entries[alias] = body[start:at]
    if at != len(body) or len(entries) != count:
        raise NotReproduced(f"/{KEYSTORE} is damaged")
    return entries


def _sum(body: bytes, password: str) -> bytes:
    return hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body, usedforsecurity=False).digest()
