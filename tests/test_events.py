"""Events in time, and the task that finds them."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from tinyconvlstm.events import EventCounts, match_events, peaks_in_time, total
from tinyconvlstm.tasks import label


def test_suppression_takes_the_best_first_and_leaves_what_is_near():
    scores = np.array([0.1, 0.8, 0.9, 0.85, 0.2, 0.7, 0.1, 0.6])
    assert peaks_in_time(scores, threshold=0.5, apart=2) == [2, 5, 7]
    assert peaks_in_time(scores, threshold=0.5, apart=3) == [2, 5]
    assert peaks_in_time(scores, threshold=0.5, apart=1) == [1, 2, 3, 5, 7]
    assert peaks_in_time(scores, threshold=0.95, apart=1) == []
    assert peaks_in_time(np.ones(5), threshold=0.5, apart=2) == [0, 2, 4]
    assert peaks_in_time(np.array([0.5]), threshold=0.5, apart=1) == [0]


@pytest.mark.parametrize("seed", range(5))
def test_suppressed_frames_are_near_a_better_one(seed):
    scores = np.random.default_rng(seed).random(40)
    taken = peaks_in_time(scores, threshold=0.3, apart=4)
    assert all(b - a >= 4 for a, b in pairwise(taken))
    for t in set(range(40)) - set(taken):
        assert scores[t] < 0.3 or any(abs(t - k) < 4 and scores[k] >= scores[t] for k in taken)


def test_suppression_refuses_what_it_cannot_read():
    with pytest.raises(ValueError, match="expected"):
        peaks_in_time(np.ones((3, 2)), threshold=0.5, apart=1)
    with pytest.raises(ValueError, match="apart is 0"):
        peaks_in_time(np.ones(3), threshold=0.5, apart=0)


def most_pairs(found, true, tolerance):
    """Every way to pair, tried."""
    for size in range(min(len(found), len(true)), 0, -1):
        for some in combinations(found, size):
            for others in combinations(true, size):
                if all(abs(a - b) <= tolerance for a, b in zip(some, others, strict=True)):
                    return size
    return 0


@pytest.mark.parametrize("seed", range(20))
def test_matching_finds_the_most_pairs(seed):
    rng = np.random.default_rng(seed)
    found, true = (sorted(rng.choice(15, rng.integers(0, 6), replace=False).tolist()) for _ in range(2))
    counts = match_events(found, true, tolerance=2)
    assert counts.right == most_pairs(found, true, 2)
    assert counts.right + counts.wrong == len(found)
    assert counts.right + counts.missed == len(true)


def test_an_event_counts_once():
    assert match_events([3, 4], [3], tolerance=1) == (1, 1, 0)
    assert match_events([3], [3, 4], tolerance=1) == (1, 0, 1)


def test_scores_by_hand():
    counts = EventCounts(6, 2, 4)
    assert (counts.precision, counts.recall) == (0.75, 0.6)
    assert counts.f1 == pytest.approx(2 / (1 / 0.75 + 1 / 0.6))
    assert EventCounts(0, 0, 0).f1 == 1
    assert EventCounts(0, 3, 0).f1 == 0
    assert total([counts, EventCounts(1, 0, 0)]) == (7, 2, 4)
    assert total([]) == (0, 0, 0)


def test_labels_say_what_the_frames_show():
    film = label.films("validation", 0, 20, seed=3)
    i, j = np.mgrid[0:16, 0:16]
    clean = np.where(film.frames[:, :, 0] > 0.2, film.frames[:, :, 0], 0)
    mass = clean.sum(axis=(2, 3))
    centre = np.stack([(clean * i).sum(axis=(2, 3)), (clean * j).sum(axis=(2, 3))], axis=-1) / mass[..., None]
    step = np.abs(np.diff(centre, axis=0))
    light = np.abs(np.diff(film.frames.max(axis=(2, 3, 4)), axis=0)) > 0.35
    now = film.labels[1:]
    assert ((step[..., 1] > 0.25) == (now == 1)).mean() > 0.97  # a turn at a wall may be short
    assert ((step[..., 0] > 0.25) == (now == 2)).mean() > 0.97
    assert (light == (now == 3)).mean() > 0.97


def test_splits_and_batches_are_apart():
    made = [
        label.films(split, k, 4, seed=0).frames for split in ("train", "validation", "test") for k in (0, 1)
    ]
    assert len({frames.tobytes() for frames in made}) == 6
    assert np.array_equal(made[0], label.films("train", 0, 4, seed=0).frames)


def test_onsets_are_the_first_frames():
    assert label.onsets(np.array([1, 1, 0, 1, 2, 2, 1, 0]), 1) == [0, 3, 6]
    assert label.onsets(np.array([0, 0]), 1) == []


def test_a_perfect_labeller_has_f1_of_one():
    film = label.films("test", 0, 12, seed=0)
    p = np.eye(len(label.ACTIONS))[film.labels]
    assert label.events(p, film, 0.5).f1 == 1
    late = np.concatenate([p[:1]] * 2 + [p[:-2]])  # two frames late
    assert label.events(late, film, 0.5).f1 < 0.7


def test_a_quick_run():
    outcome = label.run(quick=True, progress=False)
    assert np.isfinite(list(outcome.scores.values())).all()
    outcome.figure().canvas.draw()


@pytest.mark.slow
def test_labelling_reaches_its_goal():
    assert label.run(progress=False).reached
