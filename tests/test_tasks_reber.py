"""The embedded Reber task: its criteria, its data, its run."""

import numpy as np
import pytest

from tinyconvlstm.data.algorithmic import REBER, reber_batch
from tinyconvlstm.tasks import reber
from tinyconvlstm.tasks.race import Race, elman_count, mean_sequences, seeds_of, tally


def test_a_quick_run_gives_finite_scores_and_a_picture():
    outcome = reber.run(quick=True, progress=False)
    assert np.isfinite(list(outcome.scores.values())).all()
    assert not outcome.reached
    assert len(outcome.figure().axes) >= 2
    assert "0 of 1 seeds" in outcome.facts["LSTM"]


def test_training_and_test_strings_come_from_streams_of_their_own():
    test = reber.held_out(3)
    assert test.xs.shape[1:] == (256, 7)
    np.testing.assert_array_equal(test.xs, reber.held_out(3).xs)
    assert test.xs.shape != reber.held_out(4).xs.shape or not np.array_equal(test.xs, reber.held_out(4).xs)
    one, again, other = (reber.string_of(3, step)[1] for step in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    strings = {tuple(reber.string_of(3, step)[1].ravel()) for step in range(20)}
    assert len(strings) > 8
    assert other.shape[1] == 1


def expecting(test, logits):
    """A model that answers with these logits."""
    return reber.look(lambda xs: logits, test)


def test_the_criteria():
    test = reber_batch(["BTBTXSETE", "BPBPTTVPSEPE"])
    right = test.legal.astype(float)
    assert expecting(test, right) == (1.0, True, True)
    tie = right.copy()
    tie[0, 0, REBER.index("P")] = 0  # T and P may follow: P no more active than the rest
    assert expecting(test, tie) == (0.5, False, True)  # the most active one is still right
    wrong = right.copy()
    t = test.lengths[1] - 2
    wrong[t, 1] = np.eye(7)[REBER.index("T")]  # the wrong outer letter
    assert expecting(test, wrong) == (0.5, False, False)
    padding = right.copy()
    padding[test.lengths[0] :, 0] = 9.0  # beyond the end of the first string nothing is judged
    assert expecting(test, padding) == (1.0, True, True)


def test_contestants_have_equal_parameters():
    lstm, rnn = (reber.contestant(name, 0) for name in ("LSTM", "RNN"))
    assert lstm.count == 4 * 8 * (7 + 8 + 1) + 7 * 9
    features = rnn.parts["0"].cell.features
    assert elman_count(7, features - 1, 7) < lstm.count <= rnn.count == elman_count(7, features, 7)


def test_races_are_counted():
    races = [Race(0, None, 300, 200, []), Race(1, None, None, 400, [])]
    assert mean_sequences(races, 1000) == 650
    assert tally(races) == "1 of 2 seeds, mean 300 (seed: sequences; 0: 300, 1: no)"
    assert tally(races, milder=True).startswith("2 of 2 seeds, mean 300 ")
    assert [*seeds_of(0, 5), *seeds_of(1, 5)] == list(range(10))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = reber.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
