"""The command `admend status`, asked of a whole proxy and of things that are none."""

import asyncio
import contextlib
import http.server
import json
import threading

import pytest

from proxy.cli import main
from tests.proxy.fleet.test_walker import looked, proxy_for
from tests.simulators.kube_fleet import put_pod
from tests.simulators.world import TOKEN


async def call(capsys, *arguments):
    """Run `admend status` beside what it asks; returns exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(main, ["status", *(str(argument) for argument in arguments)])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@contextlib.contextmanager
def answering(status, body):
    """Serve one answer to every question."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_workloads_are_shown_the_worst_first_with_reasons(capsys, tmp_path, world, api):
    image, clean = world.add_image(), world.add_image(version="9")
    put_pod(api, "shop", "web", image)
    put_pod(api, "shop", "idle", clean)
    put_pod(api, "shop", "own", image, annotations={"admend.dev/patch": "false"})
    (tmp_path / "token").write_text(TOKEN + "\n")
    async with proxy_for(world, api, tmp_path) as proxy:
        await looked(proxy)
        asking = ("--proxy", f"http://127.0.0.1:{proxy.port}", "--token-file", tmp_path / "token")
        code, out, _ = await call(capsys, *asking)
        assert code == 0
        lines = out.splitlines()
        assert lines[0].split() == ["NAMESPACE", "WORKLOAD", "STATE", "PODS", "SINCE", "FIX", "IMAGE"]
        assert lines[1].split()[:4] == ["shop", "Deployment/web", "unpatched", "1"]
        assert lines[1].split()[-1] == image
        assert "opted out: the pod has the annotation" in out
        assert "3 pods, 2 images; containers: 1 excluded, 1 clean, 1 unpatched" in out
        code, out, _ = await call(capsys, *asking, "--json", "--state", "clean", "--exit-code")
        assert code == 0
        assert [workload["name"] for workload in json.loads(out)["workloads"]] == ["idle"]
        code, out, _ = await call(capsys, *asking, "-n", "shop", "--exit-code")
        assert code == 1
        assert "Deployment/web" in out
        code, _, err = await call(capsys, *asking[:2])
        assert code == 1
        assert "/v1 needs a listed client certificate" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--proxy", "nowhere"), 2, "--proxy is written http[s]://host[:port]: 'nowhere'"),
        (("--proxy", "http://127.0.0.1:1"), 1, "http://127.0.0.1:1 cannot be asked"),
        (("--proxy", "http://proxy.example", "--token-file", "x"), 2, "a token goes over TLS only"),
        (("--proxy", "https://127.0.0.1:1", "--token-file", "/none"), 2, "--token-file: "),
        (("--proxy", "https://127.0.0.1:1", "--ca-file", "/none"), 2, "--ca-file, --cert or --key: "),
        (("--proxy", "http://127.0.0.1:1", "--state", "good"), 2, "--state is one of excluded, clean, current"),
    ],
)
async def test_what_is_wrong_with_the_question_is_told(capsys, arguments, code, said):
    ended, out, err = await call(capsys, *arguments)
    assert (ended, out) == (code, "")
    assert said in err


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>", "answered 200, and not as a proxy of admend does"),
        (502, b"bad gateway", "answered 502, and not as a proxy of admend does"),
        (503, b'{"code": "upstream-unavailable", "message": "no round is done yet"}', "no round is done yet"),
        (404, b'{"code": "unsupported", "message": "no section cluster.fleet"}', "no section cluster.fleet"),
    ],
)
async def test_what_is_wrong_with_the_answer_is_told(capsys, status, body, said):
    with answering(status, body) as url:
        code, out, err = await call(capsys, "--proxy", url)
    assert (code, out) == (1, "")
    assert said in err
