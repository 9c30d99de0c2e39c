"""Judges root file systems by hand: `python -m tests.differential NAME... [--keep DIR]`; without a name all of them.

Prints the table, every skipped package with its reason, and every difference; ends 1 when one is not explained. With
`--keep` the trees stay in DIR/NAME/patched and DIR/NAME/apt.
"""

import argparse
import sys
from pathlib import Path

from tests.differential.judge import judge, working_folder
from tests.differential.report import render_details, render_table
from tests.differential.roots import ROOTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ROOTS))
    parser.add_argument("--keep", type=Path, metavar="DIR")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in ROOTS]:
        parser.error(f"no such root file system: {', '.join(unknown)}; there are {', '.join(ROOTS)}")
    verdicts = []
    for name in options.names or ROOTS:
        with working_folder(ROOTS[name], options.keep / name if options.keep else None) as folder:
            verdicts.append(judge(ROOTS[name], folder))
        print(render_details(verdicts[-1]), flush=True)  # noqa: T201 - a command
    print(render_table(verdicts))  # noqa: T201 - a command
    return 1 if any(verdict.faults for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
