"""Uploads that are under way: blobs that clients send in one or several requests.

Owns the sessions. They live in memory and in temporary files: a restart forgets them and clients start again, as the
distribution specification expects. Refuses more than `MAX_SESSIONS` at once, and pieces that do not follow each other.
Specification: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs
"""

import asyncio
import secrets
import time
from dataclasses import dataclass, field

from proxy.blobs import BlobStore
from proxy.errors import ResourceExhausted
from proxy.incoming import Incoming

MAX_SESSIONS = 256
IDLE = 3600.0  # seconds after which an upload that nobody continues is dropped
MAX_BLOB = 32 << 30  # bytes


@dataclass(slots=True)
class Session:
    """One upload into one repository."""

    id: str
    repository: str
    incoming: Incoming
    used: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def range(self) -> str:
        """What has come in, as the Range header of the specification: first and last byte."""
        return f"0-{max(self.incoming.size - 1, 0)}"


class Uploads:
    """All sessions of a server."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._sessions: dict[str, Session] = {}

    def start(self, repository: str) -> Session:
        """Begin an upload; raises ResourceExhausted when too many are under way."""
        now = time.monotonic()
        for session in tuple(self._sessions.values()):
            if now - session.used > IDLE and not session.lock.locked():
                self.drop(session)
        if len(self._sessions) >= MAX_SESSIONS:
            raise ResourceExhausted(f"{MAX_SESSIONS} uploads are under way; try again when some have ended")
        session = Session(secrets.token_hex(16), repository, self._blobs.upload(MAX_BLOB))
        self._sessions[session.id] = session
        return session

    def find(self, repository: str, name: str) -> Session | None:
        """Return the session of that id in that repository."""
        session = self._sessions.get(name)
        if session is None or session.repository != repository:
            return None
        session.used = time.monotonic()
        return session

    def drop(self, session: Session) -> None:
        """End a session; what was not committed is removed."""
        self._sessions.pop(session.id, None)
        session.incoming.close()

    def close(self) -> None:
        """End all sessions."""
        for session in tuple(self._sessions.values()):
            self.drop(session)
