"""What the command says to bad input: what is wrong, where, and what to do; and that nothing half-done is left.

Every case runs the real command against a registry and a package source on loopback, then a good image, which must
still be patched.
"""

import asyncio
import gzip
import json
import sys
from dataclasses import replace

import pytest

from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_LAYER, render_json
from tests.end_to_end.command import admend, patch
from tests.simulators.debian_source import Deb
from tests.simulators.registry import make_layer
from tests.simulators.world import FIXED, make_packages, make_rootfs
from tests.tars import tree

MISSING = "team/missing:1"


def files_of(world):
    """Return what lies under final names in DEST and in the cache, scratch names of killed writers left out."""
    return {str(path.relative_to(world.folder)) for path in world.folder.rglob("*") if path.is_file()}


def put_layer(world, raw, *, diff_id=None, name="team/bad", media=f"{OCI_LAYER}+gzip", system="linux"):
    """Put an image with one layer blob as it is given."""
    layer = world.upstream.add_blob(name, raw, media)
    diff = diff_id or Digest.of(b"")
    config = {"architecture": "amd64", "os": system, "rootfs": {"type": "layers", "diff_ids": [str(diff)]}}
    descriptor = world.upstream.add_blob(name, render_json(config), "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "config": descriptor.to_json(), "layers": [layer.to_json()]}
    world.upstream.add_manifest(name, render_json(manifest), tag="1")
    return f"{world.upstream.host}/{name}:1"


def tricky(world, tar):
    """Put an image whose layer is this tar, with the true diff_id."""
    return put_layer(world, gzip.compress(tar, mtime=0), diff_id=Digest.of(tar))


def fault(world, **faults):
    image = world.add_image()
    world.upstream.faults = replace(world.upstream.faults, **faults)
    return image


def source_fault(world, name):
    world.publish(FIXED, fault=name)
    return world.add_image()


def good_layer():
    return make_layer(make_rootfs(make_packages("1.0-1")))


def push_index(world):
    world.push_index("team/multi", "1")
    return f"{world.upstream.host}/team/multi:1"


REFUSALS = {
    "nobody listens": (lambda w: "127.0.0.1:1/team/app:1", 1, ["127.0.0.1:1", "cannot be reached"]),
    "no such host": (lambda w: "registry.invalid/team/app:1", 1, ["registry.invalid", "does not"]),
    "no such image": (lambda w: f"{w.upstream.host}/{MISSING}", 1, ["team/missing", "is not in the registry"]),
    "401": (lambda w: fault(w, auth="basic"), 1, ["401", "docker"]),
    "wrong manifest": (lambda w: fault(w, wrong_manifest=True), 1, ["digest", "refused"]),
    "wrong blob": (lambda w: fault(w, wrong_blob=True), 1, ["digest", "refused"]),
    "short blob": (lambda w: fault(w, short_blob=True), 1, ["bytes"]),
    "truncated gzip": (
        lambda w: put_layer(w, gzip.compress(good_layer(), mtime=0)[:-40], diff_id=Digest.of(good_layer())),
        1,
        ["layer sha256:", "cut short"],
    ),
    "not the layer of the config": (
        lambda w: put_layer(w, gzip.compress(good_layer(), mtime=0)),
        1,
        ["layer sha256:", "the image's config says", "refused"],
    ),
    "a path that climbs out": (lambda w: tricky(w, tree("f ../../escaped x")), 1, ["layer sha256:", ".."]),
    "a hard link to nothing": (lambda w: tricky(w, tree("h usr/bin/x no/such")), 1, ["no/such"]),
    "no database": (lambda w: tricky(w, tree("f app binary")), 3, ["no package database"]),
    "absolute names and devices": (lambda w: tricky(w, tree("f /abs x", "c dev/null")), 3, ["no package database"]),
    "windows": (lambda w: put_layer(w, gzip.compress(tree("f x y")), system="windows"), 3, ["windows", "Linux"]),
    "bad signature": (lambda w: source_fault(w, "bad-signature"), 1, ["bookworm", "signature"]),
    "foreign key": (lambda w: source_fault(w, "foreign-key"), 1, ["bookworm", "key"]),
    "wrong codename": (lambda w: source_fault(w, "wrong-codename"), 1, ["asked for bookworm", "refused"]),
    "expired": (lambda w: source_fault(w, "expired"), 1, ["bookworm", "expired"]),
    "wrong index": (lambda w: source_fault(w, "wrong-hash"), 1, ["binary-amd64", "expected", "refused"]),
    "wrong package": (lambda w: source_fault(w, "wrong-deb"), 1, [".deb", "refused"]),
    "a private address": (lambda w: "localhost.localdomain:1/x:1", 1, ["localhost.localdomain"]),
    "no such platform": (push_index, 1, ["linux/s390x", "it has linux/amd64"]),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_bad_input_ends_with_a_clear_message_and_leaves_nothing(world, name):
    prepare, expected, words = REFUSALS[name]
    image = prepare(world)
    more = ["--platform", "linux/s390x"] if name == "no such platform" else []
    code, out, err = await patch(world, image, *more)
    told = out + err
    assert code == expected, told
    assert "Traceback" not in told
    assert "never retrieved" not in told
    for word in words:
        assert word in told, f"{name}: {word!r} is not in: {told}"
    assert not (world.folder / "out").exists()
    assert not any("escaped" in name or name.startswith("abs") for name in files_of(world))
    world.upstream.faults = type(world.upstream.faults)()
    world.publish(FIXED)
    code, out, err = await patch(world, world.add_image())
    assert (code, "patched" in out) == (0, True), out + err
    assert (world.folder / "out" / "index.json").exists()


@pytest.mark.parametrize("name", ["no such image", "bad signature", "no database", "windows"])
async def test_json_is_one_document_whatever_happens(world, name):
    prepare, expected, _ = REFUSALS[name]
    code, out, _err = await patch(world, prepare(world), "--json")
    document = json.loads(out)
    assert code == expected
    assert document["outcome"] == ("failed" if expected == 1 else "unsupported")
    assert document["reason"]


async def test_sources_that_an_image_may_not_choose_are_skipped_and_named(world):
    lists = (
        b"deb file:/srv/packages bookworm main\n"
        b"deb http://evil.invalid/debian bookworm main\n"
        b"deb [trusted=yes] http://user:secret@evil.invalid/other bookworm main\n"
    )
    proxies = b'Acquire::http::Proxy "http://evil.invalid:3128";\n'
    more = {"etc/apt/sources.list": lists, "etc/apt/apt.conf.d/01proxy": proxies}
    layer = make_layer(make_rootfs(make_packages("1.0-1"), more))
    world.upstream.add_image("team/apt", "1", [layer])
    code, out, err = await patch(world, f"{world.upstream.host}/team/apt:1", "--json")
    assert code == 0, out + err
    platform = json.loads(out)["platforms"][0]
    assert platform["outcome"] == "patched"
    reasons = " | ".join(skip["reason"] for skip in platform["skipped"] if not skip["package"])
    for words in ("file:/srv/packages", "evil.invalid/debian", "evil.invalid/other", "roxy"):
        assert words in reasons
    assert "secret" not in out + err


async def test_a_package_that_lies_about_itself_is_refused(world):
    lying = Deb("demo", "9.9-9", "amd64")
    real = make_packages(FIXED)[1:]
    world.publish(FIXED)
    path = next(name for name in world.source.files if name.endswith(f"/demo_{FIXED}_amd64.deb"))
    assert real
    assert lying.version not in path
    world.source.files[path] = world.source.files[path][:-100]
    code, out, err = await patch(world, world.add_image())
    assert code == 1, out
    assert "demo" in err
    assert "refused" in err


@pytest.mark.parametrize(
    ("arguments", "expected", "words"),
    [
        (["patch", "reg.invalid/UPPER/case:1"], 2, "lower case"),
        (["patch", "oci:/no/such/folder"], 1, "/no/such/folder"),
        (["patch", "team/app:1", "--platform", "linux"], 2, "os/architecture"),
        (["patch", "oci:x", "-r", "no-such-report.json", "-o", "oci:y"], 1, "no-such-report.json"),
        (["patch", "oci:x", "-o", "oci:y", "--key", "k.pem"], 1, "k.pem"),
        (["patch", "oci:x", "--config", "none.yaml"], 2, "none.yaml"),
        (["verify", "oci:x", "--key", "k.pem"], 3, "registries"),
        (["frobnicate"], 2, "invalid choice"),
        ([], 2, "required"),
    ],
)
async def test_a_wrong_call_says_what_is_wrong(world, arguments, expected, words):
    code, out, err = await admend(world, *arguments)
    assert code == expected, out + err
    assert words in err
    assert "Traceback" not in err


async def test_output_to_a_closed_pipe_is_no_traceback(world):
    image = world.add_image()
    command = f"{sys.executable} -m proxy.cli inspect {image} --config proxy.json | true"
    process = await asyncio.create_subprocess_shell(command, stderr=asyncio.subprocess.PIPE, cwd=world.folder)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert b"Traceback" not in err
    assert b"BrokenPipe" not in err


async def test_a_cache_folder_that_cannot_be_made_is_named(world):
    (world.folder / "proxy").write_text("a file where the folder would be")
    code, _, err = await patch(world, world.add_image())
    assert code == 1
    assert "proxy/cache" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["patch", "reg.invalid/UPPER/case:1"], "lower case"),
        (["patch", "team/app:1", "--platform", "linux"], "os/architecture"),
        (["patch", "team/app:1", "--scope", "some"], "invalid choice"),
        (["patch", "team/app:1", "--unknown-scripts", "run"], "invalid choice"),
        (["patch"], "IMAGE"),
    ],
)
async def test_a_wrong_call_is_one_document_with_json(world, arguments, words):
    code, out, _ = await admend(world, *arguments, "--json")
    document = json.loads(out)
    assert (code, document["outcome"], document["error"]) == (2, "failed", "usage")
    assert words in document["reason"]


async def test_a_destination_that_cannot_be_written_is_named(world):
    (world.folder / "file").write_text("a file where the folder would be")
    code, out, err = await admend(world, "patch", world.add_image(), "-o", "oci:file/out:x", "--config", "proxy.json")
    assert (code, out) == (1, "")
    assert "file/out" in err
    assert "Traceback" not in err


async def test_the_scope_security_moves_what_security_sources_fix(world):
    code, out, err = await patch(world, world.add_image(), "--scope", "security", "--json")
    assert code == 0, err
    assert {item["package"] for item in json.loads(out)["platforms"][0]["upgrades"]} == {"demo", "libdemo1"}
