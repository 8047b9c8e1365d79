"""Every mutant of the table must be killed, and its killer must pass without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .mutants import ALL, markdown
from .mutation import Mutant, function_of, killed, mutated_code, planted

KILLERS = {mutant.killer.name: mutant.killer for mutant in ALL}


@pytest.mark.parametrize("killer", KILLERS.values(), ids=KILLERS)
def test_the_killer_passes_without_a_mutant(killer):
    killer.run()


@pytest.mark.parametrize("mutant", ALL, ids=[mutant.name for mutant in ALL])
def test_the_mutant_is_killed(mutant):
    before = function_of(mutant.target).__code__
    assert killed(mutant), f"{mutant.killer.name} did not notice: {mutant.what}"
    assert function_of(mutant.target).__code__ is before


def test_there_are_many_and_none_twice():
    assert len(ALL) >= 150
    assert len({mutant.name for mutant in ALL}) == len(ALL)
    assert len({(mutant.target, mutant.old, mutant.new) for mutant in ALL}) >= len(ALL) - 3


def test_a_mutant_must_change_one_place():
    function = function_of("ops.gates:lstm_gates_forward")
    with pytest.raises(AssertionError, match="occurs 0 times"):
        mutated_code(function, "no such text", "")
    with pytest.raises(AssertionError, match=r"occurs \d+ times"):
        mutated_code(function, "w_c", "")


def test_a_planted_mutant_is_seen_wherever_the_function_was_imported():
    from tinyconvlstm.ops import sigmoid
    from tinyconvlstm.ops.gates import sigmoid as same

    mutant: Mutant = next(m for m in ALL if m.what == "sigmoid too steep")
    import numpy as np

    x = np.array(1.0)
    right = sigmoid(x)
    with planted(mutant):
        assert same(x) == sigmoid(x) != right
    assert sigmoid(x) == right


def test_the_published_table_is_up_to_date():
    page = Path(__file__).parents[1] / "docs" / "mutants.md"
    assert page.read_text(encoding="utf-8") == markdown(), "run: python -m tests.mutants > docs/mutants.md"
