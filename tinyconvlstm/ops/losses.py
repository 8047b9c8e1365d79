"""Losses: one number from a prediction and its target, with optional mask, and the gradient back.

The target is data: it is cast to the prediction's dtype, and no gradient is computed for it. The
mask says which elements count; what it leaves out enters neither the sum nor the mean's divisor, and
may even be NaN. Cross-entropy over classes is in `cross_entropy.py`.

Sources: Huber 1964, "Robust estimation of a location parameter"; binary
cross-entropy as summed by Shi et al. 2015, arXiv 1506.04214, section 4.1.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module
from .activations import sigmoid

REDUCTIONS = ("mean", "sum")


class Reduction(NamedTuple):
    """Which elements a loss was summed over, and what the sum was divided by."""

    keep: Array | None  # bool, broadcast to the per-element losses; None: all
    divisor: int  # number of kept elements for "mean", 1 for "sum"


class LossSaved(NamedTuple):
    """What the backward of an element-wise loss needs."""

    y: Array  # prediction
    target: Array  # data, in the dtype of y
    reduction: Reduction


class HuberSaved(NamedTuple):
    """What `huber_backward` needs."""

    y: Array
    target: Array
    delta: float
    reduction: Reduction


def mse_forward(
    y: Array, target: Array, *, mask: Array | None = None, reduction: str = "mean"
) -> tuple[Array, LossSaved]:
    """Squared error, l = (y - target)^2.

    Args:
        y: prediction, any shape.
        target: data, the shape of y.
        mask: broadcastable to y, 0 where an element does not count. Default: all count.
        reduction: "mean" over the elements that count, or their "sum".
    Returns:
        The loss, a scalar, and what `mse_backward` needs.
    Raises:
        ValueError: shapes differ, reduction is unknown, or nothing is left to take the mean of.
    """
    target = check_target(y, target)
    loss, reduced = reduce_losses((y - target) ** 2, mask, reduction)
    return loss, LossSaved(y, target, reduced)


def mse_backward(dloss: Array, saved: LossSaved) -> Array:
    """dy = dloss * 2 (y - target) / divisor, and 0 where masked."""
    return spread(dloss, 2 * (saved.y - saved.target), saved.reduction)


def mae_forward(
    y: Array, target: Array, *, mask: Array | None = None, reduction: str = "mean"
) -> tuple[Array, LossSaved]:
    """Absolute error, l = |y - target|; arguments, result and errors as of `mse_forward`."""
    target = check_target(y, target)
    d = y - target
    loss, reduced = reduce_losses(d * array_module(y).sign(d.real), mask, reduction)
    return loss, LossSaved(y, target, reduced)


def mae_backward(dloss: Array, saved: LossSaved) -> Array:
    """dy = dloss * sign(y - target) / divisor: 0 where they are equal, and where masked."""
    sign = array_module(saved.y).sign((saved.y - saved.target).real)
    return spread(dloss, sign, saved.reduction)


def huber_forward(
    y: Array, target: Array, *, delta: float = 1.0, mask: Array | None = None, reduction: str = "mean"
) -> tuple[Array, HuberSaved]:
    """Squared error near the target, absolute error far from it.

        l = d^2 / 2                     where |d| <= delta,  d = y - target
        l = delta (|d| - delta / 2)     elsewhere

    Args:
        y: prediction, any shape.
        target: data, the shape of y.
        delta: where the parabola becomes a line, in the unit of y.
        mask, reduction: as of `mse_forward`.
    Returns:
        The loss, a scalar, and what `huber_backward` needs.
    Raises:
        ValueError: as `mse_forward`, or delta is not positive.
    Source: Huber 1964.
    """
    if not delta > 0:
        raise ValueError(f"delta is {delta}, expected a positive number")
    target = check_target(y, target)
    d = y - target
    near = clip(d, delta)  # l = near * (d - near / 2), one line for both branches
    loss, reduced = reduce_losses(near * (d - near / 2), mask, reduction)
    return loss, HuberSaved(y, target, delta, reduced)


def huber_backward(dloss: Array, saved: HuberSaved) -> Array:
    """dy = dloss * clip(y - target, -delta, delta) / divisor, and 0 where masked."""
    y, target, delta, reduction = saved
    return spread(dloss, clip(y - target, delta), reduction)


def binary_cross_entropy_forward(
    logits: Array, target: Array, *, mask: Array | None = None, reduction: str = "mean"
) -> tuple[Array, LossSaved]:
    """Cross-entropy between pixels in [0, 1] and the sigmoid of logits.

        l = -t log sigmoid(x) - (1 - t) log(1 - sigmoid(x))
          = max(x, 0) - x t + log(1 + exp(-|x|))                nothing overflows, nothing is log 0

    Args:
        logits: x, any shape, before the sigmoid.
        target: t, data in [0, 1], the shape of the logits.
        mask, reduction: as of `mse_forward`.
    Returns:
        The loss in nats, a scalar, and what `binary_cross_entropy_backward` needs.
    Raises:
        ValueError: as `mse_forward`.
    Source: Shi et al. 2015, section 4.1.
    """
    target = check_target(logits, target, "logits")
    xp = array_module(logits)
    positive = xp.where(logits.real > 0, logits, 0)
    losses = positive - logits * target + xp.log1p(xp.exp(logits - 2 * positive))  # x - 2 max(x, 0) = -|x|
    loss, reduced = reduce_losses(losses, mask, reduction)
    return loss, LossSaved(logits, target, reduced)


def binary_cross_entropy_backward(dloss: Array, saved: LossSaved) -> Array:
    """dlogits = dloss * (sigmoid(x) - t) / divisor, and 0 where masked."""
    logits, target, reduction = saved
    return spread(dloss, sigmoid(logits) - target, reduction)


def reduce_losses(losses: Array, mask: Array | None, reduction: str) -> tuple[Array, Reduction]:
    """The mean or the sum of the losses that the mask keeps.

    Args:
        losses: one number per element.
        mask: broadcastable to `losses`, 0 where an element does not count; None: all count.
        reduction: "mean" or "sum".
    Returns:
        A scalar, and the Reduction that `spread` needs.
    Raises:
        ValueError: reduction is unknown, mask does not broadcast, or the mean of nothing is asked for.
    """
    xp = array_module(losses=losses, mask=mask)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}, expected one of {REDUCTIONS}")
    keep, count = None, losses.size
    if mask is not None:
        try:
            keep = xp.broadcast_to(mask != 0, losses.shape)
        except ValueError:
            raise ValueError(
                f"mask.shape is {mask.shape}, expected a shape that broadcasts to {losses.shape}"
            ) from None
        count = int(keep.sum())
        losses = xp.where(keep, losses, 0)
    if reduction == "sum":
        return losses.sum(), Reduction(keep, 1)
    if count == 0:
        reason = "the mask leaves no element" if mask is not None else "there is no element"
        raise ValueError(f"{reason} to take the mean of (losses have shape {losses.shape})")
    return losses.sum() / count, Reduction(keep, count)


def spread(dloss: Array, slope: Array, reduction: Reduction) -> Array:
    """dloss * slope / divisor where an element counts and 0 where not; `slope` is dl/dy per element."""
    keep, divisor = reduction
    dy = slope * (dloss / divisor)
    return dy if keep is None else array_module(slope=slope, keep=keep).where(keep, dy, 0)


def check_target(y: Array, target: Array, name: str = "y") -> Array:
    """The target in y's dtype, or a ValueError where the shapes differ."""
    array_module(**{name: y, "target": target})
    if y.shape != target.shape:
        raise ValueError(f"target.shape is {target.shape}, expected {y.shape}, that of {name}")
    return target.astype(y.dtype, copy=False)


def clip(d: Array, delta: float) -> Array:
    """d between -delta and delta, by its real part."""
    xp = array_module(d)
    return xp.where(d.real > delta, delta, xp.where(d.real < -delta, -delta, d))
