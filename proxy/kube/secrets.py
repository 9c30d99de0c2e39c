"""The pull secrets of namespaces: those that pods name, which are read, and the mirror's own, which is kept.

Owns what is asked of the API server for both: exactly the Secrets that a pod names (or, where it names none, those of
its service account, as the API server would add them), in the namespaces that the operator lists. Content is parsed
where it came in and never kept, logged or shown. A Secret named like the mirror's that somebody else made stays alone.
Formats: https://kubernetes.io/docs/concepts/configuration/secret/#docker-config-secrets
"""

import base64
import binascii
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Any

from proxy.config import PullSecretsConfig
from proxy.credentials import MAX_CONFIG, Credentials
from proxy.errors import MalformedInput, Unsupported, UpstreamRefused
from proxy.kube.cluster import Cluster

MANAGED_BY = ("app.kubernetes.io/managed-by", "admend")
DOCKER_CONFIG, LEGACY = "kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"
KEYS = {DOCKER_CONFIG: ".dockerconfigjson", LEGACY: ".dockercfg"}
MAX_SECRETS = 32  # of one pod that are read
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")

logging.getLogger("kubernetes.client.rest").setLevel(logging.INFO)  # below that it logs bodies: Secrets, tokens


@dataclass(frozen=True, slots=True)
class Found:
    """What the pull secrets of a pod came to: logins, and what is to be said of Secrets that gave none."""

    credentials: tuple[Credentials, ...] = ()
    notes: tuple[str, ...] = ()


class Secrets:
    """Reads and keeps pull secrets.

    Args:
        cluster: the way to the API server.
        config: whether, and in which namespaces.
    """

    def __init__(self, cluster: Cluster, config: PullSecretsConfig) -> None:
        self._cluster, self._config = cluster, config

    def covers(self, namespace: str) -> bool:
        """Say whether the operator listed a namespace."""
        if _LABEL.fullmatch(namespace) is None:
            return False
        return any(fnmatchcase(namespace, pattern) for pattern in self._config.namespaces)

    async def read(self, namespace: str, names: Sequence[str], service_account: str) -> Found:
        """Return the logins that a pod's pull secrets hold.

        Raises UpstreamUnavailable when the API server cannot say.
        """
        if not self._config.enabled or not self.covers(namespace):
            setting = "cluster.pull_secrets.namespaces" if self._config.enabled else "cluster.pull_secrets.enabled"
            return Found(notes=(f"pull secrets of the namespace {namespace} are not read ({setting})",))
        notes: list[str] = []
        if not names:
            names = await self._of_account(namespace, service_account or "default", notes)
        found = [await self._read_one(namespace, name, notes) for name in tuple(dict.fromkeys(names))[:MAX_SECRETS]]
        if not found:
            notes.append("neither the pod nor its service account names a pull secret")
        return Found(tuple(item for item in found if item is not None), tuple(notes))

    async def _of_account(self, namespace: str, name: str, notes: list[str]) -> Sequence[str]:
        if _NAME.fullmatch(name) is None:
            return ()
        core = self._cluster.core
        try:
            account: Any = await self._cluster.ask(
                f"read the service account {namespace}/{name}", core.read_namespaced_service_account, name, namespace
            )
        except UpstreamRefused as error:
            notes.append(str(error))
            return ()
        return [str(item.name) for item in account.image_pull_secrets or () if item.name]

    async def _read_one(self, namespace: str, name: str, notes: list[str]) -> Credentials | None:
        where = f"the pull secret {namespace}/{name}"
        if _NAME.fullmatch(name) is None:
            return None
        read = self._cluster.core.read_namespaced_secret
        try:
            return parse_secret(await self._cluster.ask(f"read {where}", read, name, namespace), where)
        except MalformedInput as error:
            notes.append(str(error))
        except UpstreamRefused as error:  # the kubelet, too, goes on without a Secret that is not there
            notes.append(f"{where} is not there" if error.status == HTTPStatus.NOT_FOUND else str(error))
        return None

    async def keep(self, namespace: str, name: str, content: bytes) -> None:
        """Make sure that the Secret `name` holds this docker config.

        Raises:
            Unsupported: there is one of that name which admend did not make.
            UpstreamRefused, UpstreamUnavailable: the API server does not let it be made, or does not answer.
        """
        core, where = self._cluster.core, f"the Secret {namespace}/{name}"
        data = {KEYS[DOCKER_CONFIG]: base64.b64encode(content).decode()}
        metadata: dict[str, Any] = {"name": name, "labels": dict([MANAGED_BY])}
        body = {"apiVersion": "v1", "kind": "Secret", "type": DOCKER_CONFIG, "metadata": metadata, "data": data}
        try:
            held: Any = await self._cluster.ask(f"read {where}", core.read_namespaced_secret, name, namespace)
        except UpstreamRefused as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            await self._cluster.ask(f"make {where}", core.create_namespaced_secret, namespace, body)
            return
        if (held.metadata.labels or {}).get(MANAGED_BY[0]) != MANAGED_BY[1] or held.type != DOCKER_CONFIG:
            raise Unsupported(f"{where} is not admend's and is left alone: give it another name, or remove it")
        if (held.data or {}).get(KEYS[DOCKER_CONFIG]) != data[KEYS[DOCKER_CONFIG]]:
            metadata["resourceVersion"] = held.metadata.resource_version
            await self._cluster.ask(f"renew {where}", core.replace_namespaced_secret, name, namespace, body)


def parse_secret(secret: Any, where: str) -> Credentials:
    """Return the logins of a Secret of either kind; raises MalformedInput, which never shows its content."""
    key = KEYS.get(secret.type or "")
    encoded = (secret.data or {}).get(key) if key else None
    if encoded is None:
        raise MalformedInput("not a pull secret: its type and key must be those of a docker config", file=where)
    if len(encoded) > 2 * MAX_CONFIG:
        raise MalformedInput(f"a docker config has {MAX_CONFIG} bytes at the most", file=where)
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedInput("its data is not base64", file=where) from None
    return Credentials.parse(raw, where, legacy=secret.type == LEGACY)


def render_login(host: str, username: str, password: str) -> bytes:
    """Return a docker config with one login."""
    both = base64.b64encode(f"{username}:{password}".encode()).decode()
    login = {"username": username, "password": password, "auth": both}
    return json.dumps({"auths": {host: login}}, separators=(",", ":")).encode()
