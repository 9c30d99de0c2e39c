"""The cluster as the proxy asks it: one connection, calls off the event loop, errors in the proxy's own words.

Owns the connection, the threads that wait for the API server (a few: it must not be flooded) and who leads among
several proxies. What is asked, and why, is each matter's own module beside this one.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from certs.connection import FORBIDDEN, NO_ANSWER, UNAUTHORIZED, Refused, call, open_api
from certs.errors import CertificateError
from certs.lease import Lease
from proxy.config import ClusterConfig
from proxy.errors import AdmendError, MalformedInput, UpstreamRefused, UpstreamUnavailable

THREADS = 4
TOO_MANY, SERVER_ERRORS = 429, 500

Answer = TypeVar("Answer")


class Cluster:
    """A connection to the API server.

    Args:
        config: which cluster, and the proxy's own namespace in it.

    Raises:
        MalformedInput: there is no kubeconfig or service account that can be used.
    """

    def __init__(self, config: ClusterConfig) -> None:
        from kubernetes import client  # noqa: PLC0415 - large, and of no use without a cluster

        try:
            self.api: Any = open_api(config.kubeconfig)
        except CertificateError as error:
            raise MalformedInput(str(error), file="cluster.kubeconfig" if config.kubeconfig else "cluster") from error
        self.config = config
        self.core = client.CoreV1Api(self.api)
        self.apps = client.AppsV1Api(self.api)
        self.batch = client.BatchV1Api(self.api)
        self.authentication = client.AuthenticationV1Api(self.api)
        self.lease = Lease(
            client.CoordinationV1Api(self.api),
            config.namespace,
            config.lease,
            f"{socket.gethostname()}_{secrets.token_hex(4)}",
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kube")

    async def ask(self, what: str, method: Callable[..., Answer], *arguments: object, **named: object) -> Answer:
        """Call a method of a kubernetes API in a thread; `what` names the call in errors ("list pods").

        Raises:
            UpstreamUnavailable: no answer, 429 or 5xx.
            UpstreamRefused: any other error of the API server; `status` is its HTTP status.
        """
        work = partial(call, method, *arguments, **named)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Refused as refused:
            raise _explain(what, refused) from refused

    def close(self) -> None:
        """End the connection and the threads; calls under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.api.close()


def _explain(what: str, refused: Refused) -> AdmendError:
    text = f"cannot {what}: {refused}"
    if refused.status in {NO_ANSWER, TOO_MANY} or refused.status >= SERVER_ERRORS:
        return UpstreamUnavailable(text, retry_after=refused.retry_after, status=refused.status)
    if refused.status in {UNAUTHORIZED, FORBIDDEN}:
        text += "; the proxy's service account needs a role that allows it"
    return UpstreamRefused(text, status=refused.status)
