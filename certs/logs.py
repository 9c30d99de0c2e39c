"""What the three processes write to standard error: one line per record, as text or as JSON.

Owns the settings section `log:`, the formatter and what each line carries. A JSON line has `time` (RFC 3339, UTC),
`level`, `logger`, `message`, and where there is one `uid` (of the admission request), `trace_id`, `error` (a trace of
the program). Control characters never reach a line: what an image or a pod's author wrote cannot forge a second one.
Messages are written not to hold secrets; a password in an address is hidden here all the same.
"""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from certs.settings import Section

MAX_MESSAGE = 8192  # characters of one message; a line stays whole in a pipe that nobody reads at once
QUIET = ("httpx", "httpcore", "urllib3", "kubernetes")  # they log whole URLs and headers: signatures in queries, tokens

UID: ContextVar[str] = ContextVar("uid", default="")  # of the admission request that is being answered
TRACE_ID: ContextVar[str] = ContextVar("trace_id", default="")

_PASSWORD = re.compile(r"(?<=://)[^/@\s]*(?=@)")


class LogConfig(Section):
    """How a process logs to standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


def start_logging(config: LogConfig | None = None, stream: TextIO | None = None) -> None:
    """Send all records to `stream` (standard error) in the form that the settings ask for; may be called again."""
    config = config or LogConfig()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if config.format == "json" else TextLines())
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """Lines for people: `LEVEL logger: message`, a trace of the program on the lines after it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = f"{record.levelname} {record.name}: {clean_message(record.getMessage())}"
        uid = UID.get()
        line += f" (uid {clean_message(uid)})" if uid else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """Lines for machines: one JSON object each."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": clean_message(record.getMessage()),
            "uid": UID.get(),
            "trace_id": TRACE_ID.get(),
            "error": _hide(self.formatException(record.exc_info)) if record.exc_info else "",
        }
        return json.dumps({key: value for key, value in fields.items() if value or key == "message"})


def clean_message(text: str) -> str:
    """Return one line of printable text, the passwords of addresses hidden."""
    plain = "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text[: MAX_MESSAGE + 1])
    return _hide(plain if len(plain) <= MAX_MESSAGE else f"{plain[:MAX_MESSAGE]}...")


def _hide(text: str) -> str:
    return _PASSWORD.sub("***", text)
