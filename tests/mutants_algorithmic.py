"""Mistakes in sequences made by a rule."""
# ruff: noqa: E501

from __future__ import annotations

from . import test_algorithmic, test_init
from .killers import seeded, test
from .mutation import Mutant

DATA = "data.algorithmic:"
GRAMMAR = test(test_algorithmic.test_reber_strings_are_those_of_the_regular_expression)
LETTERS = test(test_algorithmic.test_legal_symbols_are_the_next_letters_of_the_language)
SPELT = test(test_algorithmic.test_reber_batch_spells_the_strings)
SUMS = test(test_algorithmic.test_adding_sums_the_marked_numbers, length=30)
ORDERED = test(test_algorithmic.test_temporal_order_reads_as_the_rule_says)
SAID = test(test_algorithmic.test_copying_says_the_letters_again, delay=5, letters=3)
SPREAD = test(test_init.test_chrono_bias_spreads_memories_over_the_wanted_lengths, rng=seeded())
ALGORITHMIC = [
    Mutant("the outer letter drawn again", DATA + "reber_string", "{inner}{outer}E", "{inner}{'TP'[rng.integers(2)]}E", GRAMMAR),
    Mutant("one branch only", DATA + "reber_string", "[rng.integers(len(INNER[state]))]", "[-1]", GRAMMAR),
    Mutant("either outer letter legal", DATA + "reber_legal", 'legal += [string[1:2], "E"]', 'legal += ["TP", "E"]', LETTERS),
    Mutant("an end is always legal", DATA + "reber_legal", '"".join(INNER.get(state, {}))', '"".join(INNER.get(state, {})) + "E"', LETTERS),
    Mutant("the symbol read in place of the next", DATA + "reber_batch", "at[1:]", "at[:-1]", SPELT),
    Mutant("both marks anywhere", DATA + "adding", "rng.integers(length // 2, length, size=count)", "rng.integers(length, size=count)", SUMS),
    Mutant("the larger in place of the sum", DATA + "adding", ".sum(axis=0)", ".max(axis=0)", SUMS),
    Mutant("order read backwards", DATA + "temporal_order", "2 * letters[0] + letters[1]", "letters[0] + 2 * letters[1]", ORDERED),
    Mutant("places without their end", DATA + "temporal_order", "rng.integers(low, high + 1,", "rng.integers(low, high,", ORDERED),
    Mutant("the answer one step early", DATA + "copying", "labels[letters + delay :]", "labels[letters + delay - 1 : -1]", SAID),
    Mutant("gates that write as fast as they keep", "init:chrono_bias", '= -b[GATES.index("f")]', '= b[GATES.index("f")]', SPREAD),
]  # fmt: skip

ALGORITHMICS: dict[str, list[Mutant]] = {"Sequences made by a rule": ALGORITHMIC}
