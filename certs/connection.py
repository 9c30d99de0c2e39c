"""The way into a Kubernetes cluster: a connection, and calls over it that end.

Owns who one is in the cluster (a kubeconfig, or the pod's service account, whose token is read again as the kubelet
replaces it), the time that a call may take, and the one error that says how the API server answered. The kubernetes
package is imported on use: it is large, and most processes run without a cluster.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from certs.errors import CertificateError

TIMEOUT = (5.0, 30.0)  # seconds to connect, to read
NO_ANSWER, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 0, 401, 403, 404, 409, 422

Answer = TypeVar("Answer")


class Refused(Exception):
    """The API server answered with an error, or not at all (status 0).

    Args:
        status: the HTTP status, or 0.
        reason: what the API server said, in a few words.
        retry_after: seconds after which it may be asked again, if it said so.
    """

    def __init__(self, status: int, reason: str, retry_after: float | None = None) -> None:
        super().__init__(f"the API server said {status} {reason}" if status else f"no answer: {reason}")
        self.status, self.reason, self.retry_after = status, reason, retry_after


def open_api(kubeconfig: Path | None = None) -> Any:
    """Return a kubernetes ApiClient for the cluster of a kubeconfig, or for the one that this pod runs in.

    Raises:
        CertificateError: there is no kubeconfig or service account that can be used.
    """
    from kubernetes import client  # noqa: PLC0415
    from kubernetes import config as config_module  # noqa: PLC0415

    settings: Any = config_module  # its functions carry no types
    target = client.Configuration()
    target.retries = False  # who calls decides what is tried again, and when
    try:
        if kubeconfig:
            settings.load_kube_config(str(kubeconfig), client_configuration=target)
        else:
            settings.load_incluster_config(client_configuration=target)
    except (settings.ConfigException, OSError) as error:
        raise CertificateError(f"no way into the cluster: {error}; in a pod, mount its service account") from error
    return client.ApiClient(target)


def call(method: Callable[..., Answer], *arguments: object, **named: object) -> Answer:
    """Call a method of a kubernetes API with a time limit; blocks.

    Raises:
        Refused: for every way in which the call fails.
    """
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        return method(*arguments, **{"_request_timeout": TIMEOUT, **named})
    except ApiException as error:
        raise Refused(int(error.status or 0), str(error.reason), _retry_after(error)) from error
    except HTTPError as error:
        raise Refused(NO_ANSWER, str(error)) from error


def _retry_after(error: Any) -> float | None:
    text = (error.headers or {}).get("Retry-After", "") if error.headers is not None else ""
    return float(text) if text.isascii() and text.isdigit() else None
