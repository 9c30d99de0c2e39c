"""The command `admend-certs`: issue, rotate, rotate-signing-key, show.

Owns arguments, exit codes and what is printed. Exit codes: 0 done, 1 failed, 2 usage (a wrong configuration included),
130 interrupted. With `--json` exactly one document goes to standard output; messages go to standard error.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certs.authority import common_name_of, names_of, renewal_time
from certs.config import CertsConfig
from certs.errors import CertificateError, SettingsError
from certs.holdings import Wanted, parse_holdings
from certs.lease import Lease
from certs.logs import start_logging
from certs.rotate import keep_fresh, reconcile, rotate_signing
from certs.settings import load_settings
from certs.store import FolderStore, Store

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

Row = dict[str, object]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    options = make_parser().parse_args(arguments)
    start_logging()
    try:
        options.run(options)
    except (CertificateError, SettingsError) as error:
        print(f"admend-certs: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_USAGE if isinstance(error, SettingsError) else EXIT_FAILED)
    except BrokenPipeError:  # who reads the output has had enough of it, and so has the interpreter's last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except OSError as error:
        print(f"admend-certs: {error.filename or 'failed'}: {error.strerror}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(EXIT_DONE)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="admend-certs", description="Make, renew and show the certificates that admend's services use."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    issue = commands.add_parser("issue", help="make what is missing or due in a folder, once")
    issue.add_argument("--dir", type=Path, required=True, metavar="DIR", help="the folder (made if need be)")
    issue.add_argument("--dns", action="append", default=[], metavar="NAME", help="host name; may be given again")
    issue.add_argument("--ip", action="append", default=[], metavar="IP", help="address; may be given again")
    issue.add_argument("--client", metavar="NAME", help="also make a client certificate of this name")
    issue.add_argument("--signing", action="store_true", help="also make the key pair that signs patched images")
    issue.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    issue.set_defaults(run=_issue)
    rotate = commands.add_parser("rotate", help="keep certificates fresh, in a folder or in a cluster's Secret")
    rotate.add_argument("--config", type=Path, required=True, metavar="FILE")
    rotate.add_argument("--once", action="store_true", help="make one pass and end")
    rotate.set_defaults(run=_rotate)
    key = commands.add_parser("rotate-signing-key", help="replace the key that signs images, without a gap in trust")
    place = key.add_mutually_exclusive_group(required=True)
    place.add_argument("--config", type=Path, metavar="FILE", help="the configuration that rotate runs with")
    place.add_argument("--dir", type=Path, metavar="DIR", help="the folder that issue made")
    key.set_defaults(run=_rotate_signing_key)
    show = commands.add_parser("show", help="say what a folder holds")
    show.add_argument("--dir", type=Path, required=True, metavar="DIR")
    show.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    show.set_defaults(run=_show)
    return parser


def _issue(options: argparse.Namespace) -> None:
    if not options.dns and not options.ip:
        raise CertificateError("name at least one host or address: --dns NAME, --ip IP")
    wanted = Wanted(tuple(options.dns), tuple(options.ip), options.client, options.signing)
    reconcile(FolderStore(options.dir), wanted)
    _show(options)


def _rotate(options: argparse.Namespace) -> None:
    config = load_settings(options.config, CertsConfig)
    start_logging(config.log)
    store, after_pass, lease = _open(config)
    if options.once:
        reconcile(store, config.wanted)
        if after_pass:
            after_pass()
        return
    asyncio.run(_serve(config, store, after_pass, lease))


def _rotate_signing_key(options: argparse.Namespace) -> None:
    store = FolderStore(options.dir) if options.dir else _open(load_settings(options.config, CertsConfig))[0]
    when = rotate_signing(store)
    text = f"{store}: the new key signs from {when.isoformat()} on, at the next pass of rotate or issue" if when else ""
    print(text or f"{store}: nothing to do")  # noqa: T201 - this is the command's output


def _open(config: CertsConfig) -> tuple[Store, Callable[[], object] | None, Lease | None]:
    if config.folder:
        return FolderStore(config.folder), None, None
    from certs.cluster import open_cluster  # noqa: PLC0415 - the kubernetes package is large

    assert config.cluster is not None  # noqa: S101 - the model holds one of the two
    found = open_cluster(config.cluster)
    return found.store, found.after_pass, found.lease


async def _serve(
    config: CertsConfig, store: Store, after_pass: Callable[[], object] | None, lease: Lease | None
) -> None:
    """Repeat the pass until SIGTERM or SIGINT."""
    passes = keep_fresh(store, config.wanted, every=config.check_seconds, after_pass=after_pass, lease=lease)
    task = asyncio.create_task(passes)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        async with lease or contextlib.nullcontext():
            await task


def _show(options: argparse.Namespace) -> None:
    rows = describe(options.dir)
    if options.json:
        print(json.dumps({"certificates": rows}, indent=2))  # noqa: T201 - this is the command's output
        return
    for row in rows:
        print("  ".join(f"{key}: {value}" for key, value in row.items() if value))  # noqa: T201 - likewise


def describe(folder: Path) -> list[Row]:
    """Return one row per certificate in a folder; never any key material.

    Raises:
        CertificateError: there is no authority, or its files are damaged.
    """
    held = parse_holdings(FolderStore(folder).read())
    if held is None:
        raise CertificateError(f"{folder} holds no certificate authority; admend-certs issue makes one")
    rows = [_row("authority", held.authority.certificate)]
    rows += [_row("successor", held.successor.certificate)] if held.successor else []
    rows += [_row("retired", certificate) for certificate in held.retired]
    rows += [_row("server", held.server.certificate)] if held.server else []
    rows += [_row("client", held.client.certificate)] if held.client else []
    return rows


def _row(role: str, certificate: x509.Certificate) -> Row:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return {
        "role": role,
        "name": common_name_of(certificate),
        "names": [str(each.value) for each in names_of(certificate)],
        "not_after": end.isoformat(),
        "renewal": renewal_time(start, end).isoformat(timespec="seconds"),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }


if __name__ == "__main__":
    main()
