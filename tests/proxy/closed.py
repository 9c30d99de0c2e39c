"""A proxy in a cluster whose upstream opens nothing without credentials, and the pull secrets of its namespaces."""

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from proxy.api import MIRROR_SECRET, ResolveResponse
from proxy.config import ClusterConfig, GrantsConfig, MirrorConfig, ProxyConfig, PullSecretsConfig, UpstreamConfig
from proxy.oci.manifest import Manifest
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from tests.proxy.asking import ask
from tests.proxy.served import basic
from tests.simulators.kube_api import KubeApi, serve_kube_api, write_kubeconfig
from tests.simulators.registry import Faults
from tests.simulators.world import MIRROR, World

USER, PASSWORD = "robot", "pa55word-of-the-upstream"
NAMESPACES = ("shop", "bank")
TYPE, KEY = "kubernetes.io/dockerconfigjson", ".dockerconfigjson"


@dataclass
class Closed:
    """The parts; `proxy` runs."""

    world: World
    api: KubeApi
    kubeconfig: Path
    proxy: Proxy

    async def restart(self, **changes: Any) -> None:
        """End the proxy and start one with these settings, on the same files."""
        await self.proxy.__aexit__(None, None, None)
        self.proxy = Proxy(configure(self.world, self.kubeconfig, **changes))
        await self.proxy.__aenter__()

    def put_secret(self, namespace: str, name: str = "pull", *, password: str = PASSWORD, host: str = "") -> None:
        """Give a namespace a pull secret for the upstream."""
        login = {"username": USER, "password": password}
        content = json.dumps({"auths": {host or self.world.upstream.host: login}})
        self.api.put(secret_path(namespace, name), secret(content))

    async def ask(
        self, image: str, namespace: str = "shop", secrets: Sequence[str] = ("pull",), **more: Any
    ) -> ResolveResponse:
        """Ask as the webhook does for a pod that names pull secrets."""
        return await ask(self.proxy, image, namespace=namespace, pull_secrets=tuple(secrets), **more)

    def login(self, namespace: str) -> str:
        """Return the header that the kubelet sends with the namespace's Secret for the mirror."""
        data = self.api.objects[secret_path(namespace, MIRROR_SECRET)]["data"][KEY]
        config = json.loads(base64.b64decode(data))
        assert list(config["auths"]) == [MIRROR]
        login = config["auths"][MIRROR]
        assert base64.b64decode(login["auth"]).decode() == f"{login['username']}:{login['password']}"
        return basic(login["username"], login["password"])

    async def get(self, path: str, auth: str = "") -> httpx.Response:
        """Ask the mirror for something."""
        headers = {"Authorization": auth} if auth else {}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.proxy.port}", trust_env=False) as http:
            return await http.get(path, headers=headers)

    def place(self, image: str) -> str:
        """Return the repository of the mirror that an image's patched form lives in."""
        return self.proxy.mirror.name_for(ImageRef.parse(image)).repository

    async def paths(self, reference: str) -> list[str]:
        """Return the path of everything that a pull of a patched image, and a look at its signature, asks for."""
        name, _, digest = reference.removeprefix(f"{MIRROR}/").partition("@")
        manifest = await self.proxy.mirror.get_manifest(ImageRef.parse(reference))
        assert isinstance(manifest, Manifest)
        blobs = [f"/v2/{name}/blobs/{item.digest}" for item in (manifest.config, *manifest.layers)]
        tags = [f"/v2/{name}/manifests/{tag}" for tag in (digest, f"{digest.replace(':', '-')}.sig")]
        return [*tags, *blobs, f"/v2/{name}/tags/list", f"/v2/{name}/referrers/{digest}"]


def secret_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/secrets/{name}"


def secret(content: str, kind: str = TYPE, key: str = KEY) -> dict[str, Any]:
    """Return a Secret with this docker config."""
    return {"metadata": {"name": "pull"}, "type": kind, "data": {key: base64.b64encode(content.encode()).decode()}}


def upstream(**changes: Any) -> UpstreamConfig:
    """Return settings that let credentials go to the loopback upstream, which speaks no TLS."""
    hosts = ("127.0.0.1",)
    fixed = {"private": hosts, "plain_http": hosts, "plain_http_credentials": hosts, "timeout": 10}
    return UpstreamConfig.model_validate({**fixed, **changes})


def configure(world: World, kubeconfig: Path, **changes: Any) -> ProxyConfig:
    """Return settings of a proxy that reads pull secrets in `NAMESPACES` and makes them for the embedded mirror."""
    pull_secrets = PullSecretsConfig(enabled=True, namespaces=NAMESPACES)
    mirror = MirrorConfig(reference=MIRROR, path=world.folder / "proxy" / "mirror", grants=GrantsConfig(enabled=True))
    given = {
        "cluster": ClusterConfig(namespace="admend", kubeconfig=kubeconfig, pull_secrets=pull_secrets),
        "mirror": mirror,
        "upstream": upstream(),
        **changes,
    }
    return world.config(**given)


@asynccontextmanager
async def closed_world(folder: Path, **changes: Any) -> AsyncIterator[Closed]:
    """Run everything; `changes` are settings of the proxy."""
    async with World(folder / "world") as world:
        world.upstream.faults = Faults(auth="bearer", username=USER, password=PASSWORD, anonymous=False)
        with serve_kube_api() as api:
            kubeconfig = Path(write_kubeconfig(api, folder))
            closed = Closed(world, api, kubeconfig, Proxy(configure(world, kubeconfig, **changes)))
            await closed.proxy.__aenter__()
            try:
                yield closed
            finally:
                await closed.proxy.__aexit__(None, None, None)


def files_below(folder: Path) -> dict[Path, bytes]:
    """Return every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
