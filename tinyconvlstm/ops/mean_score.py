"""The average of several classifiers' probabilities, as logits: late fusion that can be trained through."""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module
from .activations import AxisSaved, log_softmax_backward, log_softmax_forward


class MeanScoreSaved(NamedTuple):
    """What `mean_score_backward` needs."""

    log_softmax: AxisSaved
    share: Array  # (S, N, K): r_s, the part of the mean that source s gives


def mean_score_forward(x: Array, present: Array) -> tuple[Array, MeanScoreSaved]:
    """The logarithm of the mean of softmax(x_s) over the sources that are there.

        y = log( sum_s m_s softmax(x_s) / sum_s m_s )          so that softmax(y) is that mean

    Args:
        x: logits, (S, N, K), sources first.
        present: m, (S, N), true where sample n has source s; data.
    Returns:
        y (N, K), and what `mean_score_backward` needs.
    Raises:
        ValueError: shapes do not fit, or a sample has no source.
    Source: Simonyan & Zisserman 2014, arXiv 1406.2199, section 5, where scores are averaged.
    """
    xp = array_module(x=x, present=present)
    if x.ndim != 3 or present.shape != x.shape[:2]:
        raise ValueError(
            f"x.shape is {x.shape} and present.shape {present.shape}, expected (S, N, K) and (S, N)"
        )
    m = present[..., None] != 0  # (S, N, 1)
    if not m.any(axis=0).all():
        raise ValueError("present has a sample without any source")
    log_p, saved = log_softmax_forward(x, axis=2)
    top = xp.where(m, log_p.real, -xp.inf).max(axis=0)  # (N, K)
    e = xp.where(m, xp.exp(xp.where(m, log_p - top, 0)), 0)
    total = e.sum(axis=0)
    y = top + xp.log(total) - xp.log(m.sum(axis=0).astype(x.real.dtype))
    return y, MeanScoreSaved(saved, e / total)


def mean_score_backward(dy: Array, saved: MeanScoreSaved) -> Array:
    """dx of `mean_score_forward`.

        dlog_p_s = r_s dy,    r_s = m_s p_s / sum_k m_k p_k;    then back through log_softmax

    Args:
        dy: (N, K).
    Returns:
        dx (S, N, K), zero for the sources that are not there.
    """
    return log_softmax_backward(saved.share * dy, saved.log_softmax)
