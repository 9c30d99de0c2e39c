"""Java's keystore, written again: entries in the order that OpenJDK gave them."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.keystore import (
    KEYSTORE,
    is_keystore_hook,
    rewrite_keystore,
    run_keystore_hook,
    table_order,
)
from proxy.engine.stage import Stage
from tests.proxy.engine.filesystems import Link, make_fs
from tests.support import REPOSITORY

RECORDED = REPOSITORY / "tests/data/java-hashtable-order.txt"
JAR = "usr/share/ca-certificates-java/ca-certificates-java.jar"


def store(names: list[str], password: str = "changeit", *, key: str = "") -> bytes:
    body = struct.pack(">III", 0xFEEDFEED, 2, len(names))
    for name in names:
        certificate = struct.pack(">H", 5) + b"X.509" + struct.pack(">I", len(name.encode())) + name.encode()
        head = struct.pack(">IH", 1 if name == key else 2, len(name.encode())) + name.encode() + struct.pack(">Q", 77)
        private = struct.pack(">I", 3) + b"key" + struct.pack(">I", 1) if name == key else b""
        body += head + private + certificate
    return body + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()


def test_the_order_is_the_one_that_openjdk_wrote() -> None:
    lines = [line.split() for line in RECORDED.read_text().splitlines() if not line.startswith("#")]
    names, places = [name for name, _ in lines], {int(place): name for name, place in lines}
    assert table_order(names) == [places[number] for number in range(len(names))]
    assert table_order(names) != names
    assert rewrite_keystore(store(names), "changeit") == store(table_order(names))


def test_a_store_with_a_key_of_its_own_survives() -> None:
    assert rewrite_keystore(store(["a", "own"], key="own"), "changeit") == store(table_order(["a", "own"]), key="own")


def test_the_hook_writes_the_store_again_where_it_is_switched_on() -> None:
    names = [f"debian:{number}.pem" for number in range(40)]
    files: dict[str, bytes | Link] = {"etc/default/cacerts": b"cacerts_updates=yes\n", JAR: b"", KEYSTORE: store(names)}
    stage = Stage(make_fs(files, lambda _: True))
    run_keystore_hook(stage)
    assert stage.read(KEYSTORE) == store(table_order(names)) != store(names)
    for other in ({"etc/default/cacerts": b"cacerts_updates=no\n"}, {JAR.replace("jar", "x"): b""}):
        left = {path: data for path, data in {**files, **other}.items() if path != JAR or JAR not in other}
        if "etc/default/cacerts" not in other:
            del left[JAR]
        stage = Stage(make_fs(left, lambda _: True))
        run_keystore_hook(stage)
        assert stage.entries() == ()
    nss = {"usr/lib/jvm/java-11-openjdk-amd64/x": b"", "opt/nss/libnss3.so": Link("/usr/lib/libnss3.so")}
    config = {"etc/java-11-openjdk/security/nss.cfg": b"nssLibraryDirectory = /opt/nss\n"}
    with pytest.raises(NotReproduced, match="libnss3"):
        run_keystore_hook(Stage(make_fs({**files, **nss, **config}, lambda _: True)))


@pytest.mark.parametrize("data", [b"", store(["a"], "other"), store(["a"])[:-1] + b"\0", store(["a", "a"])])
def test_a_store_that_java_would_not_read_is_refused(data: bytes) -> None:
    with pytest.raises(NotReproduced):
        rewrite_keystore(data, "changeit")


@given(st.binary(max_size=80))
def test_a_damaged_store_is_refused_and_nothing_else(noise: bytes) -> None:
    body = struct.pack(">III", 0xFEEDFEED, 2, 2) + noise
    signed = body + hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()
    with pytest.raises(NotReproduced):
        rewrite_keystore(signed, "changeit")


def test_only_the_older_hook_is_known() -> None:
    hook = b'nsslib_name()\n{\n}\nif java -Xmx64m -jar $JAR -storepass "$storepass"; then\n:; fi\n'
    assert is_keystore_hook(hook)
    assert not is_keystore_hook(b"java -jar x")
