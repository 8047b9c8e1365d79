"""The task `caption`: exact labels, splits that do not meet, a result."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.tasks import caption


def test_the_sentence_is_what_is_drawn():
    """Every word read back from the pixels and the path, not from what drew them."""
    made = caption.clips("test", 0, 60)
    assert len(set(made.sentences)) > 30
    for n, text in enumerate(made.sentences):
        words, T = text.split(), made.lengths[n]
        steps = np.diff(made.positions[:T, n], axis=0)
        ways = []
        for row, column in steps:
            assert min(abs(row), abs(column)) < 1e-9 < max(abs(row), abs(column))
            vertical = abs(row) > abs(column)
            way = ("up", "down")[int(row > 0)] if vertical else ("left", "right")[int(column > 0)]
            if not ways or ways[-1] != way:
                ways.append(way)
        assert " then ".join(ways) == text.partition(" moves ")[2]
        assert (made.x[T:, n] == 0).all()
        # ink: a large shape has at least twice that of the small one of its kind
        whole = made.x[:T, n, 0].sum(axis=(1, 2)).max()
        kind = {"disc": np.pi, "cross": 20 / 9, "ring": np.pi * (1 - 0.55**2), "bar": 1.4}[words[2]]
        radius = np.sqrt(whole / kind)
        assert radius == pytest.approx(caption.SIZES[words[1]], abs=0.85), text


def test_words_and_ids_agree():
    made = caption.clips("train", 3, 40)
    for n, text in enumerate(made.sentences):
        ids = made.words[: made.counts[n], n]
        assert ids[0] == caption.BEGIN
        assert ids[-1] == caption.END
        assert " ".join(caption.VOCABULARY[k] for k in ids[1:-1]) == text
        assert (made.words[made.counts[n] :, n] == caption.END).all()


def test_the_grammar():
    assert len(set(caption.SENTENCES)) == 2 * 4 * (4 + 12)
    assert max(len(s.split()) for s in caption.SENTENCES) == caption.LONGEST
    assert len(set(caption.VOCABULARY)) == len(caption.VOCABULARY)


def test_sentences_kept_out_are_never_trained_on_and_splits_differ():
    trained = {s for k in range(40) for s in caption.clips("train", k, 32).sentences}
    assert trained == set(caption.SENTENCES) - caption.KEPT_OUT
    assert {w for s in caption.KEPT_OUT for w in s.split()} <= {w for s in trained for w in s.split()}
    first = [caption.clips(split, 0, 4).x for split in caption.SPLITS]
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[1], first[2])
    assert np.array_equal(first[2], caption.clips("test", 0, 4).x)
    assert not np.array_equal(first[2], caption.clips("test", 0, 4, seed=1).x)


def test_a_short_run():
    outcome = caption.run(quick=True, progress=False)
    assert all(np.isfinite(list(outcome.scores.values())))
    assert len(outcome.scores) == 4
    outcome.figure().canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = caption.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
