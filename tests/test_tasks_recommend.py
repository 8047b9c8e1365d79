"""The task `recommend`: habits that are kept, counts that are right, a result."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tinyconvlstm.tasks import recommend as task


def test_viewers_follow_two_series_in_order():
    ids = task.histories("test", 0, 60, whim=0.0)
    for n in range(60):
        series, episode = np.divmod(ids[:, n], task.EPISODES)
        assert len(set(series)) == 2
        for s in set(series):
            own = episode[series == s]
            assert ((own[1:] - own[:-1]) % task.EPISODES == 1).all()
        turns = np.flatnonzero(np.diff(series)) + 1
        runs = np.diff(turns)  # whole runs of one series
        assert set(runs) <= {1, 2}
        assert len(set(runs[::2])) == len(set(runs[1::2])) == 1


def test_whims_are_as_frequent_as_said():
    calm, real = (task.histories("train", 1, 400, whim=w) for w in (0.0, 0.05))
    share = (calm != real).mean()
    assert share == pytest.approx(0.05 * (task.ITEMS - 1) / task.ITEMS, abs=0.006)


def test_markov_counts():
    ids = np.array([[0, 3], [1, 1], [0, 2], [1, 2]])
    first, second = task.markov(ids, 1), task.markov(ids, 2)
    assert first.sum() == 6
    assert first[0, 1] == 2
    assert first[1, 0] == first[3, 1] == first[1, 2] == first[2, 2] == 1
    assert second.sum() == 4
    assert second[0, 1, 0] == second[1, 0, 1] == second[3, 1, 2] == second[1, 2, 2] == 1


def test_hits():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    np.testing.assert_array_equal(task.hits(scores, np.array([1, 2])), [True, False])
    np.testing.assert_array_equal(task.hits(scores, np.array([2, 2]), best=2), [True, False])


def test_no_history_begins_like_one_of_another_split():
    found = {split: task.histories(split, 0, 300, whim=0.0) for split in task.SPLITS}
    columns = {split: {tuple(c) for c in ids.T} for split, ids in found.items()}
    for a, b in itertools.combinations(columns.values(), 2):
        assert not a & b
    for split, ids in found.items():
        pairs = [set(column) for column in (ids // task.EPISODES).T.tolist()]
        assert all((pair in task.KEPT_OUT) is (split == "pairs") for pair in pairs)


def test_a_short_run():
    outcome = task.run(quick=True, progress=False)
    assert all(np.isfinite(list(outcome.scores.values())))
    outcome.figure().canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = task.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
