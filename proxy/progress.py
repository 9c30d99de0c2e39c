"""How far a command is: a bar on a terminal, plain lines elsewhere, nothing with `quiet`.

Owns what goes to standard error while a command works, and nothing else does.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.phases import PHASES, Progress


@contextmanager
def show_progress(title: str, *, quiet: bool) -> Iterator[Progress]:
    """Give a callback that takes the name of the phase that begins."""
    if sys.stderr.isatty():
        with _bar(title) as step:
            yield step
    elif quiet:
        yield lambda _: None
    else:
        seen: set[str] = set()

        def line(phase: str) -> None:
            if phase not in seen:
                print(f"{title}: {phase}", file=sys.stderr, flush=True)  # noqa: T201 - this is its purpose
            seen.add(phase)

        yield line


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich import console, progress  # noqa: PLC0415 - heavy, and only a terminal needs it

    columns = (
        progress.TextColumn("{task.fields[title]}"),
        progress.BarColumn(),
        progress.TextColumn("{task.description}"),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(PHASES), title=title)

        def step(phase: str) -> None:
            bar.update(task, description=phase, completed=PHASES.index(phase) if phase in PHASES else 0)

        yield step
