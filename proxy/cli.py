"""The command `admend`: patch, inspect, verify, proxy.

Owns arguments, exit codes and what is printed. Exit codes: 0 patched or clean (the JSON says which), 1 failed, 2 usage
(a wrong configuration included), 3 unsupported image. With `--json` exactly one document goes to standard output;
everything else goes to standard error.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from certs.errors import CertificateError, SettingsError
from certs.settings import load_settings
from proxy.config import ProxyConfig
from proxy.errors import AdmendError, MalformedInput, ResourceExhausted, Unsupported

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_UNSUPPORTED = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    options = make_parser().parse_args(arguments)
    try:
        code = asyncio.run(_run(options))
    except Unsupported as error:
        code = _fail(options, error, EXIT_UNSUPPORTED)
    except AdmendError as error:
        code = _fail(options, error, EXIT_FAILED)
    except SettingsError as error:
        code = _fail(options, MalformedInput(str(error)), EXIT_USAGE)
    except CertificateError as error:
        code = _fail(options, AdmendError(str(error)), EXIT_FAILED)
    except OSError as error:  # a cache or key folder that cannot be written, and the like
        code = _fail(options, ResourceExhausted(f"{error.filename or 'a file'}: {error.strerror}"), EXIT_FAILED)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="admend",
        description="Patch the OS packages of container images without running anything of them.",
        epilog="IMAGE and DEST: host[:port]/name[:tag][@digest], oci:DIR[:tag], oci-archive:FILE, docker-archive:FILE. "
        "Exit codes: 0 patched or clean, 1 failed, 2 usage, 3 unsupported image.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    patch = commands.add_parser("patch", help="patch one image and write the result")
    _add_image(patch)
    patch.add_argument(
        "-r",
        "--report",
        metavar="FILE",
        help="patch only what this Trivy JSON report names (- reads it from standard input)",
    )
    patch.add_argument("-t", "--tag", help="tag of the patched image (default: the image's tag with -patched)")
    patch.add_argument(
        "-o", "--output", metavar="DEST", help="where the patched image goes (default: beside the original)"
    )
    patch.add_argument("--key", type=Path, help="sign the result with this private key (PEM); registries only")
    patch.add_argument("--dry-run", action="store_true", help="say what would be done and write nothing")
    patch.add_argument("--scope", choices=("all", "security"), help="every upgrade, or those of security sources")
    inspect = commands.add_parser("inspect", help="list packages, available upgrades and what would be skipped")
    _add_image(inspect)
    verify = commands.add_parser("verify", help="check the signature of a patched image")
    verify.add_argument("image", metavar="IMAGE")
    verify.add_argument("--key", type=Path, required=True, metavar="PUB", help="the proxy's public key (PEM)")
    verify.add_argument("--source", metavar="IMAGE", help="the original that it must have been made from")
    _add_common(verify)
    proxy = commands.add_parser("proxy", help="run the patching proxy")
    proxy.add_argument("--config", type=Path, required=True, metavar="FILE")
    return parser


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="P",
        help="platform of an index, for instance linux/arm64; may be given again (default: this machine's)",
    )
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the proxy's configuration file, for its upstream, sources and cache settings",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


async def _run(options: argparse.Namespace) -> int:
    """Import what the subcommand needs, and no more, and run it."""
    config = load_settings(options.config, ProxyConfig) if options.config else None
    if options.command == "proxy":
        from proxy.serve import serve  # noqa: PLC0415 - only this command serves

        if config is None:
            raise MalformedInput("admend proxy needs --config FILE")
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request
        try:
            await serve(config)
        except OSError as error:
            raise AdmendError(f"cannot serve on {config.listen.host}:{config.listen.port}: {error}") from error
        return EXIT_DONE
    from proxy import command  # noqa: PLC0415 - likewise

    answer = await command.run(options, config)
    _show(json.dumps(answer.document, indent=2) if options.json else answer.text)
    return answer.code


def _show(text: str) -> None:
    """Print to standard output; a reader that has gone away is no error of ours."""
    try:
        print(text, flush=True)  # noqa: T201 - the command's output
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(options: argparse.Namespace, error: AdmendError, code: int) -> int:
    if getattr(options, "json", False):
        document: dict[str, Any] = {"outcome": "unsupported" if code == EXIT_UNSUPPORTED else "failed"}
        _show(json.dumps({**document, "error": error.code, "reason": str(error)}, indent=2))
    else:
        print(f"admend: {error}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    main()
