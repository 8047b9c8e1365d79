"""The orderings task: equal parameters, the baseline, the splits, its run."""

import numpy as np
import pytest

from tinyconvlstm.job import Job
from tinyconvlstm.ops.losses import binary_cross_entropy_forward
from tinyconvlstm.tasks import orderings


def job(name, **more):
    return Job(**{**orderings.BASE, **orderings.MODELS[name], **more})


def test_a_quick_run_gives_finite_scores_and_a_picture():
    outcome = orderings.run(quick=True, progress=False)
    assert np.isfinite(list(outcome.scores.values())).all()
    assert len(outcome.figure().axes) > 2 + 10


def test_the_models_have_equal_parameters_to_two_percent():
    counts = {name: job(name).model().count for name in orderings.MODELS}
    assert counts == {orderings.WIDE: 57_892, orderings.POINT: 57_676, orderings.DENSE: 57_208}
    assert max(counts.values()) < 1.02 * min(counts.values())
    wide, point, dense = (job(name).model().params for name in orderings.MODELS)
    assert wide["encoder.0.w_h"].shape == (64, 16, 5, 5)
    assert point["encoder.0.w_h"].shape == (144, 36, 1, 1)
    assert point["encoder.0.w_x"].shape[2:] == (9, 9)
    assert dense["encoder.0.w_x"].shape == (144, 256)


def test_nats_are_the_mean_over_all_test_pixels():
    small = job(orderings.WIDE, observed=2, horizon=2)
    model = small.model()
    frames = small.frames("test", 0, orderings.HELD_OUT)
    logits, _ = model.forward(frames[:2], horizon=2)
    whole = float(binary_cross_entropy_forward(logits, frames[2:])[0])
    assert orderings.nats_of(model, small) == pytest.approx(whole, rel=1e-5)


def test_the_mean_of_each_pixel_beats_a_mean_of_all():
    plain = job(orderings.WIDE, horizon=2)
    truth = plain.frames("test", 0, orderings.HELD_OUT)[plain.observed :].astype(np.float64)
    p = plain.frames("train", 0, 256).mean()
    overall = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean()
    assert 0 < orderings.mean_nats(plain, clips=256) < overall


def test_splits_share_no_digit_image():
    splits = [set(job(orderings.WIDE).clips(name).glyph_indices.tolist()) for name in ("train", "test")]
    assert not splits[0] & splits[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = orderings.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
