"""The command `admend-webhook`: `serve` and `demo`.

Owns the command line and the exit codes: 0 well, 1 failed, 2 usage (a wrong configuration included).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from certs.errors import CertificateError, SettingsError
from certs.logs import start_logging
from proxy.errors import AdmendError, Interrupted, ResourceExhausted

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; what takes long to import is imported in here."""
    options = _parser().parse_args(arguments)
    as_json = getattr(options, "json", False)
    try:
        return _run(options)
    except OSError as error:
        where = error.filename2 or error.filename
        problem = ResourceExhausted(f"{where}: {error.strerror}" if where else str(error))
        return _fail(problem, FAILED, as_json=as_json)
    except KeyboardInterrupt:
        return _fail(Interrupted("interrupted"), INTERRUPTED, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - nobody who runs the command should have to read a trace
        mistake = f"a mistake of admend's own, please report it: {type(error).__name__}: {error}"
        return _fail(AdmendError(mistake), FAILED, as_json=as_json)


def _run(options: argparse.Namespace) -> int:
    start_logging()
    if options.command == "demo":
        from webhook.demo.main import run  # noqa: PLC0415

        return run(options.image, options.json, options.config)
    return _serve(options.config)


def _serve(file: Path) -> int:
    import asyncio  # noqa: PLC0415

    from certs.settings import describe_listening, load_settings  # noqa: PLC0415
    from webhook.config import WebhookConfig  # noqa: PLC0415
    from webhook.serve import serve  # noqa: PLC0415

    try:
        config = load_settings(file, WebhookConfig)
    except SettingsError as error:
        _say(f"the configuration is wrong: {error}")
        return USAGE
    start_logging(config.log)
    try:
        asyncio.run(serve(config))
    except (AdmendError, CertificateError) as error:
        _say(str(error))
        return FAILED
    except OSError as error:
        _say(describe_listening(config.listen, error))
        return FAILED
    return OK


def _fail(error: AdmendError, code: int, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"outcome": "failed", "error": error.code, "reason": str(error)}))  # noqa: T201 - its output
    else:
        _say(str(error))
    return code


def _say(text: str) -> None:
    sys.stderr.write(f"admend-webhook: {text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="admend-webhook", description="Rewrites pods' images to patched ones.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the admission webhook")
    serve.add_argument("--config", metavar="F", type=Path, required=True, help="the configuration, YAML or JSON")
    demo = commands.add_parser("demo", help="admit one pod on this machine, everything embedded")
    demo.add_argument("image", metavar="IMAGE", nargs="?", help="the image to patch; without one, one is composed")
    demo.add_argument(
        "--config", metavar="F", type=Path, help="a proxy's configuration, of which sources and policy count"
    )
    demo.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
