"""The whole webhook over HTTPS on loopback, with a proxy simulator behind it that demands a client certificate."""

import asyncio
import base64
import json
import signal
import socket
import sys
from io import StringIO
from pathlib import Path

import httpx
import pytest

from proxy.audit import AuditLog
from tests.webhook.serving import client, make_keys, proxying, settings
from tests.webhook.table import DATA, MIRROR, patched_digest, read_request
from tests.webhook.test_recorded import without_ours
from webhook.cli import main
from webhook.config import WebhookConfig
from webhook.serve import Webhook

BASE = "gcr.io/distroless/base-debian12:latest"
BODY = (DATA / "requests" / "create-single-container.json").read_bytes()
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with keys and certificates."""
    return make_keys(tmp_path_factory.mktemp("keys"))


def webhook_alone(folder: Path) -> Webhook:
    """Return a webhook whose proxy is down."""
    return Webhook(WebhookConfig.model_validate(settings(folder, "https://127.0.0.1:1")), AuditLog(StringIO()))


async def test_pod_is_rewritten_over_https_and_the_log_says_so(folder: Path) -> None:
    log = StringIO()
    async with proxying(folder) as proxy, client(folder) as http:
        config = WebhookConfig.model_validate(settings(folder, proxy))
        async with Webhook(config, AuditLog(log)) as webhook:
            url = f"https://127.0.0.1:{webhook.port}"
            response = await http.post(f"{url}/mutate?timeout=5s", content=BODY, headers=JSON)
            metrics = (await http.get(f"{url}/metrics")).text
            health = [(await http.get(f"{url}/{path}")).status_code for path in ("healthz", "readyz")]
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("application/json")
    review = response.json()["response"]
    assert (review["uid"], review["allowed"]) == ("05c1c1bc-a3f8-442a-8b20-d89833360065", True)
    edits = json.loads(base64.b64decode(review["patch"]))
    image = f"{MIRROR}/gcr.io/distroless/base-debian12@{patched_digest(BASE)}"
    assert {"op": "replace", "path": "/spec/containers/0/image", "value": image} in edits
    (line,) = log.getvalue().splitlines()
    assert json.loads(line)["verdict"] == "rewrite"
    assert (
        'admend_admissions_total{dry_run="false",mode="permissive",operation="CREATE",verdict="rewrite"} 1.0\n'
        in metrics
    )
    assert 'admend_containers_total{outcome="patched",verdict="rewrite"} 1.0\n' in metrics
    assert 'admend_admission_seconds_bucket{le="+Inf"} 1.0\n' in metrics
    assert "admend_certificate_expiry_timestamp_seconds" in metrics
    assert health == [200, 200]


async def test_each_mode_has_a_path_and_the_plain_one_takes_the_configured_mode(folder: Path) -> None:
    log = StringIO()
    config = settings(folder, "https://127.0.0.1:1", mode="audit")
    async with Webhook(WebhookConfig.model_validate(config), AuditLog(log)) as webhook, client(folder) as http:
        url = f"https://127.0.0.1:{webhook.port}/mutate"
        paths = ("", "/permissive", "/enforce", "/audit")
        answers = [await http.post(f"{url}{path}?timeout=2s", content=BODY, headers=JSON) for path in paths]
        strange = [await http.post(f"{url}{path}", content=BODY, headers=JSON) for path in ("/", "/Enforce", "/x")]
    assert [answer.json()["response"]["allowed"] for answer in answers] == [True, True, False, True]
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["mode"] for line in lines] == ["audit", "permissive", "enforce", "audit"]
    assert [line["verdict"] for line in lines] == ["would-deny", "keep", "deny", "would-deny"]
    assert [answer.status_code for answer in strange] == [404, 404, 404]


REFUSALS = {
    "no review": (b"{}", JSON, 400, "malformed-input"),
    "no JSON": (b"\x00", JSON, 400, "malformed-input"),
    "an empty body": (b"", JSON, 400, "malformed-input"),
    "a body over the limit": (b" " * ((3 << 20) + 1), JSON, 413, "too-large"),
    "another type": (BODY, {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
    "no type": (BODY, {}, 415, "unsupported-media-type"),
}


@pytest.mark.parametrize(("body", "headers", "status", "code"), REFUSALS.values(), ids=REFUSALS)
async def test_request_without_a_review_is_refused_with_a_reason(
    folder: Path, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with webhook_alone(folder) as webhook, client(folder) as http:
        url = f"https://127.0.0.1:{webhook.port}"
        response = await http.post(f"{url}/mutate", content=body, headers=headers)
        metrics = (await http.get(f"{url}/metrics")).text
    assert response.status_code == status
    assert response.json()["code"] == code
    assert response.json()["message"]
    assert f'admend_requests_refused_total{{status="{status}"}} 1.0\n' in metrics


async def test_body_of_the_limit_is_still_read(folder: Path) -> None:
    body = BODY + b" " * ((3 << 20) - len(BODY))
    async with webhook_alone(folder) as webhook, client(folder) as http:
        url = f"https://127.0.0.1:{webhook.port}/mutate?timeout=1s"
        assert (await http.post(url, content=body, headers=JSON)).status_code == 200


async def test_body_that_does_not_arrive_is_not_waited_for(folder: Path) -> None:
    config = settings(folder, "https://127.0.0.1:1", listen={"port": 0})
    lines = ("POST /mutate?timeout=200ms HTTP/1.1", "Host: x", "Content-Type: application/json", "Content-Length: 9")
    async with Webhook(WebhookConfig.model_validate(config)) as webhook:
        reader, writer = await asyncio.open_connection("127.0.0.1", webhook.port)
        writer.write("\r\n".join([*lines, "", "{"]).encode())
        async with asyncio.timeout(2):
            assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        writer.close()
        await writer.wait_closed()


async def test_proxy_that_is_down_leaves_the_pod_as_it_is(folder: Path) -> None:
    async with webhook_alone(folder) as webhook, client(folder) as http:
        url = f"https://127.0.0.1:{webhook.port}/mutate?timeout=2s"
        review = (await http.post(url, content=BODY, headers=JSON)).json()["response"]
    assert review["allowed"]
    assert "the proxy gave no answer" in review["warnings"][0]


async def test_reviews_need_a_client_certificate_where_an_authority_is_named_but_probes_do_not(folder: Path) -> None:
    config = settings(folder, "https://127.0.0.1:1")
    config["listen"]["tls"]["client_ca_file"] = str(folder / "ca.crt")
    body = json.dumps(read_request("create-windows")).encode()
    async with Webhook(WebhookConfig.model_validate(config), AuditLog(StringIO())) as webhook:
        url = f"https://127.0.0.1:{webhook.port}"
        async with client(folder) as http:
            assert (await http.post(f"{url}/mutate", content=body, headers=JSON)).status_code == 401
            assert (await http.get(f"{url}/readyz")).status_code == 200
        async with client(folder, certificate=True) as http:
            assert (await http.post(f"{url}/mutate", content=body, headers=JSON)).status_code == 200


async def test_command_serves_and_answers_what_is_under_way_before_it_ends(folder: Path, tmp_path: Path) -> None:
    async with proxying(folder, delay=0.5) as proxy, client(folder) as http:
        config = settings(folder, proxy)
        config["listen"]["port"] = port = free_port()
        file = tmp_path / "webhook.json"
        file.write_text(json.dumps(config))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "webhook.cli", "serve", "--config", str(file), stdout=asyncio.subprocess.PIPE
        )
        url = f"https://127.0.0.1:{port}"
        await until_ready(http, url)
        call = asyncio.create_task(http.post(f"{url}/mutate?timeout=5s", content=BODY, headers=JSON))
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        response = await call
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert "patch" in response.json()["response"]
    assert json.loads(output)["verdict"] == "rewrite"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until_ready(http: httpx.AsyncClient, url: str) -> None:
    for _ in range(200):
        try:
            if (await http.get(f"{url}/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            await asyncio.sleep(0.05)
    raise AssertionError("the webhook did not start")


def test_wrong_configuration_is_usage_and_what_cannot_start_has_failed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "webhook.json"
    file.write_text("{}")
    assert main(["serve", "--config", str(file)]) == 2
    assert "the configuration is wrong" in capsys.readouterr().err
    for changes in ({"trust": {"keys": ["/nowhere.pub"]}}, {"listen": {"host": "192.0.2.1"}}):
        file.write_text(json.dumps(settings(folder, "https://127.0.0.1:1") | changes))
        assert main(["serve", "--config", str(file)]) == 1
    lost = settings(folder, "https://127.0.0.1:1")
    lost["listen"]["tls"]["cert_file"] = "/nowhere.crt"
    file.write_text(json.dumps(lost))
    assert main(["serve", "--config", str(file)]) == 1
    assert "/nowhere.crt" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["serve"])
    assert caught.value.code == 2


def test_without_ours_still_sees_other_changes() -> None:
    pod = read_request("create-single-container")["request"]["object"]
    assert without_ours(pod) != without_ours({**pod, "spec": {**pod["spec"], "hostNetwork": True}})
