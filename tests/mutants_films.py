"""Mistakes in the tasks and in what they brought: distillation, the area under the ROC curve, drawn digits."""
# ruff: noqa: E501

from __future__ import annotations

from . import test_distillation, test_metrics, test_tasks_films, test_tasks_frames
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

DRAWN = test(test_tasks_films.test_draw_digits_agrees_with_moving_digits)
RECALL = test(test_tasks_films.test_recall_by_going_through_all_pairs)
KEYS = test(test_tasks_films.test_key_frames_by_hand)
DENSITY = test(test_tasks_frames.test_the_density_sums_to_the_number_of_digits)
ERRORS = test(test_tasks_films.test_relative_errors_by_hand)
FILMS = [
    Mutant("the last digit drawn hides the others", "data.drawing:draw_digits", "np.maximum(windows[at], patch.reshape(-1, side + 1, side + 1))", "patch.reshape(-1, side + 1, side + 1)", DRAWN),
    Mutant("fractions of a pixel the other way", "data.drawing:moved", "(1 - part) * here + part * np.pad(ink, pad)", "part * here + (1 - part) * np.pad(ink, pad)", DRAWN),
    Mutant("fractions of rows and columns exchanged", "data.drawing:draw_digits", "down, right = (", "right, down = (", DRAWN),
    Mutant("training digits in the test split", "data.drawing:split_digits", "partition(images, labels, split)", "partition(images, labels, 'all')", test(test_tasks_films.test_split_digits_share_no_bitmap)),
    Mutant("splits share random numbers", "tasks.films:rng_of", "[seed, SPLITS.index(split), index]", "[seed, index]", test(test_tasks_films.test_splits_and_batches_of_shapes_share_no_random_number)),
    Mutant("a clip is its own neighbour", "tasks.retrieve:neighbours", "np.fill_diagonal(cosine, -np.inf)", "pass", RECALL),
    Mutant("dot product taken for cosine", "tasks.retrieve:neighbours", "features / np.linalg.norm(features, axis=1, keepdims=True)", "features", RECALL),
    Mutant("turning the other way", "tasks.retrieve:corners_of", "(swing, other), (-swing, other)", "(-swing, other), (swing, other)", test(test_tasks_films.test_motions_are_what_their_names_say)),
    Mutant("key frames side by side", "tasks.summarise:peaks", "< APART", "< 1", KEYS),
    Mutant("a key frame before the cut covers it", "tasks.summarise:covered", "(late >= 0) & ", "", KEYS),
    Mutant("two scenes alike in a row", "tasks.summarise:clips", "rng.integers(1, len(KINDS),", "rng.integers(0, len(KINDS),", test(test_tasks_films.test_cuts_are_where_the_kind_of_shape_changes)),
    Mutant("bells not of sum 1", "tasks.count:density", "bell / bell.sum(axis=-1, keepdims=True)", "bell", DENSITY),
    Mutant("a pixel of the map taken for the frame's", "tasks.count:density", "- 0.5) / 2", "- 0.5)", DENSITY),
    Mutant("smallest errors make the score", "tasks.anomaly:score", "[-WORST:]", "[:WORST]", ERRORS),
    Mutant("error of the frame before", "tasks.anomaly:errors", "(forecast - frames[1:]) ** 2", "(forecast - frames[:-1]) ** 2", ERRORS),
    Mutant("anomaly a frame too late", "tasks.anomaly:clips", "t - since + 1, 0", "t - since, 0", test(test_tasks_films.test_a_strange_clip_is_the_ordinary_one_until_its_change, 1)),
    Mutant("the lost frame is seen", "tasks.interpolate:without_the_lost", "seen[LOST] = 0", "pass", test(test_tasks_frames.test_the_lost_frame_cannot_be_seen)),
]  # fmt: skip

TASKS = {"Distillation": DISTILLATION, "Area under the curve": AREA, "Clips of the tasks": FILMS}
