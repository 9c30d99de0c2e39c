"""The error tree: one class per reaction.

    AdmendError
    |- MalformedInput       somebody's bytes are wrong: name file, line and text; trying again is no use
    |  `- UsageError         and it is the person who runs admend who wrote them: the command or its settings
    |- UpstreamUnavailable  the other side did not answer as it should: try again, after `retry_after` seconds if given
    |- UpstreamRefused      the other side said no (401, 403, 404): a person must change something
    |- TrustFailure         a digest, signature, date or address is not to be trusted: refuse, and say so
    |- Unsupported          there is nothing here that admend can patch: leave it as it is
    |- Interrupted          the person who runs admend ended it
    `- ResourceExhausted    a limit of this machine or of the configuration was reached (disk, memory, time)

Every message says what is wrong, where, and what to do about it, in words for the person who runs admend.
Messages never hold a secret.
"""

from typing import ClassVar, Self


class AdmendError(Exception):
    """Base of every error that admend raises on purpose; `code` names the class on the wire and in logs."""

    code: ClassVar[str] = "internal"

    def within(self, where: str) -> Self:
        """Return this error, its message beginning with `where` it happened."""
        self.args = (f"{where}: {self}",)
        return self


class MalformedInput(AdmendError):
    """Bytes from outside do not follow their format.

    Args:
        message: what is wrong.
        file: which file or URL holds the bytes.
        line: line number in it, from 1.
        text: the offending text; shortened to 120 characters and shown with its escapes.
    """

    code = "malformed-input"

    def __init__(self, message: str, *, file: str = "", line: int = 0, text: str = "") -> None:
        where = f"{file}:{line}" if file and line else file
        shown = f": {text[:120]!r}" if text else ""
        super().__init__(f"{where}: {message}{shown}" if where else f"{message}{shown}")
        self.file, self.line, self.text = file, line, text


class UsageError(MalformedInput):
    """A command was called wrongly, or its settings file is wrong: the person who typed it must change that."""

    code = "usage"


class UpstreamUnavailable(AdmendError):
    """A server outside did not answer (`status` 0), or answered 429 or 5xx; `retry_after` is in seconds, or None."""

    code = "upstream-unavailable"

    def __init__(self, message: str, *, retry_after: float | None = None, status: int = 0) -> None:
        super().__init__(message)
        self.retry_after, self.status = retry_after, status


class UpstreamRefused(AdmendError):
    """A server outside refused (401, 403) or does not have what was asked for (404); `status` is the HTTP status."""

    code = "upstream-refused"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class TrustFailure(AdmendError):
    """A digest, signature, date, name or address failed its check; nothing of it was used."""

    code = "trust-failure"


class Unsupported(AdmendError):
    """Nothing here can be patched (no package database, Windows, scratch, an unknown format)."""

    code = "unsupported"


class Interrupted(AdmendError):
    """The person who ran the command ended it."""

    code = "interrupted"


class ResourceExhausted(AdmendError):
    """A limit was reached: disk, memory, time or a configured size."""

    code = "resource-exhausted"


ERRORS: dict[str, type[AdmendError]] = {
    cls.code: cls
    for cls in (
        AdmendError,
        MalformedInput,
        UsageError,
        UpstreamUnavailable,
        UpstreamRefused,
        TrustFailure,
        Unsupported,
        Interrupted,
        ResourceExhausted,
    )
}
