"""One reconcile pass over certificates, and the loop that repeats it.

Owns when passes happen. A pass reads what a store holds, renews what is due and writes it back; a pass over fresh
certificates changes nothing. Passes of several processes over one store agree, since the store lets one change at a
time.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from certs.errors import CertificateError
from certs.holdings import FILES, Files, Wanted, renew_files
from certs.lease import Lease
from certs.signing import OVERLAP, SIGNING_FILES, introduce_successor, parse_signing, render_signing
from certs.store import Store

RETRY_SECONDS = 60.0

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time, in whole seconds as certificates have it."""
    return datetime.now(UTC).replace(microsecond=0)


def reconcile(store: Store, wanted: Wanted, now: datetime | None = None) -> bool:
    """Make and renew what is due in `store`; say whether anything was changed.

    Raises:
        CertificateError: a name is wrong, the authority is damaged, or the store cannot be read or written.
    """
    moment = now or utc_now()

    def change(files: Files) -> Files:
        return renew_files(files, wanted, moment)

    return store.update(change)


def rotate_signing(store: Store, now: datetime | None = None) -> datetime | None:
    """Make a successor of the signing key, unless one is under way; return when it takes over.

    Raises:
        CertificateError: there is no signing key yet, it is damaged, or the store cannot be read or written.
    """
    moment, when = now or utc_now(), None

    def change(files: Files) -> Files:
        nonlocal when
        keys = parse_signing(files)
        if keys is None:
            raise CertificateError(f"{store} holds no signing key that could be replaced; make one first")
        after = introduce_successor(keys, moment)
        when = after.introduced + OVERLAP if after.introduced else None
        rest = {name: data for name, data in files.items() if name not in SIGNING_FILES}
        merged = {**rest, **render_signing(after)}
        return {name: merged[name] for name in FILES if name in merged}

    store.update(change)
    return when


async def keep_fresh(
    store: Store,
    wanted: Wanted,
    *,
    every: float,
    after_pass: Callable[[], object] | None = None,
    lease: Lease | None = None,
) -> None:
    """Repeat the pass for ever, every `every` seconds, while `lease` is held if there is one.

    A failure is logged once, until it is another one or over, and tried again within a minute. `after_pass` runs after
    each pass that did not fail, in the same thread as the pass (it may block).
    """

    def run_pass() -> None:
        if reconcile(store, wanted):
            log.info("certificates in %s were renewed", store)
        if after_pass:
            after_pass()

    trouble = ""
    while True:
        if lease:
            await lease.wait_held()
        pause = every
        try:
            await asyncio.to_thread(run_pass)
        except CertificateError as error:
            if str(error) != trouble:
                log.error("certificates in %s cannot be renewed: %s", store, error)  # noqa: TRY400 - the text says it all
            trouble, pause = str(error), min(every, RETRY_SECONDS)
        else:
            if trouble:
                log.info("certificates in %s are kept again", store)
            trouble = ""
        await asyncio.sleep(pause)
