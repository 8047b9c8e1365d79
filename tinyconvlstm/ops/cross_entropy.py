"""Cross-entropy over classes on axis 1, from integer or soft labels.

The masks, the reduction and the words are those of `losses.py`; read it first.

Source: Szegedy et al. 2016, arXiv 1512.00567, section 7, for label smoothing.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module
from .activations import log_softmax_forward
from .losses import Reduction, reduce_losses, spread


class CrossEntropySaved(NamedTuple):
    """What `cross_entropy_backward` needs."""

    log_p: Array  # (N, C, *S)
    labels: Array  # (N, *S) or (N, C, *S), data
    label_smoothing: float
    reduction: Reduction  # its mask is (N, *S)


def cross_entropy_forward(
    logits: Array,
    labels: Array,
    *,
    label_smoothing: float = 0.0,
    mask: Array | None = None,
    reduction: str = "mean",
) -> tuple[Array, CrossEntropySaved]:
    """Cross-entropy between labels and the softmax of logits.

        log_p = log_softmax(x)                                over the classes
        q     = (1 - label_smoothing) * q + label_smoothing / C
        l     = -sum_c q_c log_p_c

    Args:
        logits: x, (N, C, *S).
        labels: integers (N, *S), q = 1 at the label and 0 elsewhere; or q itself, (N, C, *S) floats.
            Data, not differentiated. Labels that the mask leaves out may be anything.
        label_smoothing: share of q, from 0 to 1, that is spread evenly over all classes.
        mask: broadcastable to (N, *S), 0 where an element does not count. Default: all count.
        reduction: "mean" over the N * prod(S) elements that count, or their "sum".
    Returns:
        The loss in nats, a scalar, and what `cross_entropy_backward` needs.
    Raises:
        ValueError: shapes do not fit, a label is no class, label_smoothing or reduction is out of
            range, or nothing is left to take the mean of.
    Source: Szegedy et al. 2016, section 7.
    """
    xp = array_module(logits=logits, labels=labels, mask=mask)
    check_labels(logits, labels, label_smoothing)
    log_p, _ = log_softmax_forward(logits, axis=1)
    q = smoothed(labels, log_p, label_smoothing)
    losses = -(q * xp.where(q == 0, 0, log_p)).sum(axis=1)  # (N, *S); 0 * log 0 is 0
    loss, reduced = reduce_losses(losses, mask, reduction)
    if labels.ndim < logits.ndim:
        check_classes(labels, reduced.keep, logits.shape[1])
    return loss, CrossEntropySaved(log_p, labels, label_smoothing, reduced)


def cross_entropy_backward(dloss: Array, saved: CrossEntropySaved) -> Array:
    """Gradient of `cross_entropy_forward` with respect to the logits.

        dx_c = dloss * (p_c sum_k q_k - q_c) / divisor,  p = softmax(x);  sum_k q_k is 1 as a rule

    Args:
        dloss: a scalar.
        saved: from `cross_entropy_forward`.
    Returns:
        dlogits (N, C, *S), 0 where masked.
    """
    log_p, labels, label_smoothing, (keep, divisor) = saved
    xp = array_module(log_p)
    q = smoothed(labels, log_p, label_smoothing)
    slope = xp.exp(log_p) * q.sum(axis=1, keepdims=True) - q
    return spread(dloss, slope, Reduction(None if keep is None else keep[:, None], divisor))


def smoothed(labels: Array, log_p: Array, label_smoothing: float) -> Array:
    """q (N, C, *S) in the dtype of log_p, from integer or soft labels."""
    if labels.ndim < log_p.ndim:
        classes = array_module(log_p).arange(log_p.shape[1]).reshape(-1, *(1,) * (log_p.ndim - 2))
        labels = labels[:, None] == classes
    q = labels.astype(log_p.dtype, copy=False)
    if label_smoothing == 0:
        return q
    return (1 - label_smoothing) * q + label_smoothing / log_p.shape[1]


def check_labels(logits: Array, labels: Array, label_smoothing: float) -> None:
    """Raise a ValueError where labels do not fit the logits."""
    if logits.ndim < 2:
        raise ValueError(f"logits.shape is {logits.shape}, expected (N, C, *S)")
    hard = (logits.shape[0], *logits.shape[2:])
    if labels.shape not in (hard, logits.shape):
        raise ValueError(
            f"labels.shape is {labels.shape}, expected {hard} for integers or {logits.shape} for soft labels"
        )
    if (labels.shape == hard) != (labels.dtype.kind in "iu"):
        wanted = "integers" if labels.shape == hard else "floating-point numbers"
        raise ValueError(f"labels of shape {labels.shape} have dtype {labels.dtype}, expected {wanted}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}, expected a number from 0 to 1")


def check_classes(labels: Array, keep: Array | None, classes: int) -> None:
    """Raise a ValueError where a label that counts is no class."""
    wrong = (labels < 0) | (labels >= classes)
    if keep is not None:
        wrong = wrong & keep
    if wrong.any():
        raise ValueError(
            f"labels hold {int(labels[wrong][0])}, expected integers from 0 to {classes - 1} "
            f"({classes} classes); leave elements out with mask"
        )
