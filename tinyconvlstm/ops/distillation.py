"""Distillation: a student learns from labels and from a teacher's softened answers.

The masks, the reduction and the words are those of `losses.py`; read it and `cross_entropy.py` first.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module
from .activations import log_softmax_forward
from .cross_entropy import check_classes, check_labels, smoothed
from .losses import Reduction, reduce_losses, spread


class DistillationSaved(NamedTuple):
    """What `distillation_backward` needs."""

    log_p: Array  # (N, C, *S), the student's
    labels: Array  # data
    soft: Array  # (N, C, *S), the student's probabilities at the temperature
    wanted: Array  # (N, C, *S), the teacher's
    temperature: float
    weight: float
    reduction: Reduction  # its mask is (N, *S)


def distillation_forward(
    logits: Array,
    labels: Array,
    teacher: Array,
    *,
    temperature: float = 4.0,
    weight: float = 0.9,
    mask: Array | None = None,
    reduction: str = "mean",
) -> tuple[Array, DistillationSaved]:
    """Cross-entropy with the labels, and the divergence from a teacher's softened probabilities.

        u = softmax(v / T)                                    the teacher's answer, v its logits
        s = softmax(x / T)                                    the student's
        l = (1 - weight) CE(labels, softmax(x)) + weight T^2 sum_c u_c (log u_c - log s_c)

    T^2 keeps the soft part's gradient of one size whatever T is: it falls as 1 / T^2 without. A student
    with the teacher's logits has no soft loss, because the teacher's own entropy is subtracted.

    Args:
        logits: x, (N, C, *S).
        labels: integers (N, *S), or probabilities (N, C, *S); data.
        teacher: v, (N, C, *S), finite; data.
        temperature: T, above 0; the larger, the more alike the classes of u.
        weight: share of the soft part, from 0 to 1.
        mask: broadcastable to (N, *S), 0 where an element does not count. Default: all count.
        reduction: "mean" over the N * prod(S) elements that count, or their "sum".
    Returns:
        The loss in nats, a scalar, and what `distillation_backward` needs.
    Raises:
        ValueError: shapes do not fit, a label is no class, or a setting is out of range.
    Source: Hinton, Vinyals & Dean 2015, arXiv 1503.02531, section 2.
    """
    xp = array_module(logits=logits, labels=labels, teacher=teacher, mask=mask)
    check_labels(logits, labels, 0.0)
    if teacher.shape != logits.shape:
        raise ValueError(f"teacher.shape is {teacher.shape}, expected {logits.shape}, that of logits")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected a positive number")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight is {weight}, expected a number from 0 to 1")
    log_p, _ = log_softmax_forward(logits, axis=1)
    log_s, _ = log_softmax_forward(logits / temperature, axis=1)
    log_u, _ = log_softmax_forward(teacher.astype(logits.dtype, copy=False) / temperature, axis=1)
    q, u = smoothed(labels, log_p, 0.0), xp.exp(log_u)
    hard = -(q * xp.where(q == 0, 0, log_p)).sum(axis=1)  # (N, *S)
    soft = (u * (log_u - log_s)).sum(axis=1)
    losses = (1 - weight) * hard + weight * temperature**2 * soft
    loss, reduced = reduce_losses(losses, mask, reduction)
    if labels.ndim < logits.ndim:
        check_classes(labels, reduced.keep, logits.shape[1])
    return loss, DistillationSaved(log_p, labels, xp.exp(log_s), u, temperature, weight, reduced)


def distillation_backward(dloss: Array, saved: DistillationSaved) -> Array:
    """Gradient of `distillation_forward` with respect to the student's logits.

        dx = dloss / divisor * ((1 - weight) (p sum_k q_k - q) + weight T (s - u)),      p = softmax(x)

    One 1 / T comes from x / T and leaves T of T^2.

    Args:
        dloss: a scalar.
        saved: from `distillation_forward`.
    Returns:
        dlogits (N, C, *S), 0 where masked.
    """
    log_p, labels, s, u, temperature, weight, (keep, divisor) = saved
    q = smoothed(labels, log_p, 0.0)
    hard = array_module(log_p).exp(log_p) * q.sum(axis=1, keepdims=True) - q
    slope = (1 - weight) * hard + weight * temperature * (s - u)
    return spread(dloss, slope, Reduction(None if keep is None else keep[:, None], divisor))
