"""Certificates in a cluster: a Secret as their store, and the authorities in a webhook configuration's caBundle.

Owns the calls to the Kubernetes API for both. Each write names the resourceVersion that was read, so of two processes
one wins and the other reads again. Other keys of the Secret, and other fields of the webhook configuration, are left
as they are.
"""

import base64
import binascii
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from certs.config import ClusterConfig
from certs.connection import CONFLICT, NOT_FOUND, UNPROCESSABLE, Refused, call, open_api
from certs.errors import CertificateError
from certs.holdings import CA_CERT, FILES, Files
from certs.lease import Lease
from certs.store import Change

TRIES = 5


class SecretStore:
    """A Secret; made on the first update.

    Args:
        api: a kubernetes CoreV1Api.
        namespace: where the Secret is.
        name: its name.
    """

    def __init__(self, api: Any, namespace: str, name: str) -> None:
        self._api, self._namespace, self._name = api, namespace, name

    def __str__(self) -> str:
        return f"Secret {self._namespace}/{self._name}"

    def read(self) -> Files:
        """Return the files that the Secret holds; none when it is not there."""
        secret = self._get()
        return self._files(secret) if secret else {}

    def update(self, change: Change) -> bool:
        """Read, change and write the Secret; again, when another process wrote it in between.

        Raises:
            CertificateError: the API server refuses or does not answer, or `change` says so.
        """
        for _ in range(TRIES):
            secret = self._get()
            before = self._files(secret) if secret else {}
            after = change(before)
            if before == after:
                return False
            if self._put(secret, after):
                return True
        raise CertificateError(
            f"{self}: changed by others {TRIES} times in a row; is another certificate manager on it?"
        )

    def _get(self) -> Any | None:
        try:
            return call(self._api.read_namespaced_secret, self._name, self._namespace)
        except Refused as refused:
            if refused.status == NOT_FOUND:
                return None
            raise CertificateError(f"{self} cannot be read: {refused}") from refused

    def _files(self, secret: Any) -> Files:
        try:
            return {
                name: base64.b64decode(text, validate=True)
                for name, text in (secret.data or {}).items()
                if name in FILES
            }
        except binascii.Error as error:
            raise CertificateError(f"{self} holds data that is not base64") from error

    def _put(self, secret: Any | None, files: Files) -> bool:
        """Write the files; False when somebody else was faster."""
        encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
        try:
            if secret is None:
                body = {"metadata": {"name": self._name}, "type": "Opaque", "data": encoded}
                call(self._api.create_namespaced_secret, self._namespace, body)
            else:
                others = {name: text for name, text in (secret.data or {}).items() if name not in FILES}
                secret.data = {**others, **encoded}
                call(self._api.replace_namespaced_secret, self._name, self._namespace, secret)
        except Refused as refused:
            if refused.status == CONFLICT:
                return False
            raise CertificateError(f"{self} cannot be written: {refused}") from refused
        return True


def publish_bundle(api: Any, name: str, bundle: bytes) -> bool:
    """Write `bundle` into the caBundle of every webhook of a configuration; say whether any differed.

    Args:
        api: a kubernetes AdmissionregistrationV1Api.
        name: the MutatingWebhookConfiguration.
        bundle: the trusted authorities, PEM.

    Raises:
        CertificateError: there is no such configuration, the API server refuses, or others keep changing it.
    """
    encoded = base64.b64encode(bundle).decode()
    for _ in range(TRIES):
        try:
            found = call(api.read_mutating_webhook_configuration, name)
            edits = _bundle_edits(found, encoded)
            if edits:
                call(api.patch_mutating_webhook_configuration, name, edits)
        except Refused as refused:
            if refused.status in {CONFLICT, UNPROCESSABLE}:  # 422: the test of the resourceVersion failed
                continue
            raise CertificateError(f"MutatingWebhookConfiguration {name} cannot be kept: {refused}") from refused
        return bool(edits)
    raise CertificateError(f"MutatingWebhookConfiguration {name}: changed by others {TRIES} times in a row")


def publish_from(store: SecretStore, api: Any, name: str) -> bool:
    """Publish the authorities that a Secret holds; nothing when it holds none yet."""
    bundle = store.read().get(CA_CERT)
    return publish_bundle(api, name, bundle) if bundle else False


@dataclass(frozen=True, slots=True)
class InCluster:
    """Certificates in a cluster: their store, who may write it, and what is to be done after each pass."""

    store: SecretStore
    lease: Lease
    after_pass: Callable[[], object] | None


def open_cluster(config: ClusterConfig) -> InCluster:
    """Connect to the cluster.

    Raises:
        CertificateError: there is no service account or kubeconfig that can be used.
    """
    from kubernetes import client  # noqa: PLC0415 - it is large

    connection = open_api(config.kubeconfig)
    store = SecretStore(client.CoreV1Api(connection), config.namespace, config.secret)
    identity = f"{socket.gethostname()}_{os.getpid()}"
    lease = Lease(client.CoordinationV1Api(connection), config.namespace, config.lease, identity)
    name = config.webhook_configuration
    if name is None:
        return InCluster(store, lease, None)
    hooks = client.AdmissionregistrationV1Api(connection)
    return InCluster(store, lease, lambda: publish_from(store, hooks, name))


def _bundle_edits(found: Any, encoded: str) -> list[dict[str, object]]:
    """Return the JSON Patch (RFC 6902) that brings the bundle in, or nothing."""
    edits: list[dict[str, object]] = [
        {"op": "add", "path": f"/webhooks/{place}/clientConfig/caBundle", "value": encoded}
        for place, hook in enumerate(found.webhooks or ())
        if hook.client_config.ca_bundle != encoded
    ]
    if not edits:
        return []
    same = {"op": "test", "path": "/metadata/resourceVersion", "value": found.metadata.resource_version}
    return [same, *edits]
