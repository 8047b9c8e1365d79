"""Events: overlaps, runs, suppression and F1, by hand and against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.events import Event, event_f1, matches, propose, runs, suppress, temporal_iou


def test_overlap_counts_frames(rng):
    for _ in range(200):
        (a, b), (c, d) = np.sort(rng.choice(12, (2, 2)), axis=1)
        one, other = Event(a, b + 1, 1), Event(c, d + 1, 2)
        x, y = set(range(a, b + 1)), set(range(c, d + 1))
        assert temporal_iou(one, other) == pytest.approx(len(x & y) / len(x | y))


def test_runs():
    assert runs([0, 2, 2, 0, 1, 2]) == [Event(1, 3, 2), Event(4, 5, 1), Event(5, 6, 2)]
    assert runs([3, 3], background=3) == []
    assert runs([3, 3]) == [Event(0, 2, 3)]
    assert runs([]) == []
    with pytest.raises(ValueError, match=r"labels.shape is \(1, 2\)"):
        runs([[1, 2]])


def test_proposals():
    p = np.zeros((6, 3))
    p[1:5, 1] = [0.4, 0.9, 0.8, 0.4]
    p[:, 0] = 1 - p[:, 1]
    found = propose(p, thresholds=(0.3, 0.7))
    assert [e[:3] for e in found] == [(1, 5, 1), (2, 4, 1)]
    assert [e.score for e in found] == pytest.approx([0.625, 0.85 * 0.6])
    assert propose(p, thresholds=(0.85,)) == []  # one frame alone is too short
    assert propose(np.ones((2, 2)), thresholds=(0.5,)) == [Event(0, 2, 1, 1.0)]  # at both borders


def test_suppression_keeps_the_best_of_what_overlaps():
    best, worse, apart = Event(2, 6, 1, 0.9), Event(3, 7, 2, 0.8), Event(7, 9, 2, 0.1)
    assert suppress([worse, apart, best]) == [best, apart]
    assert suppress([worse, apart, best], overlap=0.6) == sorted([best, worse, apart])
    assert suppress([]) == []


def test_what_is_kept_does_not_overlap_and_what_is_not_does(rng):
    for _ in range(30):
        begins, lengths = rng.integers(0, 20, 12), rng.integers(1, 8, 12)
        events = [
            Event(int(b), int(b + n), 1, float(s))
            for b, n, s in zip(begins, lengths, rng.random(12), strict=True)
        ]
        kept = suppress(events, overlap=0.25)
        for event in events:
            rivals = [k for k in kept if k != event and temporal_iou(k, event) > 0.25]
            assert bool(rivals) is (event not in kept)
            assert not rivals or max(k.score for k in rivals) > event.score


def test_a_true_event_is_found_once():
    truth = [Event(0, 4, 1), Event(6, 10, 2)]
    assert matches(truth, truth) == 2
    assert matches([Event(0, 4, 1, 0.9), Event(0, 4, 1, 0.8)], truth) == 1
    assert matches([Event(0, 4, 2)], truth) == 0
    assert matches([Event(0, 2, 1)], truth) == 1  # one half overlaps enough
    assert matches([Event(0, 1, 1)], truth) == 0


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    truth = [[Event(0, 4, 1), Event(6, 10, 2)], []]
    found = [[Event(0, 4, 1)], [Event(0, 3, 1), Event(5, 8, 1)]]
    precision, recall = 1 / 3, 1 / 2
    assert event_f1(found, truth) == pytest.approx(2 / (1 / precision + 1 / recall))
    assert event_f1(truth, truth) == 1
    with pytest.raises(ValueError, match="found has 1 clips"):
        event_f1(found[:1], truth)
    with pytest.raises(ValueError, match="no event at all"):
        event_f1([[]], [[]])
