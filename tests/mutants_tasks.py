"""Mistakes in what the tasks brought: distillation, the area under the ROC curve."""
# ruff: noqa: E501

from __future__ import annotations

from . import test_distillation, test_metrics
from .killers import gradient, test
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

TASKS = {"Distillation": DISTILLATION, "Area under the curve": AREA}
