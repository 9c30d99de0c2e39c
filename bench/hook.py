"""The webhook under test: `admend-webhook serve`, its own process, configured as in production, before a `Subject`.

Owns its configuration (TLS, the proxy by token, the signing key's public half), start and end, and its audit lines,
which it writes to standard output as in a cluster; here that is a file.
"""

import json
import subprocess
import sys
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import yaml
from needs import REPOSITORY
from processes import END_SECONDS, free_port, listening, wait_until
from subject import CERTS, HOME, TOKEN, Subject

from certs.holdings import CA_CERT, SERVER_CERT, SERVER_KEY
from proxy.trust import SigningKey


class Hook:
    """A running webhook; use it inside of the proxy's own block."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._stack = ExitStack()
        self.port = free_port()
        self.pid = 0
        self._lines = HOME / "audit.jsonl"

    def __enter__(self) -> Self:
        public = HOME / "signing.pub"
        public.write_bytes(SigningKey.load(HOME / "keys" / "signing.pem").public.render_pem())
        file, log = HOME / "webhook.yaml", HOME / "webhook.log"
        file.write_text(yaml.safe_dump(self._config(str(public))))
        command = [sys.executable, "-m", "webhook.cli", "serve", "--config", str(file)]
        out, err = (self._stack.enter_context(path.open("wb")) for path in (self._lines, log))
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=out, stderr=err)
        self._stack.callback(_end, process)
        self.pid = process.pid
        wait_until(lambda: listening(self.port), "the webhook", process, log)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def audit_lines(self) -> list[dict[str, Any]]:
        """Return the audit lines so far; all of them once the webhook has ended."""
        return [json.loads(line) for line in self._lines.read_text().splitlines()]

    def _config(self, public: str) -> dict[str, Any]:
        tls = {"cert_file": str(CERTS / SERVER_CERT), "key_file": str(CERTS / SERVER_KEY)}
        url, mirror = f"https://127.0.0.1:{self._subject.port}", f"127.0.0.1:{self._subject.port}"
        return {
            "listen": {"port": self.port, "tls": tls},
            "proxy": {"urls": [url], "ca_file": str(CERTS / CA_CERT), "token_file": str(TOKEN)},
            "mirror": {"reference": mirror},
            "trust": {"keys": [public]},
        }


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
