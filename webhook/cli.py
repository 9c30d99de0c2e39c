"""The command `admend-webhook`: `serve` and `demo`.

Owns the command line and the exit codes: 0 well, 1 failed, 2 usage (a wrong configuration included).
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from certs.errors import CertificateError, SettingsError
from certs.settings import load_settings
from proxy.errors import AdmendError
from webhook.config import WebhookConfig

OK, FAILED, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request
    if options.command == "demo":
        from webhook.demo.main import run  # noqa: PLC0415 - the demo starts everything; serving needs none of it

        return run(options.image, options.json)
    return _serve(options.config)


def _serve(file: Path) -> int:
    from webhook.serve import serve  # noqa: PLC0415 - the server's libraries are slow to import, usage errors are not

    try:
        config = load_settings(file, WebhookConfig)
    except SettingsError as error:
        _say(f"the configuration is wrong: {error}")
        return USAGE
    try:
        asyncio.run(serve(config))
    except (AdmendError, CertificateError) as error:
        _say(str(error))
        return FAILED
    except OSError as error:
        _say(f"cannot serve on {config.listen.host}:{config.listen.port}: {error}")
        return FAILED
    return OK


def _say(text: str) -> None:
    sys.stderr.write(f"admend-webhook: {text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="admend-webhook", description="Rewrites pods' images to patched ones.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the admission webhook")
    serve.add_argument("--config", metavar="F", type=Path, required=True, help="the configuration, YAML or JSON")
    demo = commands.add_parser("demo", help="admit one pod on this machine, everything embedded")
    demo.add_argument("image", metavar="IMAGE", nargs="?", help="the image to patch; without one, one is composed")
    demo.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
