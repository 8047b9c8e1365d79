"""The task `sequence-models`: curves that are what they are called, fair features, a result."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.models.classic import dtw
from tinyconvlstm.tasks import sequence_models as task


def test_curves_are_what_they_are_called():
    phase = np.linspace(0, 2 * np.pi, 401)
    circle, eight, square, zigzag = (task.curve(kind, phase) for kind in task.KINDS)
    np.testing.assert_allclose(np.hypot(*circle.T), 1)
    np.testing.assert_allclose(abs(square).max(axis=1), 1)  # on the edge of a square
    for closed in (circle, eight, square):
        np.testing.assert_allclose(closed[0], closed[-1], atol=1e-12)
    assert np.hypot(*eight[200]) < 1e-12 > np.hypot(*eight[0])  # twice through its middle
    assert (np.diff(zigzag[:, 0]) > 0).all()
    np.testing.assert_allclose(abs(np.diff(zigzag[:, 1])), 2 * (phase[1] - phase[0]) / np.pi)


def test_labels_are_exact():
    """The kind is read back from the path: that whose curve, at its best phases, lies nearest."""
    made = task.paths("test", 24)
    phase = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    for n, T in enumerate(made.lengths):
        assert (made.positions[T:, n] == 0).all()
        path = made.positions[:T, n]
        if task.KINDS[made.labels[n]] == "zigzag":
            assert np.ptp(path, axis=0).max() / 10 > np.ptp(task.curve("circle", phase)) / 10
            continue
        fits = {}
        for k, kind in enumerate(task.KINDS[:3]):
            for size in np.linspace(5, 10, 11):
                for tilt in np.linspace(-0.5, 0.5, 11):
                    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
                    off = np.linalg.norm(path[:, None] - size * task.curve(kind, phase) @ turn, axis=2)
                    fits[k] = min(fits.get(k, np.inf), off.min(axis=1).mean())
        assert min(fits, key=fits.get) == made.labels[n]


def test_features_do_not_know_size_or_place():
    made = task.paths("train", 8)
    larger = made._replace(positions=3 * made.positions + 7)
    np.testing.assert_allclose(task.features(larger)[0], task.features(made)[0], rtol=1e-4, atol=1e-5)
    x, lengths = task.features(made)
    for n, T in enumerate(lengths):
        assert (x[T:, n] == 0).all()
        np.testing.assert_allclose(np.hypot(*x[:T, n].T).mean(), 1, rtol=1e-5)


def test_backwards_twice_is_forwards():
    made = task.paths("train", 8)
    x, lengths = task.features(made)
    back = task.backwards(x, lengths)
    np.testing.assert_array_equal(task.backwards(back, lengths), x)
    for n, T in enumerate(lengths):
        reverse = np.diff(made.positions[: made.lengths[n], n][::-1], axis=0)
        pace = np.hypot(*reverse.T).mean()
        np.testing.assert_allclose(back[:T, n], reverse / pace, rtol=1e-3, atol=1e-4)


def test_splits_differ():
    a, b, c = (task.paths(split, 8).positions[0] for split in task.SPLITS)
    assert not np.intersect1d(a, b).size
    assert not np.intersect1d(b, c).size
    train, test = task.paths("train", 12), task.paths("test", 4)
    x, lengths = task.features(train)
    new, ends = task.features(test)
    assert min(dtw(new[: ends[n], n], x, lengths).min() for n in range(4)) > 0.5


def test_a_short_run():
    outcome = task.run(quick=True, progress=False)
    assert all(np.isfinite(list(outcome.scores.values())))
    outcome.figure().canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = task.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
