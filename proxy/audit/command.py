"""The command `admend audit`: who, what, when and why, out of audit lines.

Owns the way from arguments to what is printed. Nothing but the lines is read: neither the cluster nor a proxy is asked.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from proxy.audit.filters import Filter, parse_when
from proxy.audit.reading import INPUT, Passed, Read, read_events
from proxy.audit.table import FIRST_ROWS, Summary, render_rows
from proxy.errors import UsageError

EXAMPLE = "kubectl logs -n admend -l app.kubernetes.io/component=webhook --tail=-1"
PATTERNS = ("namespace", "pod", "image", "user", "mode", "verdict", "outcome", "cve", "package")


def run_audit(options: Namespace, show: Callable[[str], bool], tell: Callable[[str], None]) -> bool:
    """Show the events that are asked for; returns whether every audit line could be read.

    Args:
        options: the command's arguments.
        show: prints a line; False when nobody reads on.
        tell: says something to the person, beside the output.
    """
    paths = options.file or [INPUT]
    if not options.file and sys.stdin.isatty():
        raise UsageError(f"give audit files, or pipe lines in: {EXAMPLE} | admend audit")
    now = datetime.now(UTC)
    since, until = (
        parse_when(option, text, now) if text else None
        for option, text in (("--since", options.since), ("--until", options.until))
    )
    wanted = Filter(since, until, **{name: getattr(options, name) for name in PATTERNS})
    passed, seen = Passed(), _Seen()
    events = (read for read in read_events(paths, passed) if seen.count(wanted.takes(read.event)))
    # From a pipe rows are shown as they come, so that `kubectl logs -f` can be followed.
    lines = _lines(events, options, 1 if INPUT in paths else FIRST_ROWS)
    for line in lines:
        if not show(line):
            return True
    for note in _notes(passed, seen):
        tell(note)
    return not passed.damaged


class _Seen:
    def __init__(self) -> None:
        self.taken = self.left = 0

    def count(self, taken: bool) -> bool:
        self.taken += taken
        self.left += not taken
        return taken


def _lines(events: Iterator[Read], options: Namespace, first_rows: int) -> Iterator[str]:
    if options.summary:
        summary = Summary()
        for read in events:
            summary.add(read.event)
        yield from [json.dumps(summary.to_json())] if options.json else summary.render()
    elif options.json:
        yield from (json.dumps(read.raw) for read in events)
    else:
        yield from render_rows((read.event for read in events), first_rows)


def _notes(passed: Passed, seen: _Seen) -> Iterator[str]:
    if not seen.taken:
        yield f"no audit line is as asked for; {seen.left} others were read" if seen.left else "no audit line was found"
    if passed.others:
        yield f"passed over, for they are no audit lines: {passed.others}"
    if passed.newer:
        yield f"audit lines of a newer format, which only a newer admend reads: {passed.newer}"
    if passed.damaged:
        yield f"audit lines that cannot be read: {passed.damaged}, the first: {passed.first}"
