"""The command `admend`: patch, inspect, verify, status, audit, proxy.

Owns arguments, exit codes and what is printed. Exit codes: 0 patched or clean (the JSON says which), 1 failed, 2 usage
(a wrong configuration included), 3 unsupported image. With `--json` exactly one document goes to standard output;
everything else goes to standard error.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from certs.errors import CertificateError, SettingsError
from proxy.errors import AdmendError, Interrupted, ResourceExhausted, Unsupported, UsageError

EXIT_DONE, EXIT_FAILED, EXIT_UNSUPPORTED = 0, 1, 3
EXITS = {UsageError.code: 2, Unsupported.code: EXIT_UNSUPPORTED, Interrupted.code: 130}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run_told(words))


def _run_told(words: Sequence[str]) -> int:
    """Run the command and tell of its failure, whatever that is; returns the exit code."""
    try:
        return _run(make_parser().parse_args(words))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - nobody who runs this should have to read a trace
        problem = _explain(error)
    code = EXITS.get(problem.code, EXIT_FAILED)
    if "--json" in words:
        outcome = "unsupported" if code == EXIT_UNSUPPORTED else "failed"
        _show(json.dumps({"outcome": outcome, "error": problem.code, "reason": str(problem)}, indent=2))
    else:
        _tell(str(problem))
    return code


def _explain(error: BaseException) -> AdmendError:
    """Return the error as one that is told and has an exit code."""
    if isinstance(error, AdmendError):
        return error
    if isinstance(error, SettingsError):
        return UsageError(str(error))
    if isinstance(error, CertificateError):
        return AdmendError(str(error))
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted; no half-written image has its name")
    if isinstance(error, OSError):  # a cache or key folder that cannot be written, and the like
        where = error.filename2 or error.filename
        return ResourceExhausted(f"{where}: {error.strerror}" if where else str(error))
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "unknown place"
    return AdmendError(f"a mistake of admend's own, please report it: {type(error).__name__}: {error} ({place})")


class _Parser(argparse.ArgumentParser):
    """A parser that raises what it has to say, so that --json holds for that too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage().strip()}")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands; what is wrong with the arguments is raised as UsageError."""
    parser = _Parser(
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
    _add_policy(patch)
    inspect = commands.add_parser("inspect", help="list packages, available upgrades and what would be skipped")
    _add_image(inspect)
    _add_policy(inspect)
    verify = commands.add_parser("verify", help="check the signature of a patched image")
    verify.add_argument("image", metavar="IMAGE")
    verify.add_argument("--key", type=Path, required=True, metavar="PUB", help="the proxy's public key (PEM)")
    verify.add_argument("--source", metavar="IMAGE", help="the original that it must have been made from")
    _add_common(verify)
    _add_status(commands.add_parser("status", help="show how the workloads of a cluster stand"))
    _add_audit(commands.add_parser("audit", help="answer who, what, when and why out of audit lines"))
    proxy = commands.add_parser("proxy", help="run the patching proxy")
    proxy.add_argument("--config", type=Path, required=True, metavar="FILE")
    return parser


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--proxy", required=True, metavar="URL", help="the proxy's address, as https://host:port")
    for name, text in (
        ("--token-file", "bearer token to ask with"),
        ("--ca-file", "authorities that the proxy's certificate may come from (PEM)"),
        ("--cert", "client certificate to ask with (PEM)"),
        ("--key", "its key (PEM)"),
    ):
        parser.add_argument(name, type=Path, metavar="FILE", help=text)
    parser.add_argument("-n", "--namespace", action="append", default=[], help="only this one; may be given again")
    parser.add_argument("--state", action="append", default=[], help="only workloads in this state; may be given again")
    parser.add_argument("--exit-code", action="store_true", help="exit 1 when a pod runs without a patch that is there")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="audit files (also .gz), folders of them, - for standard input",
    )
    for name in ("since", "until"):
        parser.add_argument(
            f"--{name}", metavar="WHEN", help="2026-01-31T12:00:00Z, 2026-01-31, or an age: 90m, 2h, 7d"
        )
    for name, text in (
        ("--namespace", "namespace of the pod"),
        ("--pod", "the pod, or its owner as ReplicaSet/name"),
        ("--image", "image, as the pod's author wrote it or as it was patched"),
        ("--user", "who asked for the pod"),
        ("--mode", "permissive, enforce, audit, restart"),
        ("--verdict", "rewrite, pin, keep, deny, would-rewrite, ..."),
        ("--outcome", "patched, clean, blocked, unsupported, pending, failed"),
        ("--cve", "a CVE that the image's patch fixes"),
        ("--package", "a package that moved or was left"),
    ):
        short = ("-n",) if name == "--namespace" else ()
        parser.add_argument(
            *short, name, action="append", default=[], metavar="PATTERN", help=f"{text}; may be given again"
        )
    parser.add_argument("--summary", action="store_true", help="show counts instead of lines")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and nothing else")


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scope", choices=("all", "security"), help="every upgrade, or those of security sources")
    parser.add_argument(
        "--transitions",
        choices=("none", "new", "full"),
        help="add nothing; or what upgrades newly need, as apt-get upgrade --with-new-pkgs does; or also remove what"
        " they must not be with, as apt-get dist-upgrade does",
    )
    parser.add_argument(
        "--unknown-scripts",
        choices=("skip", "apply"),
        help="leave packages whose maintainer scripts are not understood, or move their files without them",
    )


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


def _run(options: argparse.Namespace) -> int:
    """Import what the subcommand needs, and no more, and run it.

    What takes long to import is imported here, where an interrupt is told like any other.
    """
    import asyncio  # noqa: PLC0415

    from certs.settings import load_settings  # noqa: PLC0415
    from proxy.config import ProxyConfig  # noqa: PLC0415

    if options.command == "proxy":
        from proxy.serve import run  # noqa: PLC0415

        run(load_settings(options.config, ProxyConfig))
        return EXIT_DONE
    if options.command == "status":
        from proxy.fleet.command import run_status  # noqa: PLC0415

        text, behind = run_status(options)
        _show(text)
        return EXIT_FAILED if behind and options.exit_code else EXIT_DONE
    if options.command == "audit":
        from proxy.audit.command import run_audit  # noqa: PLC0415

        return EXIT_DONE if run_audit(options, _show, _tell) else EXIT_FAILED
    from proxy import command  # noqa: PLC0415

    config = load_settings(options.config, ProxyConfig) if options.config else None
    answer = asyncio.run(command.run(options, config))
    _show(json.dumps(answer.document, indent=2) if options.json else answer.text)
    return answer.code


def _show(text: str) -> bool:
    """Print to standard output; a reader that has gone away is no error of ours, but ends the matter (False)."""
    try:
        print(text, flush=True)  # noqa: T201 - the command's output
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _tell(text: str) -> None:
    print(f"admend: {text}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
