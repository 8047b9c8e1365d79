"""docs/systems.md names every row of what the library implements, and all that it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/systems.md").read_text()
ROWS = [
    line.split(" | ") for line in TEXT.splitlines() if re.match(r"\| ([0-4]-\d\d|[A-Z](-[a-d])?)[ ,]", line)
]
NAMED = {name for row in ROWS for name in row[0].strip("| ").split(", ")}

EXPECTED = {
    *(f"0-{k:02}" for k in range(1, 24)),
    *(f"1-{k:02}" for k in range(1, 16)),
    *(f"2-{k:02}" for k in range(1, 22)),
    *(f"3-{k:02}" for k in range(1, 11)),
    *(f"4-{k:02}" for k in range(2, 20)),
    "P",
    *(f"D-{k}" for k in "abc"),
    *(f"A-{k}" for k in "abcd"),
    *(f"L-{k}" for k in "abcd"),
    *(f"H-{k}" for k in "abcd"),
    "G",
}


@cache
def functions(path: Path) -> set[str]:
    """The functions that a file defines."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_row_is_named_once():
    names = [name for row in ROWS for name in row[0].strip("| ").split(", ")]
    assert sorted(names) == sorted(EXPECTED)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("| "))
def test_what_a_row_names_exists(row):
    cells = [cell.strip(" |") for cell in row]
    assert len(cells) == 4, "a row has four cells"
    where, shown = cells[2:]
    missing = re.search(r"\*\*(open|left out|out of scope):\*\* \w", shown)
    assert where != "-" or missing, "a row without a place says why"
    for path in re.findall(r"`([\w/.]+\.(?:py|md))`", where):
        assert (ROOT / path).is_file(), path
    found = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", shown)
    for path, name in found:
        assert name in functions(ROOT / path), f"{path}::{name}"
    for page, anchor in re.findall(r"\]\(([\w/.]+)(?:#([\w-]+))?\)", shown):
        target = ROOT / "docs" / page
        assert target.is_file(), page
        assert not anchor or f"## {anchor}\n" in target.read_text(), f"{page}#{anchor}"
    for other in re.findall(r"\bas (\d-\d\d)|\brow ([A-Z])", shown):
        name = "".join(other)
        assert any(known == name or known.startswith(f"{name}-") for known in NAMED), name
    assert found or missing or "](" in shown or re.search(r"\bas \d|\brow [A-Z]", shown), "nothing shows it"
