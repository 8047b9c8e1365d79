"""`tinyconvlstm gradcheck`: check everything that has a hand-written gradient, and say so."""

from __future__ import annotations

import sys

from .engine import gradcheck
from .report import Report
from .zoo import zoo

FEW = 3  # so many cases selected by name are shown as whole tables


def run(pattern: str | None = None, verbose: bool = False, *, listing: bool = False) -> int:
    """Check the zoo, or the part of it that `pattern` selects, and print what was found.

    Args:
        pattern: as `zoo`; None means everything.
        verbose: print every case's table; otherwise those of failures and of few selected cases.
        listing: print the names and check nothing.
    Returns:
        The exit status: 0 when all passed, 1 when any failed, 2 when no name fits.
    """
    try:
        cases = zoo(pattern)
    except ValueError as error:
        print(f"gradcheck: {error}", file=sys.stderr)
        return 2
    if listing:
        print("\n".join(case.name for case in cases))
        return 0
    from tqdm import tqdm

    width = max(len(case.name) for case in cases)
    tables = verbose or (pattern is not None and len(cases) <= FEW)
    failed = 0
    with tqdm(cases, unit="check", leave=False, disable=None) as progress:
        for case in progress:
            report = gradcheck(case, elements=20 if tables else 10)
            failed += not report
            progress.write(text_of(report, width, tables), file=sys.stdout)
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


def text_of(report: Report, width: int, table: bool) -> str:
    """A line, or the whole table where it is asked for or the check failed."""
    return f"{report}\n" if table or not report else report.line(width)
