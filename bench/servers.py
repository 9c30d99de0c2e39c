"""The servers that stand for the outside: the loopback archive and the upstream registry, each in its own process.

Owns their start. Their ports are theirs for the run, but the archive's, which the images name.
"""

import json
from contextlib import ExitStack

import archive as archive_server
import images
from needs import FOLDER, Archive
from processes import free_port, listening, python, running, wait_until


def start_archive(stack: ExitStack, archive: Archive) -> int:
    """Start the loopback archive on the port that the images name, or on a new one when that is taken."""
    kept = FOLDER / "port"
    port = int(kept.read_text()) if kept.exists() else free_port()
    if listening(port):
        port = free_port()
    kept.write_text(str(port))
    log = FOLDER / "archive.log"
    routes = [f"{name}={uri}" for name, uri in archive.routes.items()]
    command = python("archive.py", str(port), FOLDER / "archive", *routes)
    process = stack.enter_context(running(command, log))
    wait_until(lambda: listening(port), archive_server.__name__, process, log)
    return port


def start_upstream(stack: ExitStack) -> tuple[str, str]:
    """Start the upstream; returns its plain and its shaped address."""
    ready, log = FOLDER / "upstream.json", FOLDER / "upstream.log"
    ready.unlink(missing_ok=True)
    process = stack.enter_context(running(python("upstream.py", images.UPSTREAM, ready), log))
    wait_until(ready.exists, "the upstream", process, log)
    ports = json.loads(ready.read_text())
    return f"127.0.0.1:{ports['plain']}", f"127.0.0.1:{ports['shaped']}"
