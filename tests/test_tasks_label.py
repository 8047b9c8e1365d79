"""The task `label`: labels that follow from the positions, the head's two correct forms, a result."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.cells import LSTMCell
from tinyconvlstm.layers import Activation, Dense, Recurrent, Sequential, TimeDistributed
from tinyconvlstm.tasks import label as task


def test_labels_follow_from_the_positions():
    made = task.clips("test", 0, 60)
    steps = np.diff(made.positions, axis=0)
    rows, columns = steps[..., 0], steps[..., 1]
    expected = np.select([columns < 0, columns > 0, rows < 0, rows > 0], [1, 2, 3, 4], 0)
    np.testing.assert_array_equal(made.labels[1:], expected)
    assert (made.labels[0] == 0).all()
    assert set(made.labels.ravel()) == {0, 1, 2, 3, 4}
    assert made.positions.min() >= task.RADIUS - 1e-9
    assert made.positions.max() <= task.CANVAS - 1 - task.RADIUS + 1e-9


def test_the_disc_is_drawn_where_it_is(monkeypatch):
    monkeypatch.setattr(task, "NOISE", 0.1)
    made = task.clips("validation", 0, 10)
    frames = made.x.reshape(task.FRAMES, 10, task.CANVAS, task.CANVAS)
    ink = np.where(frames > 0.4, frames, 0)
    pixel = np.arange(task.CANVAS)
    y = (ink.sum(axis=3) * pixel).sum(axis=2) / ink.sum(axis=(2, 3))
    x = (ink.sum(axis=2) * pixel).sum(axis=2) / ink.sum(axis=(2, 3))
    assert abs(np.stack([y, x], -1) - made.positions).max() < 0.35


def test_both_correct_forms_of_the_head_and_the_wrong_one(rng):
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    softmax = Activation("softmax")
    for_every_frame = Sequential(
        Recurrent(LSTMCell(3, 8)),
        Recurrent(LSTMCell(8, 4)),
        TimeDistributed(Sequential(Dense(4, 5), softmax)),
    )
    for_the_clip = Sequential(
        Recurrent(LSTMCell(3, 8)),
        Recurrent(LSTMCell(8, 4), return_sequences=False),
        Dense(4, 5),
        softmax,
    )
    assert for_every_frame(x).shape == (5, 2, 5)
    assert for_the_clip(x).shape == (2, 5)
    wrong = Sequential(
        Recurrent(LSTMCell(3, 8)),
        Recurrent(LSTMCell(8, 4), return_sequences=False),
        TimeDistributed(Sequential(Dense(4, 5), softmax)),
    )
    with pytest.raises(ValueError, match=r"there is no time axis.*return_sequences=True"):
        wrong(x)


def test_splits_differ():
    a, b, c = (task.clips(split, 0, 4).positions[0] for split in task.SPLITS)
    assert not np.intersect1d(a, b).size
    assert not np.intersect1d(b, c).size
    np.testing.assert_array_equal(a, task.clips("train", 0, 4).positions[0])


def test_a_short_run():
    outcome = task.run(quick=True, progress=False)
    assert all(np.isfinite(list(outcome.scores.values())))
    outcome.figure().canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = task.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
