"""The table of mutants: `python -m tests.mutants` runs it and prints it as Markdown (docs/mutants.md)."""

from __future__ import annotations

import sys

from .mutants_algorithmic import ALGORITHMICS
from .mutants_attention import ATTENTION
from .mutants_backward import BACKWARD
from .mutants_deformable import DEFORMABLES
from .mutants_films import TASKS as FILMS
from .mutants_forward import FORWARD
from .mutants_gpu import GPU
from .mutants_interop import INTEROP
from .mutants_models import MODELS
from .mutants_ops import OPERATIONS
from .mutants_parallel import PARALLEL
from .mutants_variants import VARIANTS
from .mutants_words import TASKS as WORDS
from .mutation import Mutant, killed

TABLES: dict[str, list[Mutant]] = {
    **FORWARD,
    **BACKWARD,
    **OPERATIONS,
    **VARIANTS,
    **PARALLEL,
    **GPU,
    **MODELS,
    **ATTENTION,
    **DEFORMABLES,
    **INTEROP,
    **FILMS,
    **ALGORITHMICS,
    **WORDS,
}
ALL: list[Mutant] = [mutant for table in TABLES.values() for mutant in table]

HEAD = """\
# Mutants

A test is worth what it kills. Each row below is a mistake planted in one line of the package, most of
them taken from defects that were found in public code, and the check that notices it. `tests/test_mutants.py`
plants every one of them and fails if its check still passes: {count} mutants, all of them killed.

A killer that reads "gradient check `conv/1d`" is a case of the gradient checker's zoo (run one with
`tinyconvlstm gradcheck conv/1d`); "naive loops" compares with `tests/oracles_recurrent.py` or
`tests/oracles.py`; the others are tests by name. This page is written by `python -m tests.mutants`.
"""


def markdown() -> str:
    """The table as docs/mutants.md holds it."""
    lines = [HEAD.format(count=len(ALL))]
    for title, table in TABLES.items():
        lines += [f"## {title}", "", "| in | mistake | becomes | killed by |", "|---|---|---|---|"]
        for mutant in table:
            where = mutant.target.partition(":")[2]
            lines.append(f"| `{where}` | {mutant.what} | {code(mutant.new)} | {mutant.killer.name} |")
        lines.append("")
    return "\n".join(lines)


def code(text: str) -> str:
    """Code in a cell of a table."""
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`{text}`" if text else "(left out)"


def main() -> int:
    """Run every mutant, print the table, and fail if one survives."""
    for mutant in ALL:
        mutant.killer.run()
    survivors = [mutant.name for mutant in ALL if not killed(mutant)]
    print(markdown(), end="")
    for name in survivors:
        print(f"SURVIVED: {name}", file=sys.stderr)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
