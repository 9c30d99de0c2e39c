"""Real Debian images, patched: syft, trivy, podman and chroot say what is in them afterwards.

`distroless` keeps its packages in `status.d` and has no shell; `minbase` is a whole Debian. Both are of the release
suite, pushed to docker-registry by skopeo, patched there by a proxy from the machine's own archive.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from proxy.api import Outcome, ResolveRequest, ResolveResponse
from proxy.config import ListenConfig, MirrorConfig, ProxyConfig, UpstreamConfig
from proxy.serve import Proxy
from tests.bbolt import render_bbolt
from tests.end_to_end.debian import CACHE, distroless, minbase, sources
from tests.end_to_end.tools import docker_registry, free_port, run
from tests.support import require_root

pytestmark = [pytest.mark.interop, pytest.mark.archive, pytest.mark.asyncio(loop_scope="module")]

SYFT = {"SYFT_CHECK_FOR_APP_UPDATE": "false", "SYFT_REGISTRY_INSECURE_USE_HTTP": "true"}
FAR = "2099-01-01T00:00:00Z"
CONTAINERS = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@dataclass(frozen=True)
class Pair:
    """An image before and after: references that tools can pull, and what the proxy said."""

    original: str
    patched: str
    answer: ResolveResponse

    @property
    def before(self) -> dict[str, str]:
        return {item.package: item.from_version for item in self.answer.upgrades}

    @property
    def after(self) -> dict[str, str]:
        return {item.package: item.to_version for item in self.answer.upgrades}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["distroless", "minbase"])
async def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    layout = await (distroless() if request.param == "distroless" else minbase())
    folder = tmp_path_factory.mktemp(request.param)
    async with docker_registry(folder / "upstream") as upstream:
        image = f"{upstream}/debian/{request.param}:1"
        await run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:it", f"docker://{image}")
        port = free_port()
        config = ProxyConfig(
            listen=ListenConfig(port=port),
            mirror=MirrorConfig(reference=f"127.0.0.1:{port}", path=folder / "mirror"),
            upstream=UpstreamConfig(private=("127.0.0.1",)),
            sources=sources(),
            signing_key=folder / "signing.pem",
            cache=CACHE / "proxy",
        )
        async with Proxy(config) as proxy:
            answer = await proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=240))
            assert answer.outcome is Outcome.PATCHED, answer.reason
            yield Pair(image, answer.patched, answer)


async def test_openssl_and_libssl_move(pair: Pair) -> None:
    assert {"openssl", "libssl3"} <= {package.partition(":")[0] for package in pair.before}
    assert all(pair.before[package] != pair.after[package] for package in pair.before)


async def test_syft_lists_the_old_versions_before_and_the_new_ones_after(pair: Pair) -> None:
    for image, wanted in ((pair.original, pair.before), (pair.patched, pair.after)):
        document = json.loads(await run("syft", "-q", "-o", "json", f"registry:{image}", env=SYFT))
        found = {item["name"]: item["version"] for item in document["artifacts"] if item["type"] == "deb"}
        assert versions_in(found, wanted) == wanted


def versions_in(found: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Return what a scanner found of the packages that are wanted; a scanner leaves architectures out of names."""
    return {package: found[package.partition(":")[0]] for package in wanted}


async def trivy(image: str, database: Path) -> dict[str, list[dict]]:
    """Return trivy's packages and vulnerabilities of the operating system."""
    options = ("--cache-dir", database, "--skip-db-update", "--skip-java-db-update", "--offline-scan", "-q")
    what = ("--scanners", "vuln", "--pkg-types", "os", "--list-all-pkgs", "--format", "json")
    document = json.loads(await run("trivy", "image", "--image-src", "remote", "--insecure", *options, *what, image))
    (result,) = [item for item in document["Results"] if item["Class"] == "os-pkgs"]
    return {"packages": result["Packages"], "vulnerabilities": result.get("Vulnerabilities") or []}


def write_database(cache: Path, fixed: Mapping[str, str]) -> None:
    """Write a database in which every source package has one CVE, fixed in the version that is given."""
    cves = {name: f"CVE-2099-{number:04}" for number, name in enumerate(sorted(fixed), 1)}
    tree = {
        "data-source": {"debian 12": json.dumps({"ID": "debian", "Name": "made by hand", "URL": ""}).encode()},
        "debian 12": {
            name: {cves[name]: json.dumps({"FixedVersion": version}).encode()} for name, version in fixed.items()
        },
        "vulnerability": {cve: json.dumps({"Title": cve, "Severity": "HIGH"}).encode() for cve in cves.values()},
    }
    (cache / "db").mkdir(parents=True)
    (cache / "db" / "trivy.db").write_bytes(render_bbolt(tree))
    dates = {"NextUpdate": FAR, "UpdatedAt": "2026-01-01T00:00:00Z", "DownloadedAt": "2026-01-01T00:00:00Z"}
    (cache / "db" / "metadata.json").write_text(json.dumps({"Version": 2, **dates}))


async def test_trivy_lists_the_versions_and_finds_vulnerabilities_before_and_none_after(
    pair: Pair, tmp_path: Path
) -> None:
    write_database(tmp_path / "empty", {})
    after = (await trivy(pair.patched, tmp_path / "empty"))["packages"]
    assert versions_in({item["Name"]: full_version(item) for item in after}, pair.after) == pair.after
    moved = {package.partition(":")[0] for package in pair.after}
    fixed = {item["SrcName"]: full_version(item, "Src") for item in after if item["Name"] in moved}
    write_database(tmp_path / "made", fixed)
    found = await trivy(pair.original, tmp_path / "made")
    assert versions_in({item["Name"]: full_version(item) for item in found["packages"]}, pair.before) == pair.before
    assert moved <= {item["PkgName"] for item in found["vulnerabilities"]}
    assert (await trivy(pair.patched, tmp_path / "made"))["vulnerabilities"] == []


def full_version(package: Mapping[str, object], which: str = "") -> str:
    """Return a package's version as dpkg writes it, of the binary or of its source (`Src`)."""
    epoch, version, release = (package.get(f"{which}{part}") for part in ("Epoch", "Version", "Release"))
    return f"{f'{epoch}:' if epoch else ''}{version}{f'-{release}' if release else ''}"


async def test_openssl_in_the_patched_image_runs_and_is_the_new_one(pair: Pair) -> None:
    require_root()
    said = await openssl_version(pair.patched)
    assert said.split()[1] == upstream_version(package_version(pair.after, "openssl"))
    said = await openssl_version(pair.original)
    assert said.split()[1] == upstream_version(package_version(pair.before, "openssl"))


async def openssl_version(image: str) -> str:
    """Run `openssl version` in an image with podman, in folders of its own."""
    with TemporaryDirectory(prefix="podman-", dir="/tmp") as name:  # podman takes only short paths
        folder = Path(name)
        (folder / "containers.conf").write_text(CONTAINERS)
        podman = ("podman", "--root", folder / "root", "--runroot", folder / "run")
        env = {"CONTAINERS_CONF": str(folder / "containers.conf")}
        try:
            options = ("--rm", "--tls-verify=false", "--user=0", "--entrypoint=/usr/bin/openssl")
            return await run(*podman, "run", *options, image, "version", env=env)
        finally:
            await run(*podman, "rmi", "--all", "--force", env=env)
            await asyncio.to_thread(subprocess.run, ["umount", folder / "root" / "overlay"], check=False)


def package_version(versions: Mapping[str, str], name: str) -> str:
    return next(version for package, version in versions.items() if package.partition(":")[0] == name)


def upstream_version(version: str) -> str:
    return version.rpartition(":")[2].partition("-")[0]


async def test_a_second_proxy_gives_the_same_digest(pair: Pair, tmp_path: Path) -> None:
    config = ProxyConfig(
        listen=ListenConfig(port=0),
        mirror=MirrorConfig(reference="other.example", path=tmp_path / "mirror"),
        upstream=UpstreamConfig(private=("127.0.0.1",)),
        sources=sources(),
        signing_key=tmp_path / "signing.pem",
        cache=CACHE / "proxy",
    )
    async with Proxy(config) as proxy:
        again = await proxy.resolve.resolve(ResolveRequest(image=pair.original, wait_seconds=240))
    assert again.patched.rpartition("@")[2] == pair.patched.rpartition("@")[2]
