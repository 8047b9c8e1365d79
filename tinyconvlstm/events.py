"""Events in time: from probabilities of every frame to events with a beginning and an end, and how good they are.

Proposals are the runs of frames in which a class is likely, at several thresholds; of those that overlap, the
best is kept (non-maximum suppression over time). A found event is right when it has the class of a true one,
overlaps it enough, and no better one took it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .backend import Array


class Event(NamedTuple):
    """Frames begin .. end - 1 of one class."""

    begin: int
    end: int
    kind: int
    score: float = 1.0


def temporal_iou(a: Event, b: Event) -> float:
    """Frames that both have, over frames that either has."""
    both = max(0, min(a.end, b.end) - max(a.begin, b.begin))
    return both / ((a.end - a.begin) + (b.end - b.begin) - both)


def runs(labels: Any, background: int = 0) -> list[Event]:
    """The longest stretches (T,) of one label, without the background."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels.shape is {labels.shape}, expected (T,)")
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    pairs = pairwise(edges)
    return [Event(b, e, int(labels[b])) for b, e in pairs if e > b and labels[b] != background]


def propose(
    p: Array, *, background: int = 0, thresholds: Sequence[float] = (0.3, 0.5, 0.7), shortest: int = 2
) -> list[Event]:
    """Every run of at least `shortest` frames in which a class's probability is at least a threshold.

    Args:
        p: (T, V), probabilities of every frame.
    Returns:
        Events of all classes but the background, scored by their mean probability times the share of it that
        the frames just outside do not have: sharp edges score more.
    """
    found = []
    for kind in range(p.shape[1]):
        if kind == background:
            continue
        padded = np.concatenate([[0.0], p[:, kind], [0.0]])
        for threshold in thresholds:
            for run in runs((p[:, kind] >= threshold).astype(int)):
                if run.end - run.begin >= shortest:
                    inside = float(p[run.begin : run.end, kind].mean())
                    outside = float(padded[run.begin] + padded[run.end + 1]) / 2
                    found.append(Event(run.begin, run.end, kind, inside * (1 - outside)))
    return found


def suppress(events: Iterable[Event], *, overlap: float = 0.3) -> list[Event]:
    """Non-maximum suppression: from the best event on, keep those that overlap no kept one by more than `overlap`.

    Events of different classes compete too: one thing happens at a time.
    """
    kept: list[Event] = []
    for event in sorted(events, key=lambda e: (-e.score, e.begin, e.end, e.kind)):
        if all(temporal_iou(event, other) <= overlap for other in kept):
            kept.append(event)
    return sorted(kept)


def matches(found: Sequence[Event], truth: Sequence[Event], *, overlap: float = 0.5) -> int:
    """How many found events are right: best scores first, each takes the true one it overlaps most."""
    free, right = list(truth), 0
    for event in sorted(found, key=lambda e: (-e.score, e.begin)):
        fitting = [t for t in free if t.kind == event.kind and temporal_iou(event, t) >= overlap]
        if fitting:
            free.remove(max(fitting, key=lambda t: temporal_iou(event, t)))
            right += 1
    return right


def event_f1(
    found: Sequence[Sequence[Event]], truth: Sequence[Sequence[Event]], *, overlap: float = 0.5
) -> float:
    """F1 of events over all clips: 2 right / (found + true).

    Args:
        found, truth: events of each clip. overlap: the least temporal_iou of a right one.
    Raises:
        ValueError: other numbers of clips, or nothing found and nothing true.
    """
    if len(found) != len(truth):
        raise ValueError(f"found has {len(found)} clips, truth has {len(truth)}: expected equal")
    total = sum(map(len, found)) + sum(map(len, truth))
    if not total:
        raise ValueError("found and truth hold no event at all: F1 has no value")
    return 2 * sum(matches(f, t, overlap=overlap) for f, t in zip(found, truth, strict=True)) / total
