"""The task `online`: frame by frame is the batch run, bit for bit; no clock is judged."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.data.moving_digits import MovingDigits
from tinyconvlstm.tasks import online as task


@pytest.mark.parametrize("size", [1, 3])
def test_frame_by_frame_is_the_batch_run_bit_for_bit(size):
    model = task.build(2)
    frames, _ = task.clips("test", 1, size)
    found, seconds = task.stream(task.Online(model), frames)
    np.testing.assert_array_equal(found, model(frames))
    assert seconds.shape == (task.FRAMES,)


def test_a_state_can_be_kept_and_gone_on_from():
    """Two streams interleaved do not disturb each other, and a step changes nothing it was given."""
    online = task.Online(task.build(2))
    frames, _ = task.clips("test", 2, 2)
    expected = [task.stream(online, frames[:, n : n + 1])[0] for n in range(2)]
    states = [online.start(frames[0, :1])] * 2
    for t in range(task.FRAMES):
        for n in range(2):
            before = [a.copy() for a in states[n]]
            logits, state = online.step(frames[t, n : n + 1], states[n])
            np.testing.assert_array_equal(logits, expected[n][t])
            for a, b in zip(states[n], before, strict=True):
                np.testing.assert_array_equal(a, b)
            states[n] = state


def test_labels_are_those_of_the_digits():
    x, labels = task.clips("train", 3, 200)
    source = MovingDigits("train", canvas=(20, 20), digits=1, frames=8, speed=(0.5, 1.5), digit_size=16)
    clean, expected = source.batch_with_labels(3, 200)
    np.testing.assert_array_equal(labels, expected[:, 0])
    noise = x - clean
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(task.NOISE, rel=0.01)
    assert set(labels) == set(range(10))


def test_splits_share_no_digit():
    sources = [MovingDigits(split, canvas=(20, 20), digit_size=16, speed=(0.5, 1.5)) for split in task.SPLITS]
    glyphs = [set(s.glyph_indices.tolist()) for s in sources]
    assert not glyphs[0] & glyphs[1]
    assert not glyphs[0] & glyphs[2]
    assert not glyphs[1] & glyphs[2]


def test_percentiles():
    assert task.percentile(np.arange(101) / 1e3, 95) == "95.00 ms"


def test_a_short_run():
    outcome = task.run(quick=True, progress=False)
    assert all(np.isfinite(list(outcome.scores.values())))
    assert outcome.facts["equal bit for bit"] == "yes"
    assert "p50" in outcome.facts["latency of a frame"]
    outcome.figure().canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = task.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
