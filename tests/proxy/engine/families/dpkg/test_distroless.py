"""What distroless images lack a record of: conffiles as shipped, and stores that builders derive from certificates."""

import io

import pytest

from proxy.engine.families.dpkg.conffiles import decide_simple_conffiles, md5_of
from proxy.engine.families.dpkg.database import keeps, open_database
from proxy.engine.families.dpkg.judge import judge
from proxy.engine.families.dpkg.ldcache import Cached, LinkerCache, parse_linker_cache, render_linker_cache
from proxy.engine.families.dpkg.record import record_upgrade
from proxy.engine.family import Effect, Judgement, Package, Payload
from proxy.engine.rootfs import RootFS, scan_layer
from proxy.engine.tar import Entry, Kind
from proxy.oci.manifest import OCI_LAYER
from tests.proxy.engine.filesystems import Link, make_fs
from tests.proxy.engine.test_elf import shared_object
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
    return tuple(decide_simple_conffiles(fs, db, db.record_of(new.package), new))


BASE = {"var/lib/dpkg/status.d/tool": STANZA % b"tool", "etc/tool.conf": b"old"}
NEW = payload("tool", {"etc/tool.conf": b"new", "usr/bin/tool": b"2"}, ["etc/tool.conf"])


def test_a_conffile_of_the_layer_that_brought_the_package_is_replaced():
    (conffile,) = decide(image(BASE), NEW)
    assert [entry.content for entry in conffile.entries] == [b"new"]
    assert judge(image(BASE), open_database(image(BASE)), NEW).reason == ""


@pytest.mark.parametrize("content", [b"changed", b"old"])
def test_a_conffile_that_a_later_layer_brought_is_kept_with_a_note(content):
    fs = image(BASE, {"etc/tool.conf": content})
    (conffile,) = decide(fs, NEW)
    assert conffile.entries == ()
    judgement = judge(fs, open_database(fs), NEW)
    assert (judgement.reason, judgement.effect) == ("", Effect.NONE)
    assert judgement.notes == ("its conffile /etc/tool.conf was changed in another layer and is kept",)


def test_a_conffile_that_the_builder_left_out_stays_out():
    (conffile,) = decide(image({"var/lib/dpkg/status.d/tool": STANZA % b"tool"}), NEW)
    assert conffile.entries == ()


CERTIFICATES = "usr/share/ca-certificates/mozilla"
BUNDLE = "etc/ssl/certs/ca-certificates.crt"
OLD_FILES = {"B.crt": b"b\n", "a.crt": b"a", "c.crt": b"c\n"}
NEW_FILES = {"B.crt": b"b\n", "a.crt": b"A", "d.crt": b"d\n"}
RECORD = "var/lib/dpkg/status.d/ca-certificates"


def certificates(bundle):
    sums = b"".join(b"%s  %s/%s\n" % (b"0" * 32, CERTIFICATES.encode(), name.encode()) for name in OLD_FILES)
    files = {f"{CERTIFICATES}/{name}": data for name, data in OLD_FILES.items()}
    return {RECORD: STANZA % b"ca-certificates", f"{RECORD}.md5sums": sums, **files, BUNDLE: bundle}


NEW_CERTIFICATES = payload("ca-certificates", {f"{CERTIFICATES}/{name}": data for name, data in NEW_FILES.items()})


def upgrade(fs, new):
    db = open_database(fs)
    judgement = judge(fs, db, new)
    return judgement, {entry.path: entry for entry in record_upgrade(fs, db, (new,))}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"b\nac\n", b"b\nAd\n"),  # in the order of bytes, as they are
        (b"b\na\nc\n", b"b\nA\nd\n"),  # with the newline that one of them lacks
        (b"a\nb\nc\n", b"A\nb\nd\n"),  # in the order of a dictionary
        (b"b\n\na\n\nc\n\n", b"b\n\nA\n\nd\n\n"),  # with an empty line after each
    ],
)
def test_a_bundle_is_made_again_by_the_recipe_that_made_it(old, new):
    judgement, entries = upgrade(image(certificates(old)), NEW_CERTIFICATES)
    assert (judgement.reason, judgement.effect) == ("", Effect.REPRODUCED)
    assert entries[BUNDLE].content == new
    assert entries[f"{CERTIFICATES}/c.crt"].kind is Kind.WHITEOUT


@pytest.mark.parametrize("bundle", [b"b\na\nc\nown\n", b"c\nb\na\n", b"", b"b\na\n"])
def test_a_bundle_that_nobody_knows_how_to_make_skips_the_package(bundle):
    fs = image(certificates(bundle))
    assert "not recognized how" in judge(fs, open_database(fs), NEW_CERTIFICATES).reason


def test_a_bundle_without_its_certificates_skips_the_package():
    fs = image({RECORD: STANZA % b"ca-certificates", BUNDLE: b"b\na\nc\n"})
    assert f"/{BUNDLE} was made" in judge(fs, open_database(fs), NEW_CERTIFICATES).reason


def test_a_certificate_of_the_users_own_among_them_skips_the_package():
    fs = image(certificates(b"b\na\nc\n"), {f"{CERTIFICATES}/own.crt": b"x\n", BUNDLE: b"b\na\nc\nx\n"})
    assert "not recognized how" in judge(fs, open_database(fs), NEW_CERTIFICATES).reason


@pytest.mark.parametrize(
    "store", ["etc/ssl/certs/java/cacerts", "etc/ssl/certs/0a775a30.0", "usr/lib/jvm/java-17/lib/security/cacerts"]
)
def test_other_stores_of_certificates_skip_the_package(store):
    fs = image({**certificates(b"b\na\nc\n"), store: b"store"})
    assert "that is not reproduced yet" in judge(fs, open_database(fs), NEW_CERTIFICATES).reason


def test_certificates_without_any_store_are_only_files():
    fs = image({RECORD: STANZA % b"ca-certificates"})
    assert judge(fs, open_database(fs), NEW_CERTIFICATES) == Judgement()


DISTROLESS = b'PRETTY_NAME="Distroless"\nID=debian\nVERSION_ID="12"\n'
DEBIAN = b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
BASE_FILES = "var/lib/dpkg/status.d/base"


def sums_of(path, data):
    return b"%s  %s\n" % (md5_of(data).encode(), path.encode())


@pytest.mark.parametrize("listed", [True, False])
def test_the_builders_own_os_release_is_kept_with_a_note(listed):
    files = {BASE_FILES: STANZA % b"base-files", "usr/lib/os-release": DISTROLESS}
    if listed:
        files[f"{BASE_FILES}.md5sums"] = sums_of("usr/lib/os-release", DEBIAN)
    new = payload("base-files", {"usr/lib/os-release": DEBIAN, "usr/share/base-files/motd": b"2"})
    judgement, entries = upgrade(image(files), new)
    assert judgement.notes == ("/usr/lib/os-release is not the package's own in this image and is kept",)
    assert "usr/lib/os-release" not in entries
    assert "usr/share/base-files/motd" in entries


def test_the_packages_own_os_release_moves_with_it():
    sums = sums_of("usr/lib/os-release", DEBIAN)
    files = {BASE_FILES: STANZA % b"base-files", "usr/lib/os-release": DEBIAN, f"{BASE_FILES}.md5sums": sums}
    judgement, entries = upgrade(image(files), payload("base-files", {"usr/lib/os-release": DEBIAN + b"# 2\n"}))
    assert judgement == Judgement()
    assert "usr/lib/os-release" in entries


def test_a_copied_time_zone_skips_tzdata():
    record = {"var/lib/dpkg/status.d/tzdata": STANZA % b"tzdata"}
    new = payload("tzdata", {"usr/share/zoneinfo/Etc/UTC": b"TZif3"})
    copied = image({**record, "etc/localtime": b"TZif2", "usr/share/zoneinfo/Etc/UTC": b"TZif2"})
    assert "/etc/localtime is a copy" in judge(copied, open_database(copied), new).reason
    linked = make_fs({**record, "etc/localtime": Link("/usr/share/zoneinfo/Etc/UTC")}, keeps)
    assert judge(linked, open_database(linked), new).reason == ""
    gone = make_fs({**record, "etc/localtime": Link("/usr/share/zoneinfo/US/Old")}, keeps)
    assert "does not have" in judge(gone, open_database(gone), new).reason


def test_a_linker_cache_is_made_again_from_the_new_libraries():
    folder = "usr/lib/x86_64-linux-gnu"
    known = LinkerCache((Cached("libtool.so.1", f"/{folder}/libtool.so.1", 0x303),), "ldconfig x")
    files = {**BASE, "etc/ld.so.cache": render_linker_cache(known), f"{folder}/libtool.so.1": bytes(2000)}
    fs = image(files)
    db = open_database(fs)
    new = payload("tool", {f"{folder}/libtool.so.2": shared_object("libtool.so.2")})
    assert judge(fs, db, new).reason == ""
    entries = {entry.path: entry for entry in record_upgrade(fs, db, [new])}
    written = parse_linker_cache(entries["etc/ld.so.cache"].content)
    assert [entry.soname for entry in written.entries] == ["libtool.so.2", "libtool.so.1"]
    assert written.generator == "ldconfig x"


def test_a_linker_cache_of_a_form_that_is_not_known_skips_the_library():
    old = LinkerCache((Cached("libtool.so.1", "/lib/libtool.so.1", 0x303, hwcap=4),))
    fs = image({**BASE, "etc/ld.so.cache": render_linker_cache(old)})
    assert "hardware" in judge(fs, open_database(fs), payload("tool", {"usr/lib/x": b"2"})).reason
