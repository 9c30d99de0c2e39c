import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.blobs import BlobStore
from proxy.errors import ResourceExhausted, TrustFailure
from proxy.oci.digest import Digest

MIB = 1 << 20


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def files(store: BlobStore) -> list[str]:
    return sorted(path.name for path in (store.root / "blobs").rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store", 100 * MIB)


async def test_an_ingested_blob_has_its_bytes_under_its_digest(store: BlobStore) -> None:
    digest = Digest.of(b"hello world")
    path = await store.ingest(digest, 11, stream(b"hello ", b"world"), "here", 100)
    assert path.read_bytes() == b"hello world"
    assert path == store.root / "blobs" / "sha256" / digest.hex
    assert store.has(digest)
    assert store.has(digest, 11)
    assert not store.has(digest, 12)
    assert store.used == 11


@pytest.mark.parametrize(
    ("size", "limit", "text"),
    [(11, 100, "digest is"), (10, 100, "longer than"), (12, 100, "announced"), (None, 5, "longer than")],
)
async def test_a_wrong_digest_or_size_leaves_nothing(store: BlobStore, size: int | None, limit: int, text: str) -> None:
    with pytest.raises(TrustFailure, match=text):
        await store.ingest(Digest.of(b"other words"), size, stream(b"hello ", b"world"), "here", limit)
    assert files(store) == []
    assert store.used == 0
    assert store.room_for(100 * MIB) == 0


async def test_a_cancelled_or_broken_stream_leaves_nothing(store: BlobStore) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"x" * (2 * MIB)
        await asyncio.sleep(3600)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError

    task = asyncio.create_task(store.ingest(Digest.of(b"x"), None, stuck(), "here", 100 * MIB))
    await asyncio.sleep(0.05)
    assert len(files(store)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ConnectionResetError):
        await store.ingest(Digest.of(b"x"), None, broken(), "here", 100)
    assert files(store) == []
    assert store.room_for(100 * MIB) == 0


async def test_two_ingests_of_one_digest_read_one_stream(store: BlobStore) -> None:
    read = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        await asyncio.sleep(0.01)
        yield b"shared"

    digest = Digest.of(b"shared")
    paths = await asyncio.gather(*(store.ingest(digest, 6, counted(), "here", 100) for _ in range(5)))
    assert read == 1
    assert len(set(paths)) == 1


async def test_a_second_ingest_goes_on_when_the_first_is_cancelled(store: BlobStore) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        await asyncio.sleep(3600)
        yield b""

    digest = Digest.of(b"shared")
    first = asyncio.create_task(store.ingest(digest, 6, stuck(), "here", 100))
    await asyncio.sleep(0)
    second = asyncio.create_task(store.ingest(digest, 6, stream(b"shared"), "here", 100))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).read_bytes() == b"shared"


async def test_the_least_recently_used_unpinned_blob_goes_first(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, 30)
    a, b, c, d = [await store.put_bytes(bytes([n]) * 10) for n in range(3)] + [Digest.of(b"d" * 10)]
    store.path(a)
    with store.pin([b]):
        await store.put_bytes(b"d" * 10)
    assert [store.has(x) for x in (a, b, c, d)] == [True, True, False, True]
    with store.pin([a, b, d]), pytest.raises(ResourceExhausted, match="30 of 30 are in use"):
        await store.put_bytes(b"e")
    assert store.used == 30


async def test_the_order_of_use_survives_a_restart(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, 30)
    digests = [await store.put_bytes(bytes([n]) * 10) for n in range(3)]
    await asyncio.sleep(0.01)
    store.path(digests[0])
    again = BlobStore(tmp_path, 30)
    await again.put_bytes(b"d" * 10)
    assert [again.has(x) for x in digests] == [True, False, True]


async def test_a_store_that_may_not_evict_refuses_instead(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, 10, evict=False)
    first = await store.put_bytes(b"x" * 10)
    with pytest.raises(ResourceExhausted, match="max_bytes"):
        await store.ingest(Digest.of(b"yy"), None, stream(b"y", b"y"), "here", 10)
    assert files(store) == [first.hex]


async def test_adopt_checks_the_digest_and_takes_the_file(store: BlobStore, tmp_path: Path) -> None:
    file = tmp_path / "layer"
    file.write_bytes(b"layer")
    with pytest.raises(TrustFailure):
        await store.adopt(file, Digest.of(b"other"), 5)
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(OSError, match="symbolic"):
        await store.adopt(link, Digest.of(b"layer"), 5)
    path = await store.adopt(file, Digest.of(b"layer"), 5)
    assert path.read_bytes() == b"layer"
    assert not file.exists()


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    folder = elsewhere / f"admend-test-{os.getpid()}"
    yield folder
    shutil.rmtree(folder)


async def test_a_blob_is_linked_from_another_store(store: BlobStore, tmp_path: Path) -> None:
    other = BlobStore(tmp_path / "other", MIB)
    digest = await other.put_bytes(b"layer")
    path = await store.link_from(other, digest)
    assert path.samefile(other.path(digest))
    with pytest.raises(FileNotFoundError):
        await store.link_from(other, Digest.of(b"absent"))


async def test_a_blob_is_copied_from_another_disk(store: BlobStore, other_disk: Path) -> None:
    far = BlobStore(other_disk, MIB)
    digest = await store.put_bytes(b"layer")
    assert (await far.link_from(store, digest)).read_bytes() == b"layer"
    assert files(far) == [digest.hex]


def test_leftovers_of_dead_processes_are_swept_and_live_ones_kept(store: BlobStore) -> None:
    code = (
        "import sys; from pathlib import Path; from proxy.blobs import BlobStore\n"
        "up = BlobStore(Path(sys.argv[1]), 100).upload(100)\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        BlobStore(store.root, 100)
        assert len(files(store)) == 1
        child.kill()
    BlobStore(store.root, 100)
    assert files(store) == []


async def test_a_sha512_blob_is_stored_and_an_upload_may_name_one_at_its_end(store: BlobStore) -> None:
    import hashlib  # noqa: PLC0415

    digest = Digest("sha512", hashlib.sha512(b"x").hexdigest())
    upload = store.upload(10)
    await upload.append(b"x")
    assert await upload.commit(digest) == digest
    upload.close()
    assert store.has(digest, 1)
    assert BlobStore(store.root, 100).has(digest, 1)


def test_a_store_of_ten_thousand_blobs_opens_fast(tmp_path: Path) -> None:
    folder = tmp_path / "blobs" / "sha256"
    folder.mkdir(parents=True)
    for number in range(10_000):
        (folder / f"{number:064x}").touch()
    start = time.perf_counter()
    store = BlobStore(tmp_path, 100)
    assert time.perf_counter() - start < 2
    assert len(store) == 10_000


async def test_a_full_disk_is_named_and_leaves_nothing(tiny_disk: Path) -> None:
    store = BlobStore(tiny_disk, 100 * MIB)
    data = os.urandom(2 * MIB)
    with pytest.raises(ResourceExhausted, match="is full: free space there"):
        await store.ingest(Digest.of(data), len(data), stream(data), "here", len(data))
    assert files(store) == []
    assert store.room_for(100 * MIB) == 0
    assert store.has(await store.put_bytes(b"small"))
