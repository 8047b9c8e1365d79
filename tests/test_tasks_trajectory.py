"""The task `trajectory`: points that bounce as they should, and errors counted where they should be."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.tasks import trajectory as task


def test_points_bounce_off_the_walls():
    """Beside a simulation that steps and reflects."""
    path = task.points("test", 0, 50)
    assert path.shape == (task.SEEN + task.AHEAD, 50, 2)
    assert (path >= 0).all()
    assert (path <= task.ROOM).all()
    turned = 0
    for n in range(50):
        steps = np.diff(path[:, n], axis=0)
        for axis in range(2):
            speed = abs(steps[:, axis]).max()  # the whole step, where no wall cut it short
            p, v = path[0, n, axis], None
            for sign in (speed, -speed):  # which way it starts is not told
                q, w, ok = p, sign, True
                for t in range(1, len(path)):
                    q += w
                    if q > task.ROOM or q < 0:
                        q, w = (2 * task.ROOM if q > task.ROOM else 0) - q, -w
                        turned += ok
                    ok = ok and abs(q - path[t, n, axis]) < 1e-9
                v = sign if ok else v
            assert v is not None
    assert turned > 50


def test_the_time_after_a_bounce():
    path = np.zeros((task.SEEN + task.AHEAD, 3, 2))
    path[:, 0, 0] = np.arange(task.SEEN + task.AHEAD)  # never
    path[:, 1, 1] = -abs(np.arange(task.SEEN + task.AHEAD) - (task.SEEN + 1.0))  # top at frame SEEN + 1
    path[:, 2, 1] = -abs(np.arange(task.SEEN + task.AHEAD) - (task.SEEN - 1.0))  # at the last frame seen
    after = task.bounced(path)
    assert after.shape == (task.AHEAD, 3)
    assert not after[:, 0].any()
    np.testing.assert_array_equal(after[:, 1], np.arange(task.AHEAD) >= 2)
    assert after[:, 2].all()


def test_constant_velocity_is_exact_where_nothing_bounces():
    path = task.points("validation", 0, 300)
    off = abs(task.constant_velocity(path[: task.SEEN]) - path[task.SEEN :]).max(axis=-1)
    before = ~task.bounced(path)
    assert before.any()
    assert off[before].max() < 1e-9
    assert off[~before].min() > 1e-6


def test_the_forecast_is_the_network_fed_its_own_steps():
    """`forecast` by single steps beside the whole network run anew on everything so far."""
    model = task.build(3)
    seen = task.points("test", 1, 4)[: task.SEEN]
    found = task.forecast(model, seen)
    path, steps = seen, np.diff(seen, axis=0)
    for t in range(task.AHEAD):
        step = model(task.features(path[1:], steps))[-1:]
        path, steps = np.concatenate([path, path[-1:] + step]), np.concatenate([steps, step])
        np.testing.assert_allclose(found[t], path[-1], atol=1e-4)


def test_splits_differ():
    a, b, c = (task.points(split, 0, 5) for split in task.SPLITS)
    assert not np.intersect1d(a, b).size
    assert not np.intersect1d(b, c).size
    np.testing.assert_array_equal(a, task.points("train", 0, 5))


def test_a_short_run():
    outcome = task.run(quick=True, progress=False)
    assert all(np.isfinite(list(outcome.scores.values())))
    outcome.figure().canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = task.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
    assert outcome.scores["LSTM"] < 1
