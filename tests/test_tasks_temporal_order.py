"""The temporal order task: its criteria, its data, its run."""

import numpy as np
import pytest

from tinyconvlstm.data.algorithmic import ORDER
from tinyconvlstm.tasks import temporal_order
from tinyconvlstm.tasks.race import elman_count


def test_a_quick_run_gives_finite_scores_and_a_picture():
    outcome = temporal_order.run(quick=True, progress=False)
    assert np.isfinite(list(outcome.scores.values())).all()
    assert not outcome.reached
    assert len(outcome.figure().axes) >= 5


def test_labels_read_off_the_letters():
    xs, labels = temporal_order.training(5, 0)
    for n, label in enumerate(labels):
        text = "".join(ORDER[k] for k in xs[:, n].argmax(axis=1))
        letters = [(t, s) for t, s in enumerate(text) if s in "XY"]
        assert "".join(s for _, s in letters) == temporal_order.CLASSES[label]
        assert 3 <= letters[0][0] <= 12
        assert 25 <= letters[1][0] <= 40
        assert len(text) == 50


def test_training_and_test_sequences_differ():
    test = temporal_order.held_out(0)
    seen = {temporal_order.training(0, step)[0][:, n].tobytes() for step in range(60) for n in range(16)}
    assert len(seen) == 60 * 16
    assert not seen & {test.xs[:, n].tobytes() for n in range(test.xs.shape[1])}


def test_the_criteria():
    test = temporal_order.held_out(0)
    truth = np.eye(4)[test.labels]
    look = temporal_order.look
    assert look(lambda xs: 9 * truth, test) == (1.0, True, True)
    unsure = 9 * truth
    unsure[0] = 1.9 * truth[0]  # right with 0.69 of the probability: an error of 0.31
    assert look(lambda xs: unsure, test) == (1.0, False, True)
    wrong = 9 * truth
    wrong[1900] = 9 * np.roll(truth[1900], 1)  # beyond the first 512
    assert look(lambda xs: wrong, test) == (1 - 1 / 2000, False, True)
    wrong[:26] = 9 * np.roll(truth[:26], 1, axis=1)  # 26 of 512 are more than 5 %
    assert not look(lambda xs: wrong, test).milder


def test_contestants_have_equal_parameters():
    lstm, rnn = (temporal_order.contestant(name, 0) for name in ("LSTM", "RNN"))
    assert lstm.count == 4 * 4 * (8 + 4 + 1) + 4 * 5
    features = rnn.parts["0"].cell.features
    assert elman_count(8, features - 1, 4) < lstm.count <= rnn.count


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = temporal_order.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
