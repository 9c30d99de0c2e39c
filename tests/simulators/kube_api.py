"""A small API server on loopback that the real kubernetes client talks to.

It answers what the real one answers for these calls: objects by path with resourceVersions that conflict, lists (all
namespaces or one, labelSelector, limit and continue), JSON and merge patches, `generateName`, TokenReviews from a
table, evictions that a budget may refuse, errors with a Status body. `before_write` lets a test act as another client
between a read and a write; `refuse` and `delay` make it fail or slow.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KINDS = {
    "configmaps": "ConfigMap",
    "cronjobs": "CronJob",
    "daemonsets": "DaemonSet",
    "deployments": "Deployment",
    "events": "Event",
    "jobs": "Job",
    "leases": "Lease",
    "mutatingwebhookconfigurations": "MutatingWebhookConfiguration",
    "namespaces": "Namespace",
    "nodes": "Node",
    "pods": "Pod",
    "replicasets": "ReplicaSet",
    "secrets": "Secret",
    "serviceaccounts": "ServiceAccount",
    "statefulsets": "StatefulSet",
}
# /api/v1 or /apis/GROUP/VERSION, maybe a namespace, the resource, maybe a name, maybe a subresource.
_PATH = re.compile(
    r"(?P<api>/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)


@dataclass
class Token:
    """Who a token is, for which audiences."""

    user: str
    audiences: tuple[str, ...] = ("https://kubernetes.default.svc",)
    groups: tuple[str, ...] = ("system:serviceaccounts", "system:authenticated")


@dataclass
class KubeApi:
    """The objects by path, what is known of tokens and budgets, and a log of all requests and of the writes."""

    objects: dict[str, dict] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    budgets: dict[str, int] = field(default_factory=dict)  # namespace/pod: evictions of it that are refused, yet
    requests: list[tuple[str, str]] = field(default_factory=list)
    writes: list[tuple[str, str]] = field(default_factory=list)
    refuse: int | None = None
    refused_paths: dict[str, int] = field(default_factory=dict)  # a pattern of paths: the status of the answer
    delay: float = 0.0  # seconds before each answer
    before_write: Callable[[], object] | None = None
    on_evict: Callable[[str, str], object] | None = None  # namespace, pod
    url: str = ""
    _version: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, path: str, document: dict) -> dict:
        """Store an object under a path, with a new resourceVersion."""
        with self._lock:
            self._version += 1
            document.setdefault("metadata", {})["resourceVersion"] = str(self._version)
            self.objects[path] = document
            return document

    def answer(self, method: str, target: str, body) -> tuple[int, dict]:
        """Return status and document for one request."""
        url = urlsplit(target)
        path, query = url.path, {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.requests.append((method, target))
        if self.delay:
            time.sleep(self.delay)
        for pattern, status in [("", self.refuse), *self.refused_paths.items()]:
            if status and re.search(pattern, path):
                return make_status(status)
        if method == "GET":
            with self._lock:
                return self._get(path, query)
        if self.before_write:
            act, self.before_write = self.before_write, None
            act()
        with self._lock:
            self.writes.append((method, path))
            if query.get("dryRun") == "All":
                return 201, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
            return getattr(self, f"_{method.lower()}")(path, body)

    def _get(self, path: str, query: dict[str, str]) -> tuple[int, dict]:
        if path in self.objects:
            return 200, self.objects[path]
        parts = _PATH.fullmatch(path)
        if parts is None or parts["name"] or parts["resource"] not in KINDS:
            return make_status(404)
        return self._list(parts, query)

    def _list(self, parts: re.Match[str], query: dict[str, str]) -> tuple[int, dict]:
        shape = re.escape(parts["api"])
        shape += f"/namespaces/{re.escape(parts['namespace'])}" if parts["namespace"] else "(/namespaces/[^/]+)?"
        shape += f"/{parts['resource']}/[^/]+"
        wanted = query.get("labelSelector", "")
        found = [
            document
            for path, document in sorted(self.objects.items())
            if re.fullmatch(shape, path) and _selected(document, wanted)
        ]
        begin, size = int(query.get("continue", "0")), int(query.get("limit", "0")) or len(found)
        metadata: dict[str, object] = {"resourceVersion": str(self._version)}
        if begin + size < len(found):
            metadata |= {"continue": str(begin + size), "remainingItemCount": len(found) - begin - size}
        version = parts["api"].removeprefix("/apis/").removeprefix("/api/")
        kind = KINDS[parts["resource"]] + "List"
        return 200, {"kind": kind, "apiVersion": version, "metadata": metadata, "items": found[begin : begin + size]}

    def _post(self, path: str, body: dict) -> tuple[int, dict]:
        if path.endswith("/tokenreviews"):
            return 201, self._review(body)
        parts = _PATH.fullmatch(path)
        if parts is not None and parts["sub"] == "eviction":
            return self._evict(parts["namespace"], parts["name"], path.removesuffix("/eviction"))
        metadata = body["metadata"]
        if "name" not in metadata:
            metadata["name"] = f"{metadata['generateName']}{self._version:05x}"
        place = f"{path}/{metadata['name']}"
        return make_status(409) if place in self.objects else (201, self.put(place, body))

    def _review(self, body: dict) -> dict:
        wanted = body["spec"].get("audiences") or ["https://kubernetes.default.svc"]
        known = self.tokens.get(body["spec"]["token"])
        if known is None or not set(wanted) & set(known.audiences):
            return {**body, "status": {"authenticated": False, "error": "token is not valid here"}}
        audiences = [name for name in wanted if name in known.audiences]
        user = {"username": known.user, "uid": "uid-of-" + known.user, "groups": list(known.groups)}
        return {**body, "status": {"authenticated": True, "user": user, "audiences": audiences}}

    def _evict(self, namespace: str, name: str, place: str) -> tuple[int, dict]:
        if place not in self.objects:
            return make_status(404)
        left = self.budgets.get(f"{namespace}/{name}", 0)
        if left:
            self.budgets[f"{namespace}/{name}"] = left - 1
            return make_status(429)
        del self.objects[place]
        if self.on_evict:
            self.on_evict(namespace, name)
        return 201, {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _put(self, path: str, body: dict) -> tuple[int, dict]:
        if path not in self.objects:
            return make_status(404)
        if body["metadata"].get("resourceVersion") not in {None, self.objects[path]["metadata"]["resourceVersion"]}:
            return make_status(409)
        return 200, self.put(path, body)

    def _patch(self, path: str, body) -> tuple[int, dict]:
        if path not in self.objects:
            return make_status(404)
        document = json.loads(json.dumps(self.objects[path]))
        if isinstance(body, dict):
            return 200, self.put(path, _merge(document, body))
        for edit in body:
            *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in edit["path"].split("/")[1:]]
            target = document
            for part in parents:
                target = target[int(part)] if isinstance(target, list) else target[part]
            if edit["op"] == "test" and target.get(last) != edit["value"]:
                return make_status(422)
            target[last] = edit["value"]
        return 200, self.put(path, document)

    def _delete(self, path: str, _) -> tuple[int, dict]:
        if self.objects.pop(path, None) is None:
            return make_status(404)
        return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}


def _selected(document: dict, selector: str) -> bool:
    """Say whether labels match a selector of terms like `key`, `!key`, `key=value`, `key in (a,b)`, `key notin (a)`."""
    labels = document["metadata"].get("labels") or {}
    for term in re.findall(r"(?:[^,(]|\([^)]*\))+", selector):
        if several := re.fullmatch(r"\s*(\S+)\s+(in|notin)\s+\(([^)]*)\)\s*", term):
            inside = labels.get(several[1]) in [value.strip() for value in several[3].split(",")]
            good = inside == (several[2] == "in")
        elif pair := re.fullmatch(r"\s*([^=!\s]+)\s*(!=|==?)\s*(\S*)\s*", term):
            good = (labels.get(pair[1]) == pair[3]) == (pair[2] != "!=")
        else:
            good = (term.strip().lstrip("!") in labels) != term.strip().startswith("!")
        if not good:
            return False
    return True


def _merge(document, patch):
    """Apply a merge patch (RFC 7386); strategic ones are taken for merge patches."""
    if not isinstance(patch, dict):
        return patch
    document = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            document.pop(key, None)
        else:
            document[key] = _merge(document.get(key), value)
    return document


def make_status(code: int) -> tuple[int, dict]:
    """Return an error as the API server tells it."""
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}


@contextmanager
def serve_kube_api() -> Iterator[KubeApi]:
    """Serve an empty API server until the block ends."""
    api = KubeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

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

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the names of http.server

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


def write_kubeconfig(api: KubeApi, folder) -> str:
    """Write a kubeconfig for this API server into a folder and return its path."""
    place = {"name": "x", "cluster": {"server": api.url}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    document = {"clusters": [place], "contexts": [context], "users": [{"name": "x", "user": {}}]}
    file = folder / "kubeconfig"
    file.write_text(json.dumps({**document, "apiVersion": "v1", "kind": "Config", "current-context": "x"}))
    return str(file)
