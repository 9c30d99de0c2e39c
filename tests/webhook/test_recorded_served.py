"""Every recorded request, sent to the path of every mode of one webhook over TLS, as an API server sends it."""

import base64
import json
from io import StringIO
from pathlib import Path
from typing import Any

from proxy.audit import AuditLog
from tests.webhook.serving import client, make_keys, proxying, settings
from tests.webhook.table import DATA, TableResolver
from tests.webhook.test_recorded import NAMES
from webhook.config import Mode, WebhookConfig
from webhook.serve import Webhook

JSON = {"Content-Type": "application/json"}
CHANGING = {"time", "milliseconds", "schema_version", "event", "trace_id"}


async def test_recorded_requests_get_the_expected_responses_on_the_path_of_each_mode(tmp_path: Path) -> None:
    log, keys = StringIO(), make_keys(tmp_path)
    found: dict[str, Any] = {}
    async with proxying(keys, TableResolver()) as proxy, client(keys) as http:
        config = WebhookConfig.model_validate(settings(keys, proxy))
        async with Webhook(config, AuditLog(log)) as webhook:
            for name in NAMES:
                body = (DATA / "requests" / f"{name}.json").read_bytes()
                for mode in Mode:
                    url = f"https://127.0.0.1:{webhook.port}/mutate/{mode}?timeout=5s"
                    start = len(log.getvalue())
                    response = await http.post(url, content=body, headers=JSON)
                    found[f"{name}.{mode}"] = (response.json(), log.getvalue()[start:].splitlines())
    for name, (review, lines) in found.items():
        expected = json.loads((DATA / "expected" / f"{name}.json").read_bytes())
        assert decode_patch(review) == expected["review"], name
        assert [verdict(json.loads(line)) for line in lines] == [verdict(event) for event in expected["audit"]], name
    assert len(found) == len(NAMES) * len(Mode)


def decode_patch(review: Any) -> Any:
    """Return the review with its patch decoded, as the expected files hold it."""
    if "patch" in review["response"]:
        review["response"]["patch"] = json.loads(base64.b64decode(review["response"]["patch"], validate=True))
    return review


def verdict(event: Any) -> Any:
    """Return the parts of an audit line that depend on the request only."""
    return {key: value for key, value in event.items() if key not in CHANGING}
