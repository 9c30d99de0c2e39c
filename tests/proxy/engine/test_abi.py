"""The ABI gate over tiny ELF files: what is refused, and what an ordinary upgrade may do."""

import io

import pytest

from proxy.engine.abi import check_abi, refuse_broken
from proxy.engine.family import NotRecordable, Package, Payload
from proxy.engine.rootfs import RootFS, extract_layer, scan_layer
from proxy.engine.scan import outline_layer
from proxy.engine.tar import Entry, Kind
from proxy.oci.manifest import OCI_LAYER
from tests.proxy.engine.elves import Sym, make_elf
from tests.proxy.engine.filesystems import Link, make_fs
from tests.simulators.registry import make_layer

LIB = "usr/lib/x86_64-linux-gnu"
X = f"{LIB}/libx.so.1"
C = f"{LIB}/libc.so.6"


def image(*layers):
    """Return the root file system of these layers, with nothing but outlines of libraries kept."""
    blobs = [make_layer(files) for files in layers]
    captures = io.BytesIO()
    indexes = [
        scan_layer(io.BytesIO(blob), OCI_LAYER, keep=lambda _: False, captures=captures, captures_name="c", where="x")
        for blob in blobs
    ]
    kept = captures.getvalue()
    return RootFS(
        indexes,
        lambda span: kept[span.offset : span.offset + span.size],
        lambda place, paths: extract(blobs[place], paths),
        lambda place, paths: outline_layer(io.BytesIO(blobs[place]), OCI_LAYER, paths, where="x"),
    )


def extract(blob, paths):
    out = io.BytesIO()
    found = extract_layer(io.BytesIO(blob), OCI_LAYER, paths, captures=out, captures_name="", where="x")
    return {path: out.getvalue()[span.offset : span.offset + span.size] for path, span in found.items()}


def files(found):
    return tuple(
        Entry(path, Kind.WHITEOUT) if data is None else Entry(path, Kind.FILE, content=data, size=len(data))
        for path, data in found.items()
    )


def library(*symbols, soname="libx.so.1", needed=(), **more):
    return make_elf(soname, symbols=[Sym(*symbol.split("@", 1)) for symbol in symbols], needed=needed, **more)


def program(*symbols, needed=("libx.so.1",), **more):
    return make_elf("", symbols=[Sym(*symbol) for symbol in symbols], needed=needed, **more)


def broken(old, new):
    return [f"{one.path} {one.importer} {one.symbol}" for one in check_abi(image(old), files(new))]


RUN = ("run", "X_1", "libx.so.1")
OLD = {X: library("run@@X_1", "stop@@X_1"), "usr/bin/tool": program(RUN)}


def test_a_library_that_offers_all_it_did_and_more_passes():
    assert broken(OLD, {X: library("run@@X_1", "stop@@X_1", "more@@X_2")}) == []


def test_a_symbol_that_nobody_asks_for_may_go():
    assert broken(OLD, {X: library("run@@X_1")}) == []


def test_a_symbol_that_a_program_imports_may_not_go():
    assert broken(OLD, {X: library("stop@@X_1")}) == [f"{X} usr/bin/tool run@X_1"]


def test_the_reason_names_importer_and_symbol():
    (found,) = check_abi(image(OLD), files({X: library("stop@@X_1")}))
    assert found.reason == "/usr/bin/tool needs run@X_1 of libx.so.1, which the new version does not have"


@pytest.mark.parametrize(
    "path", ["usr/lib/plugins/auth", f"{LIB}/libnss_own.so.2", f"{LIB}/ossl-modules/own.so", "app/addon.node"]
)
def test_plugins_of_any_name_count_as_importers(path):
    old = {X: OLD[X], path: program(RUN)}
    assert broken(old, {X: library("stop@@X_1")}) == [f"{X} {path} run@X_1"]


def test_importers_in_other_layers_count():
    fs = image({X: OLD[X]}, {"usr/bin/tool": OLD["usr/bin/tool"]})
    assert [one.importer for one in check_abi(fs, files({X: library("stop@@X_1")}))] == ["usr/bin/tool"]


def test_what_an_upper_layer_removed_or_replaced_is_no_importer():
    fs = image(OLD, {"usr/bin/.wh.tool": b""})
    assert check_abi(fs, files({X: library("stop@@X_1")})) == ()


def test_an_importer_that_the_patch_replaces_counts_as_it_will_be():
    new = {X: library("stop@@X_1"), "usr/bin/tool": program(("stop", "X_1", "libx.so.1"))}
    assert broken(OLD, new) == []
    assert broken(OLD, {**new, "usr/bin/tool": program(RUN)}) == [f"{X} usr/bin/tool run@X_1"]
    assert broken(OLD, {X: library("stop@@X_1"), "usr/bin/tool": None}) == []


def test_a_weak_import_does_not_count():
    old = {X: OLD[X], "usr/bin/tool": program((*RUN, True))}
    assert broken(old, {X: library("stop@@X_1")}) == []


def test_a_symbol_may_move_to_a_library_that_the_importer_loads_too():
    moved = {X: library("stop@@X_1"), C: library("run@@X_1", soname="libc.so.6")}
    old = {**OLD, C: library("read@@C_1", soname="libc.so.6")}
    alone = {**old, C: library("read@@C_1", soname="libc.so.6")}
    assert broken(alone, moved) == [f"{X} usr/bin/tool run@X_1"]
    direct = {**old, "usr/bin/tool": program(RUN, needed=["libx.so.1", "libc.so.6"])}
    assert broken(direct, moved) == []
    behind = {**moved, X: library("stop@@X_1", needed=["libc.so.6"])}
    assert broken(old, behind) == []


def test_a_version_may_not_go_even_if_its_symbols_moved():
    old = {
        **OLD,
        C: library("read@@C_1", soname="libc.so.6"),
        "usr/bin/tool": program(RUN, needed=["libx.so.1", "libc.so.6"]),
    }
    new = {X: library("stop@@X_2"), C: library("run@@X_1", soname="libc.so.6")}
    assert broken(old, new) == [f"{X} usr/bin/tool version X_1"]


def test_a_soname_that_is_needed_may_not_go():
    new = {X: None, f"{LIB}/libx.so.2": library("run@@X_1", soname="libx.so.2")}
    assert broken(OLD, new) == [f"{X} usr/bin/tool "]
    (found,) = check_abi(image(OLD), files(new))
    assert found.reason == "/usr/bin/tool needs libx.so.1, which the new version does not have"
    assert broken({**OLD, "usr/bin/tool": b"#!/bin/sh\n"}, new) == []


def test_a_library_may_take_another_file_name_under_its_soname():
    old = {f"{LIB}/libx.so.1.2": OLD[X], "usr/bin/tool": OLD["usr/bin/tool"]}
    assert broken(old, {f"{LIB}/libx.so.1.2": None, f"{LIB}/libx.so.1.3": OLD[X]}) == []
    gone = {f"{LIB}/libx.so.1.2": None, f"{LIB}/libx.so.1.3": library("stop@@X_1")}
    assert broken(old, gone) == [f"{LIB}/libx.so.1.2 usr/bin/tool run@X_1"]


@pytest.mark.parametrize("new", [Entry(X, Kind.SYMLINK, target="libx.so.1.3"), Entry(X, Kind.WHITEOUT)])
def test_a_link_that_leads_elsewhere_counts_though_the_old_file_stays(new):
    old = make_fs({f"{LIB}/libx.so.1.2": OLD[X], X: Link("libx.so.1.2"), "usr/bin/tool": OLD["usr/bin/tool"]}, _all)
    data = library("stop@@X_1")
    entries = (Entry(f"{LIB}/libx.so.1.3", Kind.FILE, content=data, size=len(data)), new)
    assert [one.importer for one in check_abi(old, entries)] == (["usr/bin/tool"] if new.target else [])


def _all(_path):
    return True


@pytest.mark.parametrize(("import_version", "refused"), [("", True), ("X_1", False)])
def test_a_default_version_that_became_an_old_one_is_lost_to_those_that_ask_for_none(import_version, refused):
    tool = program(("run", import_version, "libx.so.1" if import_version else ""))
    old = {X: library("run@@X_1", "stop@@X_1", versions=["X_0"]), "usr/bin/tool": tool}
    new = library("run@X_1", "stop@@X_1", versions=["X_0"])
    assert broken(old, {X: new}) == ([f"{X} usr/bin/tool run"] if refused else [])


def test_a_library_without_versions_serves_every_version():
    assert broken({X: library("run", "stop"), "usr/bin/tool": program(("run", "", ""))}, {X: library("stop")}) == [
        f"{X} usr/bin/tool run"
    ]
    assert broken(OLD, {X: library("run", "stop")}) == []


def test_a_plugin_that_leaves_its_libraries_to_the_program_counts():
    old = {X: library("run", "stop"), "usr/lib/plugin": program(("run", "", ""), needed=())}
    assert broken(old, {X: library("stop")}) == [f"{X} usr/lib/plugin run"]
    elsewhere = {X: library("stop"), f"{LIB}/liby.so.1": library("run", soname="liby.so.1")}
    assert broken(old, elsewhere) == []


@pytest.mark.parametrize("runpath", ["$ORIGIN/../lib", "/opt/app/lib"])
def test_an_importer_that_brings_its_own_copy_is_left_alone(runpath):
    old = {X: OLD[X], "opt/app/lib/libx.so.1": OLD[X], "opt/app/bin/tool": program(RUN, runpath=runpath)}
    assert broken(old, {X: library("stop@@X_1")}) == []
    assert broken({**old, "usr/bin/tool": program(RUN)}, {X: library("stop@@X_1")}) == [f"{X} usr/bin/tool run@X_1"]


@pytest.mark.parametrize("form", [{"bits": 32, "machine": 3}, {"machine": 183}, {"order": ">", "machine": 22}])
def test_only_programs_of_the_same_machine_are_importers(form):
    new = {X: library("stop@@X_1")}
    assert broken({X: OLD[X], "usr/bin/tool": program(RUN, **form)}, new) == []
    foreign = {X: library("run@@X_1", "stop@@X_1", **form), "usr/bin/tool": program(RUN, **form)}
    assert broken(foreign, {X: library("stop@@X_1", **form)}) == [f"{X} usr/bin/tool run@X_1"]


def test_damaged_programs_are_passed_over():
    old = {**OLD, "usr/bin/tool": OLD["usr/bin/tool"][:200], "usr/lib/libbad.so": b"\x7fELF" + b"\xff" * 200}
    assert broken(old, {X: library("stop@@X_1")}) == []


def test_programs_that_cannot_be_looked_at_count(monkeypatch):
    fs = image({X: OLD[X], "usr/bin/tool": OLD["usr/bin/tool"][:200]})
    monkeypatch.setattr("proxy.engine.rootfs.FETCH_LIMIT", 100)
    (found,) = check_abi(fs, files({X: library("stop@@X_1")}))
    assert "libx.so.1 lacks symbols of the old version, and who needs them cannot be seen" in found.reason


class Database:
    """Which packages own what."""

    def __init__(self, owners):
        self.owners = owners


def payload(name, *paths):
    return Payload(Package(name, "2", "amd64"), {}, tuple(Entry(path, Kind.FILE) for path in paths))


@pytest.mark.parametrize(
    ("owners", "paths", "blamed"),
    [
        ({X: ("x",)}, ["usr/lib/other"], {"x"}),
        ({}, [X], {"x"}),
        ({}, [f"{LIB}/libx.so.1.2"], {"x"}),
        ({X: ("somebody",)}, ["usr/lib/other"], {"x", "y"}),
    ],
)
def test_the_package_that_brings_the_library_is_refused(owners, paths, blamed):
    payloads = {"x": payload("x", *paths), "y": payload("y", "usr/share/y")}
    with pytest.raises(NotRecordable) as error:
        refuse_broken(image(OLD), Database(owners), payloads, files({X: library("stop@@X_1")}))
    assert set(error.value.reasons) == blamed


def test_a_package_that_would_take_a_needed_library_away_is_not_removed():
    payloads = {"y": payload("y", "usr/share/y")}
    with pytest.raises(NotRecordable) as error:
        refuse_broken(image(OLD), Database({X: ("x",)}), payloads, files({X: None}), {"x"})
    assert set(error.value.reasons) == {"x"}
    refuse_broken(image({X: OLD[X]}), Database({X: ("x",)}), payloads, files({X: None}), {"x"})  # nobody asks for it
