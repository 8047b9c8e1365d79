"""The task `explain`: the masks are where the object is, and the maps are measured against an even one."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.tasks import explain as task


def test_the_mask_is_what_moves():
    """Clutter stands still: pixels that change by more than the noise are the object's, or were a frame ago."""
    x, labels, there = task.clips("test", 0, 40)
    assert set(labels) == set(range(len(task.KINDS)))
    changed = abs(np.diff(x[:, :, 0], axis=0)) > 0.75
    either = there[1:] | there[:-1]
    assert changed.any()
    assert (changed & ~either).mean() < 1e-4
    bright = x[:, :, 0][there].mean()
    assert bright > 0.5
    area = there.sum(axis=(2, 3))
    assert (area > 15).all()  # always wholly on the canvas


def test_a_grown_mask():
    mask = np.zeros((1, 7, 7), bool)
    mask[0, 1, 5] = True
    expected = np.zeros((7, 7), bool)
    expected[0:4, 3:7] = True
    np.testing.assert_array_equal(task.grown(mask)[0], expected)


def test_splits_differ():
    a, b, c = (task.clips(split, 0, 3)[0] for split in task.SPLITS)
    assert not np.array_equal(a, b)
    assert not np.array_equal(b, c)
    np.testing.assert_array_equal(a, task.clips("train", 0, 3)[0])


def test_a_short_run():
    outcome = task.run(quick=True, progress=False)
    assert all(np.isfinite(list(outcome.scores.values())))
    outcome.figure().canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = task.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
