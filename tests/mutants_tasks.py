"""Mistakes in what the tasks brought: distillation, the area under the ROC curve, sequences made by a rule."""
# ruff: noqa: E501

from __future__ import annotations

from . import test_algorithmic, test_distillation, test_init, test_metrics
from .killers import gradient, seeded, test
from .mutation import Mutant

FORWARD, BACKWARD = "ops.distillation:distillation_forward", "ops.distillation:distillation_backward"
DEFINED = test(
    test_distillation.test_distillation_by_its_definition, masked=True, reduction="mean", backend="numpy"
)
ALIKE = test(test_distillation.test_a_student_who_answers_as_the_teacher_has_nothing_to_learn)
GRADIENT = gradient("distillation/masked")
DISTILLATION = [
    Mutant("T^2 forgotten", FORWARD, "temperature**2", "1", DEFINED),
    Mutant("the student not softened", FORWARD, "log_softmax_forward(logits / temperature, axis=1)", "log_softmax_forward(logits, axis=1)", ALIKE),
    Mutant("the teacher not softened", FORWARD, "copy=False) / temperature", "copy=False)", ALIKE),
    Mutant("divergence the wrong way round", FORWARD, "(u * (log_u - log_s))", "(xp.exp(log_s) * (log_s - log_u))", DEFINED),
    Mutant("the teacher's entropy left in", FORWARD, "(u * (log_u - log_s))", "(u * -log_s)", ALIKE),
    Mutant("weights exchanged", FORWARD, "(1 - weight) * hard + weight * temperature**2", "weight * hard + (1 - weight) * temperature**2", DEFINED),
    Mutant("T^2 kept in the gradient", BACKWARD, "weight * temperature * (s - u)", "weight * temperature**2 * (s - u)", GRADIENT),
    Mutant("soft gradient with the hard probabilities", BACKWARD, "* (s - u)", "* (array_module(log_p).exp(log_p) - u)", GRADIENT),
    Mutant("soft gradient alone", BACKWARD, "(1 - weight) * hard + ", "", GRADIENT),
]  # fmt: skip

RANKS = test(
    test_metrics.test_auc_is_how_often_a_positive_is_ranked_above_a_negative, ties=True, backend="numpy"
)
AREA = [
    Mutant("ties not counted", "metrics:auc", "(beaten + equal / 2)", "beaten", RANKS),
    Mutant("ties counted whole", "metrics:auc", "equal / 2", "equal", RANKS),
    Mutant("positives and negatives exchanged", "metrics:auc", "s[chosen], xp.sort(s[~chosen])", "s[~chosen], xp.sort(s[chosen])", RANKS),
    Mutant("divided by all", "metrics:auc", "/ below.size", "/ s.size", RANKS),
]  # fmt: skip

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

TASKS = {
    "Distillation": DISTILLATION,
    "Area under the curve": AREA,
    "Sequences made by a rule": ALGORITHMIC,
}
