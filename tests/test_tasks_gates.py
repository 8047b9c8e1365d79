"""The gates task: gestures by their rule, the cells' cost, its run."""

import numpy as np
import pytest

from tinyconvlstm.tasks import gates


def test_a_quick_run_gives_finite_scores_and_a_picture():
    outcome = gates.run(quick=True, progress=False)
    assert np.isfinite(list(outcome.scores.values())).all()
    assert len(outcome.figure().axes) == 1 + 8 * 9


def named(path):
    """The gesture of a path (T, 2), by its shape alone: how far it leads, and the area it goes round."""
    leads, spread = path[-1] - path[0], np.ptp(path, axis=0)
    y, x = (path - path.mean(axis=0)).T
    around = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum()  # rows grow downward: positive is clockwise to the eye
    if min(spread) > 1:
        return "clockwise" if around > 0 else "anticlockwise"
    axis = int(spread.argmax())
    step = np.sign(np.diff(path[:, axis]))
    if abs(step.sum()) == len(step):
        return (("up", "down"), ("left", "right"))[axis][int(leads[axis] > 0)]
    return ("across", "along")[axis]


def test_labels_name_the_paths():
    labels = np.random.default_rng(0).integers(8, size=400)
    path = gates.paths(labels, np.random.default_rng(1))
    assert path.shape == (10, 400, 2)
    assert [gates.GESTURES[k] for k in labels] == [named(path[:, n]) for n in range(400)]
    assert np.bincount(labels).min() > 30


def test_clips_show_a_frame_and_the_one_before_it():
    x, labels = gates.clips(0, "train", 0, 6)
    assert x.shape == (9, 6, 2, 16, 16)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[1:, :, 1], x[:-1, :, 0])
    again, same = gates.clips(0, "train", 0, 6)
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(labels, same)
    for split, index in (("train", 1), ("validation", 0), ("test", 0)):
        assert not np.array_equal(x, gates.clips(0, split, index, 6)[0])


def test_cells_differ_in_their_gates_alone():
    models = {name: gates.network(name, 0) for name in gates.CELLS}
    stems = [model.params["stem.layer.0.w"] for model in models.values()]
    np.testing.assert_array_equal(stems[0], stems[1])
    macs = {name: m.parts["memory"].cost((9, 1, 16, 4, 4)).macs for name, m in models.items()}
    assert macs[gates.PLAIN] == 9 * 16 * 4 * 16 * 9 * 32
    assert macs[gates.POOLED] < 0.3 * macs[gates.PLAIN]
    assert macs[gates.POOLED] < macs[gates.ATTENTION] < macs[gates.PLAIN]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = gates.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
