"""Events in time: from scores for every frame to a few moments, and how many of them are right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from .backend import Array


def peaks_in_time(scores: Array, *, threshold: float, apart: int) -> list[int]:
    """Non-maximum suppression over time: the best frame, then the best of those that are left, and so on.

    A frame is taken when its score reaches the threshold and no frame taken before lies closer than `apart`.

    Args:
        scores: (T,). Among equals the earlier frame wins.
        threshold: lowest score of an event.
        apart: frames between two events, at least 1.
    Returns:
        Frames in order of time.
    Raises:
        ValueError: scores are no (T,), or apart is below 1.
    Source: the one-dimensional form of the suppression of overlapping detections, Felzenszwalb et al.
        2010, "Object detection with discriminatively trained part-based models", section 7.2.
    """
    scores = np.asarray(scores)
    if scores.ndim != 1 or apart < 1:
        raise ValueError(
            f"scores.shape is {scores.shape} and apart is {apart}, expected (T,) and at least 1 frame"
        )
    taken: list[int] = []
    for t in np.argsort(-scores, kind="stable"):
        if scores[t] < threshold:
            break
        if all(abs(t - other) >= apart for other in taken):
            taken.append(int(t))
    return sorted(taken)


class EventCounts(NamedTuple):
    """How detections and true events pair up."""

    right: int  # pairs
    wrong: int  # detections of nothing
    missed: int  # events not detected

    @property
    def precision(self) -> float:
        """right / (right + wrong); 1 where nothing was detected."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """right / (right + missed); 1 where nothing happened."""
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0

    @property
    def f1(self) -> float:
        """2 right / (2 right + wrong + missed); 1 where nothing happened and nothing was detected."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else 1.0


def match_events(found: Sequence[int], true: Sequence[int], *, tolerance: int) -> EventCounts:
    """Pair detections with events, as many as can be: each with at most one, `tolerance` frames off at most.

    Going through both in order of time and pairing the earliest that fit gives the most pairs, because the
    windows all have one length.
    """
    found, true = sorted(found), sorted(true)
    i = j = right = 0
    while i < len(found) and j < len(true):
        if abs(found[i] - true[j]) <= tolerance:
            right, i, j = right + 1, i + 1, j + 1
        elif found[i] < true[j]:
            i += 1
        else:
            j += 1
    return EventCounts(right, len(found) - right, len(true) - right)


def total(counts: Iterable[EventCounts]) -> EventCounts:
    """Counts of many clips, added up."""
    rows = list(counts)
    return EventCounts(*(sum(column) for column in zip(*rows, strict=True))) if rows else EventCounts(0, 0, 0)
