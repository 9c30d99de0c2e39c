"""What an API server gets of a webhook that is in trouble, and what the audit log says: asked in every mode at once.

`admit_in_all_modes` sends a recorded review over TLS to the path of each mode and checks that each answer is an
AdmissionReview that an API server takes (the checks of k8s.io/apiserver's VerifyAdmissionResponse), in time.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import httpx

from certs.serving import client_context
from proxy.audit import AuditLog
from tests.webhook.table import MIRROR, apply_edits, read_request
from webhook.config import Mode, WebhookConfig
from webhook.serve import Webhook

REVIEW = read_request("create-single-container")
UID = REVIEW["request"]["uid"]
IMAGE = REVIEW["request"]["object"]["spec"]["containers"][0]["image"]
DEADLINE = 1.0  # seconds that the API server waits


@dataclass(frozen=True)
class Admitted:
    """One answer: the response, the pod after it, the audit line, and the seconds that it took."""

    response: Any
    pod: Any
    line: Any
    seconds: float

    @property
    def image(self) -> str:
        """The image of the pod's container afterwards."""
        text: str = self.pod["spec"]["containers"][0]["image"]
        return text


@asynccontextmanager
async def webhook_before(url: str, folder: Path, **changes: Any) -> AsyncIterator[tuple[Webhook, StringIO]]:
    """Run a webhook whose proxy is at `url`; gives its log too."""
    log = StringIO()
    proxy = {"urls": [url], "ca_file": str(folder / "authorities.crt"), **changes.pop("proxy", {})}
    document = {
        "listen": {"port": 0, "tls": {"cert_file": str(folder / "server.crt"), "key_file": str(folder / "server.key")}},
        "proxy": proxy,
        "mirror": {"reference": MIRROR},
        "trust": {"keys": [str(folder / "signing.pub")]},
        "margin": 0.3,
        **changes,
    }
    async with Webhook(WebhookConfig.model_validate(document), AuditLog(log)) as webhook:
        yield webhook, log


async def admit(
    webhook: Webhook,
    log: StringIO,
    ca: Path,
    mode: Mode,
    image: str = IMAGE,
    *,
    deadline: float = DEADLINE,
    headers: Mapping[str, str] | None = None,
) -> Admitted:
    """Send a review to the path of `mode`, and check the answer as an API server does."""
    uid = f"{UID}-{mode}-{time.perf_counter_ns()}"
    review = json.loads(json.dumps(REVIEW))
    review["request"]["uid"] = uid
    review["request"]["object"]["spec"]["containers"][0] |= {"image": image, "imagePullPolicy": "IfNotPresent"}
    async with httpx.AsyncClient(verify=client_context(ca), trust_env=False, timeout=deadline) as client:
        start = time.monotonic()
        url = f"https://127.0.0.1:{webhook.port}/mutate/{mode}?timeout={deadline:g}s"
        answer = await client.post(url, json=review, headers=headers)
        seconds = time.monotonic() - start
    assert seconds < deadline
    assert answer.status_code == 200
    response = check_review(answer.json(), uid)
    edits = json.loads(base64.b64decode(response.get("patch", "W10="), validate=True))
    pod = apply_edits(review["request"]["object"], edits)
    lines = [json.loads(text) for text in log.getvalue().splitlines()]
    (line,) = [each for each in lines if each["uid"] == uid]
    return Admitted(response, pod, line, seconds)


async def admit_in_all_modes(webhook: Webhook, log: StringIO, folder: Path, image: str = IMAGE) -> dict[Mode, Admitted]:
    """Send a review to the path of every mode at once."""
    answers = await asyncio.gather(*(admit(webhook, log, folder / "authorities.crt", mode, image) for mode in Mode))
    return dict(zip(Mode, answers, strict=True))


def check_review(document: Any, uid: str) -> Any:
    """Return the response of a valid AdmissionReview v1 that answers `uid`."""
    assert set(document) == {"apiVersion", "kind", "response"}
    assert (document["apiVersion"], document["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = document["response"]
    assert response["uid"] == uid
    assert isinstance(response["allowed"], bool)
    assert ("patch" in response) == ("patchType" in response)
    assert response.get("patchType", "JSONPatch") == "JSONPatch"
    assert response["allowed"] or "patch" not in response
    assert response["allowed"] == ("status" not in response)
    for text in response.get("warnings", ()):
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 256
    for key, value in response.get("auditAnnotations", {}).items():
        assert key.isidentifier()
        assert isinstance(value, str)
    return response
