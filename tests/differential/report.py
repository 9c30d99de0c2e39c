"""The table and the differences as text. Owns wording and layout only."""

from collections import Counter
from collections.abc import Iterable, Sequence

from proxy.tell import table
from tests.differential.judge import Verdict

SHOWN = 40  # differences that are told in full
HEAD = ("image", "upgraded", "skipped", "coverage", "paths", "differ", "explained", "unexplained", "records", "checks")


def render_table(verdicts: Sequence[Verdict]) -> str:
    """Return one line per root file system, and the whole."""
    rows = [
        (
            item.root.name,
            str(len(item.patched.upgrades)),
            str(len(item.skipped)),
            share(item.covered, len(item.wanted)),
            str(item.paths),
            str(len(item.explained) + len(item.unexplained)),
            str(len(item.explained)),
            str(len(item.unexplained)),
            str(len(item.records)),
            str(len(item.complaints)),
        )
        for item in verdicts
    ]
    covered, wanted = coverage(verdicts)
    faults = sum(len(item.faults) for item in verdicts)
    whole = f"coverage {share(covered, wanted)} of {wanted} upgrades; {faults} unexplained differences"
    return "\n".join([*table([HEAD, *rows]), whole])


def coverage(verdicts: Iterable[Verdict]) -> tuple[int, int]:
    """Return how many upgrades are covered, of how many that apt would make; packages made by hand do not count."""
    counted = [item for item in verdicts if not item.root.handmade]
    return sum(item.covered for item in counted), sum(len(item.wanted) for item in counted)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def render_details(verdict: Verdict) -> str:
    """Return everything that was skipped and everything that differs."""
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in verdict.seconds.items())
    lines = [f"== {verdict.root.name} ({' '.join(verdict.suites)}): {verdict.patched.outcome} ({times})"]
    if verdict.patched.reason:
        lines.append(f"   {verdict.patched.reason}")
    lines += [
        f"   {item['package']} {item['from']} -> {item['to'] or '(removed)'} ({item.get('effect') or '-'})"
        for item in verdict.patched.upgrades
    ]
    lines += [f"the machine's archive has no suite {suite}" for suite in verdict.missing]
    lines += [f"skipped: {name}: {reason}" for name, reason in verdict.skipped.items()]
    others = [item for name, item in verdict.patched.held.items() if name not in verdict.wanted]
    lines += [f"held back by apt too: {item['package']}: {item['reason']}" for item in others]
    lines += [
        f"note: {item['package'] or 'source'}: {item['reason']}"
        for item in verdict.patched.notes
        if item["package"] not in verdict.patched.held
    ]
    lines += [f"explained: {count} x {name}" for name, count in Counter(name for _, name in verdict.explained).items()]
    for item in verdict.unexplained[:SHOWN]:
        lines.append(f"DIFFERS {item.path}: {item.what} (package {item.owner or 'none'})")
        lines += [f"    {line}" for line in item.text.splitlines()]
    if len(verdict.unexplained) > SHOWN:
        lines.append(f"... and {len(verdict.unexplained) - SHOWN} more differences")
    lines += [f"RECORD {item}" for item in verdict.records]
    lines += [f"CHECK {item}" for item in verdict.complaints]
    return "\n".join(lines)
