"""A small API server on loopback: Secrets and MutatingWebhookConfigurations, with resourceVersions that conflict.

It answers what the real one answers for these calls: 404 and 409 with a Status body, 422 for a JSON Patch whose test
fails, and a new resourceVersion on each write. `before_write` lets a test act as another client between a read and a
write.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class KubeApi:
    """The objects by path, and a log of the writes."""

    def __init__(self) -> None:
        self.objects: dict[str, dict] = {}
        self.writes: list[tuple[str, str]] = []
        self.refuse: int | None = None
        self.before_write: Callable[[], None] | None = None
        self.url = ""
        self._version = 0

    def put(self, path: str, document: dict) -> dict:
        """Store an object under a path, with a new resourceVersion."""
        self._version += 1
        document.setdefault("metadata", {})["resourceVersion"] = str(self._version)
        self.objects[path] = document
        return document

    def answer(self, method: str, path: str, body) -> tuple[int, dict]:
        """Return status and document for one request."""
        if self.refuse:
            return _status(self.refuse)
        if method == "GET":
            found = self.objects.get(path)
            return (200, found) if found else _status(404)
        if self.before_write:
            act, self.before_write = self.before_write, None
            act()
        self.writes.append((method, path))
        return getattr(self, f"_{method.lower()}")(path, body)

    def _post(self, path: str, body: dict) -> tuple[int, dict]:
        place = f"{path}/{body['metadata']['name']}"
        return _status(409) if place in self.objects else (201, self.put(place, body))

    def _put(self, path: str, body: dict) -> tuple[int, dict]:
        if path not in self.objects:
            return _status(404)
        if body["metadata"].get("resourceVersion") != self.objects[path]["metadata"]["resourceVersion"]:
            return _status(409)
        return 200, self.put(path, body)

    def _patch(self, path: str, body: list) -> tuple[int, dict]:
        if path not in self.objects:
            return _status(404)
        document = json.loads(json.dumps(self.objects[path]))
        for edit in body:
            *parents, last = edit["path"].split("/")[1:]
            target = document
            for part in parents:
                target = target[int(part)] if isinstance(target, list) else target[part]
            if edit["op"] == "test" and target.get(last) != edit["value"]:
                return _status(422)
            target[last] = edit["value"]
        return 200, self.put(path, document)


def _status(code: int) -> tuple[int, dict]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}


@contextmanager
def serve_kube_api() -> Iterator[KubeApi]:
    """Serve an empty API server until the block ends."""
    api = KubeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            code, document = api.answer(self.command, self.path, body)
            data = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = _handle  # noqa: N815 - the names of http.server

        def log_message(self, *_) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
