"""The command `admend status`: asks a proxy how the cluster's workloads stand, and shows it as a table.

Owns the question and the table. Nothing is asked of the cluster itself.
"""

import ssl
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from proxy.api import ErrorBody
from proxy.errors import MalformedInput, TrustFailure, UpstreamRefused, UpstreamUnavailable, UsageError
from proxy.fleet.judge import BEHIND
from proxy.fleet.report import ContainerStatus, State, StatusReport, WorkloadStatus

TIMEOUT = 30.0  # seconds
MAX_ANSWER = 32 << 20  # bytes
REFUSALS = frozenset({401, 403, 404})
MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class Question:
    """Which proxy, as whom, and what of its report is wanted (empty: all)."""

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    namespaces: tuple[str, ...] = ()
    states: tuple[State, ...] = ()


def run_status(options: Namespace) -> tuple[str, bool]:
    """Return what the command prints, and whether a pod runs without a patch that is there."""
    question = Question(
        url=options.proxy,
        token_file=options.token_file,
        ca_file=options.ca_file,
        cert_file=options.cert,
        key_file=options.key,
        namespaces=tuple(options.namespace),
        states=tuple(_state(text) for text in options.state),
    )
    report = fetch_report(question)
    behind = any(workload.state in BEHIND for workload in report.workloads)
    return (report.model_dump_json(indent=2) if options.json else render_report(report)), behind


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError as error:
        known = ", ".join(state.value for state in State)
        raise UsageError(f"--state is one of {known}", text=text) from error


def fetch_report(question: Question) -> StatusReport:
    """Return the report of a proxy, reduced to what is wanted.

    Raises:
        UsageError: the address or a file is wrong.
        UpstreamUnavailable, UpstreamRefused: the proxy did not answer, or refused.
        MalformedInput: what answered is no proxy.
    """
    url = httpx.URL(question.url)
    if url.scheme not in {"http", "https"} or not url.host:
        raise UsageError("--proxy is written http[s]://host[:port]", text=question.url)
    headers = {}
    if question.token_file is not None:
        if url.scheme != "https" and url.host not in {"localhost", "127.0.0.1", "::1"}:
            raise UsageError("a token goes over TLS only: --proxy must be an https address")
        token = _read(question.token_file.read_text, "--token-file").strip()
        headers["Authorization"] = f"Bearer {token}"
    context = _read(lambda: _context(question), "--ca-file, --cert or --key")
    try:
        with httpx.Client(verify=context, timeout=TIMEOUT, trust_env=False, follow_redirects=False) as client:
            answer = client.get(url.join("/v1/status"), headers=headers)
    except httpx.HTTPError as error:
        if isinstance(error.__context__, ssl.SSLError) or "CERTIFICATE_VERIFY" in str(error):
            raise TrustFailure(f"{url}: {error}; give the authority of its certificate by --ca-file") from error
        raise UpstreamUnavailable(f"{url} cannot be asked: {error or type(error).__name__}") from error
    return _reduce(_parse(str(url), answer), question)


def _read(read: Callable[[], Any], what: str) -> Any:
    try:
        return read()
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise UsageError(f"{what}: {error}") from error


def _context(question: Question) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=question.ca_file)
    if question.cert_file is not None:
        context.load_cert_chain(question.cert_file, question.key_file)
    return context


def _parse(url: str, answer: httpx.Response) -> StatusReport:
    try:
        if answer.status_code == httpx.codes.OK:
            return StatusReport.model_validate_json(answer.content)
        said = ErrorBody.model_validate_json(answer.content).message
    except ValidationError as error:
        raise MalformedInput(f"answered {answer.status_code}, and not as a proxy of admend does", file=url) from error
    if answer.status_code in REFUSALS:
        raise UpstreamRefused(f"{url}: {said}", status=answer.status_code)
    raise UpstreamUnavailable(f"{url}: {said}", status=answer.status_code)


def _reduce(report: StatusReport, question: Question) -> StatusReport:
    wanted = tuple(
        workload
        for workload in report.workloads
        if (not question.namespaces or workload.namespace in question.namespaces)
        and (not question.states or workload.state in question.states)
    )
    return report.model_copy(update={"workloads": wanted})


def render_report(report: StatusReport) -> str:
    """Return the report as a table: a line per workload, its containers' reasons below."""
    rows = [("NAMESPACE", "WORKLOAD", "STATE", "PODS", "SINCE FIX", "IMAGE")]
    notes: dict[int, list[str]] = {}
    for workload in report.workloads:
        worst = next(each for each in workload.containers if each.state is workload.state)
        name = f"{workload.kind}/{workload.name}"
        rows.append((workload.namespace, name, workload.state.value, str(workload.pods), _since(worst), worst.image))
        notes[len(rows) - 1] = _notes(workload)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        lines.append("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        lines += [f"    {note}" for note in notes.get(number, ())]
    return "\n".join([*lines, "", *_summary(report)])


def _since(status: ContainerStatus) -> str:
    if status.exposed_seconds is not None:
        return f"{_duration(status.exposed_seconds)}, open"
    return f"fixed in {_duration(status.delay_seconds)}" if status.delay_seconds is not None else "-"


def _duration(seconds: float) -> str:
    for unit, letter in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {letter}"
    return f"{seconds:.0f} s"


def _notes(workload: WorkloadStatus) -> list[str]:
    """Return what a person should know beyond the state."""
    notes = []
    for each in workload.containers:
        if each.state in {State.CURRENT, State.CLEAN, State.EXCLUDED} and len(workload.containers) > 1:
            continue
        if each.reason:
            notes.append(f"{each.container}: {each.reason}")
        if each.state is State.BLOCKED:
            notes += [f"{each.container}: {blocker}" for blocker in each.blockers]
    return [*notes, *([f"restart: {workload.restart}"] if workload.restart else [])]


def _summary(report: StatusReport) -> Sequence[str]:
    told = ", ".join(f"{count} {state.value}" for state, count in report.states.items() if count) or "none"
    lines = [f"{report.pods} pods, {report.images} images; containers: {told}"]
    if not report.complete:
        lines.append(f"{report.asked} of {report.images} images have been looked at so far")
    if report.left_out:
        lines.append(f"{report.left_out} more workloads had no room in the report")
    if report.unreadable:
        lines.append(f"{report.unreadable} pods could not be read")
    if report.problem:
        lines.append(f"the last round failed: {report.problem}")
    lines.append(f"as of {report.time.isoformat(timespec='seconds')}" + (f", by {report.by}" if report.by else ""))
    return lines
