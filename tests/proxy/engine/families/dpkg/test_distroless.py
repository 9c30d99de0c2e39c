"""What distroless images lack a record of: conffiles as shipped, and stores that builders derive from certificates."""

import io

import pytest

from proxy.engine.families.dpkg.conffiles import decide_conffiles
from proxy.engine.families.dpkg.database import keeps, open_database
from proxy.engine.families.dpkg.scripts import unsupported
from proxy.engine.family import Package, Payload
from proxy.engine.rootfs import RootFS, scan_layer
from proxy.engine.tar import Entry, Kind
from proxy.oci.manifest import OCI_LAYER
from tests.simulators.registry import make_layer

STANZA = b"Package: %s\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n"


def image(*layers):
    """Return the root file system of these layers, each a mapping of path to content."""
    captures = io.BytesIO()
    indexes = []
    for files in layers:
        stream = io.BytesIO(make_layer(files))
        indexes.append(
            scan_layer(stream, OCI_LAYER, keep=keeps, captures=captures, captures_name="captures", where="layer")
        )
    kept = captures.getvalue()
    return RootFS(indexes, lambda span: kept[span.offset : span.offset + span.size])


def payload(name, files, conffiles=()):
    entries = tuple(Entry(path, Kind.FILE, content=data, size=len(data)) for path, data in files.items())
    control = {"control": STANZA % name.encode(), "conffiles": b"".join(b"/%s\n" % path.encode() for path in conffiles)}
    return Payload(Package(name, "2", "amd64"), control, entries)


def decide(fs, new):
    db = open_database(fs)
    return decide_conffiles(fs, db, db.record_of(new.package), new)


BASE = {"var/lib/dpkg/status.d/tool": STANZA % b"tool", "etc/tool.conf": b"old"}
NEW = payload("tool", {"etc/tool.conf": b"new", "usr/bin/tool": b"2"}, ["etc/tool.conf"])


def test_a_conffile_of_the_layer_that_brought_the_package_is_replaced():
    (conffile,) = decide(image(BASE), NEW)
    assert [entry.content for entry in conffile.entries] == [b"new"]
    assert unsupported(image(BASE), open_database(image(BASE)), NEW) == ""


@pytest.mark.parametrize("content", [b"changed", b"old"])
def test_a_conffile_that_a_later_layer_brought_is_kept(content):
    fs = image(BASE, {"etc/tool.conf": content})
    (conffile,) = decide(fs, NEW)
    assert conffile.entries == ()
    assert conffile.reason == ""
    assert unsupported(fs, open_database(fs), NEW) == ""


def test_a_conffile_that_the_builder_left_out_stays_out():
    (conffile,) = decide(image({"var/lib/dpkg/status.d/tool": STANZA % b"tool"}), NEW)
    assert conffile.entries == ()


@pytest.mark.parametrize("store", ["etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/java/cacerts"])
def test_certificates_whose_bundle_would_go_stale_are_skipped_with_the_reason(store):
    new = payload("ca-certificates", {"usr/share/ca-certificates/mozilla/A.crt": b"A"})
    record = {"var/lib/dpkg/status.d/ca-certificates": STANZA % b"ca-certificates"}
    fs = image({**record, store: b"bundle"})
    assert f"/{store} was made from its certificates" in unsupported(fs, open_database(fs), new)
    bare = image(record)
    assert unsupported(bare, open_database(bare), new) == ""
