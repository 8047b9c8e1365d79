"""The adding task: its criterion, its baselines, its data, its run."""

import numpy as np
import pytest

from tinyconvlstm.tasks import adding
from tinyconvlstm.tasks.race import Look, elman_count


def test_a_quick_run_gives_finite_scores_and_a_picture():
    outcome = adding.run(quick=True, progress=False)
    assert np.isfinite(list(outcome.scores.values())).all()
    assert not outcome.reached
    assert abs(outcome.scores["always 0"] - 2 / 3) < 0.03
    assert abs(outcome.scores["the second number alone"] - 1 / 3) < 0.03
    assert len(outcome.figure().axes) >= 4


def test_training_and_test_rows_differ():
    xs, sums = adding.held_out(0)
    assert xs.shape == (100, 2000, 2)
    seen = {adding.training(0, step)[0][:, n].tobytes() for step in range(20) for n in range(32)}
    assert len(seen) == 640
    looked, fresh = (
        {rows[:, n].tobytes() for n in range(2000)} for rows in (xs, adding.held_out(0, adding.FRESH)[0])
    )
    assert not seen & looked
    assert not fresh & (seen | looked)
    np.testing.assert_allclose(sums[:, 0], (xs[..., 0] * xs[..., 1]).sum(axis=0), atol=1e-6)


def test_the_criterion():
    test = adding.held_out(1)
    assert adding.look(lambda xs: test[1], test) == Look(0, True)
    assert adding.look(lambda xs: test[1] + 0.026, test).solved  # squared: 0.000676
    assert not adding.look(lambda xs: test[1] + 0.027, test).solved  # squared: 0.000729


def test_the_second_number_is_the_later_marked_one():
    xs, sums = adding.held_out(2)
    second = adding.second_number(xs)
    for n in range(50):
        first_at, second_at = np.flatnonzero(xs[:, n, 1])
        assert second[n, 0] == xs[second_at, n, 0]
        assert sums[n, 0] == pytest.approx(xs[first_at, n, 0] + second[n, 0])


def test_contestants_have_equal_parameters():
    lstm, rnn = (adding.contestant(name, 0) for name in ("LSTM", "RNN"))
    assert lstm.count == 4 * 8 * (2 + 8 + 1) + 9
    features = rnn.parts["0"].cell.features
    assert elman_count(2, features - 1, 1) < lstm.count <= rnn.count


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = adding.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
