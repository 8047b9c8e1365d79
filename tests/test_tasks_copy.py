"""The copying task: its level, its criterion, its data, its run."""

import numpy as np
import pytest

from tinyconvlstm.tasks import copy
from tinyconvlstm.tasks.race import elman_count


def test_a_quick_run_gives_finite_scores_and_a_picture():
    outcome = copy.run(quick=True, progress=False)
    assert np.isfinite(list(outcome.scores.values())).all()
    assert not outcome.reached
    assert len(outcome.figure().axes) == 4


def test_the_level_is_what_the_best_answer_without_a_memory_costs():
    test = copy.held_out(0)
    _, labels = test
    blank = np.where(np.arange(9) == 8, 0, -80.0)
    guess = np.where(np.arange(9) < 8, 0, -80.0)
    logits = np.where((np.arange(len(labels)) < copy.DELAY + copy.LETTERS)[:, None, None], blank, guess)
    logits = np.broadcast_to(logits, (*labels.shape, 9))
    found = copy.look(lambda_model(logits), test)
    assert found.score == pytest.approx(1)
    assert not found.solved
    assert abs(copy.letters_right(lambda xs: logits, test) - 1 / 8) < 0.02


def lambda_model(logits):
    """A model that answers with these logits."""

    class Answer:
        def forward(self, x, **more):
            return logits, None

    return Answer()


def test_the_criterion_is_a_tenth_of_the_level():
    test = copy.held_out(1)
    truth = np.eye(9)[test[1]]
    assert copy.look(lambda_model(20 * truth), test).solved
    p = np.exp(-copy.LEVEL * np.array([0.099, 0.101]))  # of the truth at every step
    for share, solved in zip(p, (True, False), strict=True):
        logits = np.log(np.where(truth == 1, share, (1 - share) / 8))
        found = copy.look(lambda_model(logits), test)
        assert found.solved == solved
        assert found.score == pytest.approx(-np.log(share) / copy.LEVEL)


def test_training_and_test_sequences_differ():
    xs, _ = copy.held_out(0)
    seen = {copy.training(0, step)[0][:, n].tobytes() for step in range(20) for n in range(32)}
    assert len(seen) == 640
    assert not seen & {xs[:, n].tobytes() for n in range(xs.shape[1])}


def test_contestants_have_equal_parameters():
    lstm, rnn = (copy.contestant(name, 0) for name in ("LSTM", "RNN"))
    assert lstm.count == 4 * copy.CELLS * (10 + copy.CELLS + 1) + 9 * (copy.CELLS + 1)
    features = rnn.parts["0"].cell.features
    assert elman_count(10, features - 1, 9) < lstm.count <= rnn.count


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = copy.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
