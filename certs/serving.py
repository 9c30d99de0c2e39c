"""TLS contexts that follow their files: a renewed certificate is used without a restart.

`ServingContext` is for servers. The files are looked at when a handshake begins (a few stat calls), so nothing has to
run in the background, and a server that was asleep for a month serves the newest chain to the first caller. The
context handed out never changes; each handshake is given a context made from the current files (the server name
callback of `ssl` is the place where that can still be done). Connections that are open keep what they began with.
`client_context` is the same for clients.

Files that cannot be used leave the last good chain in use (see `following`). Only the first load may fail.
"""

import ssl
import time
from asyncio import sslproto
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from certs.errors import CertificateError
from certs.following import Followed

FIRST_LOAD_TRIES = 20
FIRST_LOAD_PAUSE = 0.05  # seconds; another process may be between the renames of certificate and key
TLS_BUFFER = 32 << 10  # bytes; a TLS record has 16 KiB at the most


def bound_tls_buffers() -> None:
    """Have each TLS connection that this process opens or takes from now on hold a buffer of 32 KiB.

    asyncio gives it 256 KiB for all its life: 50 MiB for 200 pods that are made at once, and as much for what is asked
    because of them.
    """
    sslproto.SSLProtocol.max_size = TLS_BUFFER


class ServingContext:
    """An SSLContext for servers that follows its files.

    Args:
        cert_file: the serving certificate and its intermediates, PEM.
        key_file: its private key, PEM.
        client_ca_file: authorities of client certificates; without it clients are not asked for one.
        require_client: refuse handshakes without a client certificate; else one is checked when it is given.

    Raises:
        CertificateError: the files cannot be loaded now.
    """

    def __init__(
        self,
        cert_file: Path,
        key_file: Path,
        client_ca_file: Path | None = None,
        *,
        require_client: bool = False,
    ) -> None:
        if require_client and client_ca_file is None:
            raise CertificateError("client certificates are required but no client authority file is named")
        self._files = (cert_file, key_file, client_ca_file)
        self._require_client = require_client
        self._expires: datetime
        self._source = _follow([cert_file, key_file, *filter(None, [client_ca_file])], self._make)
        self.context = self._source.current
        self.context.sni_callback = self._begin_handshake

    def expiry(self) -> float:
        """Return when the certificate of the next handshake expires, in seconds since the epoch."""
        _ = self._source.current
        return self._expires.timestamp()

    def _make(self) -> ssl.SSLContext:
        cert_file, key_file, client_ca_file = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(cert_file, key_file)
        self._expires = x509.load_pem_x509_certificate(cert_file.read_bytes()).not_valid_after_utc
        if client_ca_file is not None:
            context.load_verify_locations(client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED if self._require_client else ssl.CERT_OPTIONAL
        # A resumed session would carry a client certificate that was judged by authorities of an older file.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        return context

    def _begin_handshake(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._source.current


def client_context(ca_file: Path, cert_file: Path | None = None, key_file: Path | None = None) -> ssl.SSLContext:
    """Return a client's SSLContext that trusts `ca_file` alone and follows its files.

    New connections use the newest client certificate and trust authorities that were added to `ca_file`; one that was
    taken out of the file is trusted until the process ends or the authority expires.

    Raises:
        CertificateError: the files cannot be loaded now.
    """
    context = _ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def load() -> ssl.SSLContext:
        context.load_verify_locations(ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
        return context

    context.followed = _follow([ca_file, *filter(None, [cert_file, key_file])], load)
    return context


class _ClientContext(ssl.SSLContext):
    """A client's context that looks at its files before each new connection."""

    followed: Followed[ssl.SSLContext] | None = None

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        self._follow()
        return super().wrap_socket(*args, **options)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        self._follow()
        return super().wrap_bio(*args, **options)

    def _follow(self) -> None:
        if self.followed is not None:
            _ = self.followed.current


def _follow(files: list[Path], make: Callable[[], ssl.SSLContext]) -> Followed[ssl.SSLContext]:
    """Return what follows the files; the first load is tried for a moment, and raises CertificateError at last."""
    for tries_left in reversed(range(FIRST_LOAD_TRIES)):
        try:
            return Followed("certificates", files, make, (ValueError,))  # ssl.SSLError is an OSError
        except FileNotFoundError as error:
            missing = next((file for file in files if not file.exists()), files[0])
            raise CertificateError(f"{missing} is not there; admend-certs issue makes it") from error
        except ssl.SSLError as error:
            if not tries_left:
                names = ", ".join(map(str, files))
                raise CertificateError(
                    f"{names}: {error.reason or error}: certificate and key must be PEM and belong together"
                ) from error
            time.sleep(FIRST_LOAD_PAUSE)
        except (OSError, ValueError) as error:
            raise CertificateError(f"certificates cannot be loaded: {error}") from error
    raise AssertionError("the loop returns or raises")
