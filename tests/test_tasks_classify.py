"""The task classify: who sees motion."""

import numpy as np
import pytest

from tinyconvlstm.tasks import classify
from tinyconvlstm.tasks.retrieve import clips


def test_a_quick_run_measures_everyone_and_draws():
    outcome = classify.run(quick=True, progress=False)
    assert len(outcome.scores) == 6
    assert all(0 <= score <= 1 for score in outcome.scores.values())
    outcome.figure().canvas.draw()


def test_over_time_ends_with_the_answer_for_the_clip():
    model, _, _, view = classify.contestants(0)[classify.CONVLSTM]
    frames = clips("test", 0, 8, seed=0).frames
    logits = model(view(frames))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(classify.over_time(model, frames)[-1], p, rtol=0, atol=1e-6)


def test_baselines_see_no_order():
    made = clips("test", 0, 4, seed=0)
    *_, one = classify.contestants(0)["one frame"]
    *_, histograms = classify.contestants(0)["gradient histograms"]
    assert one(made.frames).shape == (4, 1, 24, 24)
    assert np.allclose(histograms(made.frames), histograms(made.frames[::-1]), atol=1e-6)


@pytest.mark.slow
def test_classification_reaches_its_goal():
    assert classify.run(progress=False).reached
