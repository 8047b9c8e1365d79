"""Batch, layer and group normalisation: one standardisation, over different axes.

Each subtracts the mean and divides by the standard deviation over some axes of x, then scales by
gamma and shifts by beta. They differ only in which numbers are averaged together:

    batch_norm   one channel over the batch and all pixels
    layer_norm   the last axes of one sample, those that gamma has
    group_norm   a group of channels and all pixels of one sample

The variance is the biased one, divided by the count. The standardisation is in `standardise.py`.

Sources: Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1; Ba, Kiros, Hinton 2016, arXiv
1607.06450, equation 3; Wu & He 2018, arXiv 1803.08494, equations 1 to 6.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from ..backend import Array, array_module, check_dtypes
from .standardise import Standardised, standardise, standardise_backward


class BatchNormSaved(NamedTuple):
    """What `batch_norm_backward` needs, and the statistics of this batch for running averages."""

    standardised: Standardised
    gamma: Array  # (C,)
    mean: Array  # (C,)
    var: Array  # (C,), biased
    members: int  # numbers averaged per channel, m: var * m / (m - 1) is the unbiased variance


class BatchNormInferenceSaved(NamedTuple):
    """What `batch_norm_inference_backward` needs."""

    x_hat: Array  # (N, C, *S)
    inv_std: Array  # (C, 1 ...)
    gamma: Array  # (C,)


class LayerNormSaved(NamedTuple):
    """What `layer_norm_backward` needs."""

    standardised: Standardised
    gamma: Array


class GroupNormSaved(NamedTuple):
    """What `group_norm_backward` needs."""

    standardised: Standardised  # of x as (N, groups, C / groups * prod(S))
    gamma: Array  # (C,)


def batch_norm_forward(
    x: Array, gamma: Array, beta: Array, *, eps: float = 1e-5
) -> tuple[Array, BatchNormSaved]:
    """Normalise every channel over the batch and its pixels.

        mean, var = mean and variance of x[:, c] over N and S
        x_hat = (x - mean) / sqrt(var + eps)
        y = gamma_c * x_hat + beta_c

    Args:
        x: (N, C, *S).
        gamma, beta: (C,).
        eps: added to the variance; 1e-5 as PyTorch has it.
    Returns:
        y (N, C, *S) and what `batch_norm_backward` needs; its `mean` and `var` feed running averages.
    Raises:
        ValueError: shapes do not fit, or there is one number per channel only.
        TypeError: dtypes differ.
    Source: Ioffe & Szegedy 2015, algorithm 1.
    """
    array_module(x=x, gamma=gamma, beta=beta)
    check_channels(x, gamma=gamma, beta=beta)
    members = x.size // max(x.shape[1], 1)
    if members < 2:
        raise ValueError(f"x.shape is {x.shape}: batch normalisation needs more than one number per channel")
    standardised, mean, var = standardise(x, (0, *range(2, x.ndim)), eps)
    y = per_channel(gamma, x) * standardised.x_hat + per_channel(beta, x)
    return y, BatchNormSaved(standardised, gamma, mean.reshape(-1), var.reshape(-1), members)


def batch_norm_backward(dy: Array, saved: BatchNormSaved) -> tuple[Array, Array, Array]:
    """Gradients of `batch_norm_forward`.

        dbeta = sum dy      dgamma = sum dy * x_hat      dx = standardise_backward(gamma * dy)

    Args:
        dy: (N, C, *S).
        saved: from `batch_norm_forward`.
    Returns:
        dx (N, C, *S), dgamma (C,), dbeta (C,).
    """
    dx = standardise_backward(per_channel(saved.gamma, dy) * dy, saved.standardised)
    return dx, *scale_and_shift_grads(dy, saved.standardised.x_hat)


def batch_norm_inference_forward(
    x: Array, gamma: Array, beta: Array, *, mean: Array, var: Array, eps: float = 1e-5
) -> tuple[Array, BatchNormInferenceSaved]:
    """Normalise every channel with given statistics: y = gamma_c (x - mean_c) / sqrt(var_c + eps) + beta_c.

    Args:
        x: (N, C, *S).
        gamma, beta: (C,).
        mean, var: (C,), the running averages of training. Data, not differentiated.
        eps: as in training.
    Returns:
        y (N, C, *S) and what `batch_norm_inference_backward` needs.
    Raises:
        ValueError: shapes do not fit.
        TypeError: dtypes differ.
    """
    xp = array_module(x=x, gamma=gamma, beta=beta, mean=mean, var=var)
    check_channels(x, gamma=gamma, beta=beta, mean=mean, var=var)
    inv_std = per_channel(1 / xp.sqrt(var + eps), x)
    x_hat = (x - per_channel(mean, x)) * inv_std
    y = per_channel(gamma, x) * x_hat + per_channel(beta, x)
    return y, BatchNormInferenceSaved(x_hat, inv_std, gamma)


def batch_norm_inference_backward(dy: Array, saved: BatchNormInferenceSaved) -> tuple[Array, Array, Array]:
    """dx = dy * gamma * inv_std (N, C, *S), dgamma = sum dy * x_hat (C,), dbeta = sum dy (C,)."""
    dx = dy * (per_channel(saved.gamma, dy) * saved.inv_std)
    return dx, *scale_and_shift_grads(dy, saved.x_hat)


def layer_norm_forward(
    x: Array, gamma: Array, beta: Array, *, eps: float = 1e-5
) -> tuple[Array, LayerNormSaved]:
    """Normalise the last axes of x, as many as gamma has.

        mean, var = mean and variance over those axes
        y = gamma * (x - mean) / sqrt(var + eps) + beta

    Args:
        x: (..., *M); (N, C, *S) with gamma (C, *S) normalises each sample as a whole.
        gamma, beta: (*M), at least one axis.
        eps: added to the variance; 1e-5 as PyTorch has it.
    Returns:
        y like x and what `layer_norm_backward` needs.
    Raises:
        ValueError: shapes do not fit.
        TypeError: dtypes differ.
    Source: Ba, Kiros, Hinton 2016, equation 3.
    """
    array_module(x=x, gamma=gamma, beta=beta)
    if gamma.ndim < 1 or x.shape[-gamma.ndim :] != gamma.shape or beta.shape != gamma.shape:
        raise ValueError(
            f"gamma.shape is {gamma.shape} and beta.shape is {beta.shape}, "
            f"expected the last axes of x (x.shape == {x.shape})"
        )
    check_dtypes(x=x, gamma=gamma, beta=beta)
    standardised, _, _ = standardise(x, tuple(range(x.ndim - gamma.ndim, x.ndim)), eps)
    return gamma * standardised.x_hat + beta, LayerNormSaved(standardised, gamma)


def layer_norm_backward(dy: Array, saved: LayerNormSaved) -> tuple[Array, Array, Array]:
    """Gradients of `layer_norm_forward`.

        dbeta = sum dy      dgamma = sum dy * x_hat      over the leading axes
        dx = standardise_backward(gamma * dy)

    Args:
        dy: like x.
        saved: from `layer_norm_forward`.
    Returns:
        dx like x, dgamma and dbeta (*M).
    """
    standardised, gamma = saved
    leading = tuple(range(dy.ndim - gamma.ndim))
    dgamma, dbeta = (dy * standardised.x_hat).sum(axis=leading), dy.sum(axis=leading)
    return standardise_backward(gamma * dy, standardised), dgamma, dbeta


def group_norm_forward(
    x: Array, gamma: Array, beta: Array, *, groups: int, eps: float = 1e-5
) -> tuple[Array, GroupNormSaved]:
    """Normalise groups of neighbouring channels with all their pixels, sample by sample.

        mean, var = mean and variance over C / groups channels and S
        y = gamma_c * (x - mean) / sqrt(var + eps) + beta_c

    Args:
        x: (N, C, *S).
        gamma, beta: (C,).
        groups: number of groups, a divisor of C; 1 takes the whole sample, C is instance normalisation.
        eps: added to the variance; 1e-5 as PyTorch has it.
    Returns:
        y (N, C, *S) and what `group_norm_backward` needs.
    Raises:
        ValueError: shapes or groups do not fit.
        TypeError: dtypes differ.
    Source: Wu & He 2018, equations 1 to 6.
    """
    array_module(x=x, gamma=gamma, beta=beta)
    check_channels(x, gamma=gamma, beta=beta)
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"groups is {groups}, expected a divisor of x's {x.shape[1]} channels")
    members = x.shape[1] // groups * prod(x.shape[2:])
    standardised, _, _ = standardise(x.reshape(x.shape[0], groups, members), (2,), eps)
    x_hat = standardised.x_hat.reshape(x.shape)
    y = per_channel(gamma, x) * x_hat + per_channel(beta, x)
    return y, GroupNormSaved(standardised, gamma)


def group_norm_backward(dy: Array, saved: GroupNormSaved) -> tuple[Array, Array, Array]:
    """Gradients of `group_norm_forward`.

        dbeta = sum dy      dgamma = sum dy * x_hat      dx = standardise_backward(gamma * dy)

    Args:
        dy: (N, C, *S).
        saved: from `group_norm_forward`.
    Returns:
        dx (N, C, *S), dgamma (C,), dbeta (C,).
    """
    standardised, gamma = saved
    dx_hat = (per_channel(gamma, dy) * dy).reshape(standardised.x_hat.shape)
    dx = standardise_backward(dx_hat, standardised).reshape(dy.shape)
    return dx, *scale_and_shift_grads(dy, standardised.x_hat.reshape(dy.shape))


def scale_and_shift_grads(dy: Array, x_hat: Array) -> tuple[Array, Array]:
    """dgamma (C,) and dbeta (C,) of y = gamma_c * x_hat + beta_c."""
    axes = (0, *range(2, dy.ndim))
    return (dy * x_hat).sum(axis=axes), dy.sum(axis=axes)


def per_channel(v: Array, x: Array) -> Array:
    """v (C,), shaped to meet the channels of x (N, C, *S)."""
    return v.reshape(-1, *(1,) * (x.ndim - 2))


def check_channels(x: Array, **vectors: Array) -> None:
    """Raise a ValueError where a vector does not have one entry per channel of x, a TypeError for its dtype."""
    if x.ndim < 2:
        raise ValueError(f"x.shape is {x.shape}, expected (N, C, *S)")
    for name, v in vectors.items():
        if v.shape != x.shape[1:2]:
            raise ValueError(f"{name}.shape is {v.shape}, expected {x.shape[1:2]}, one entry a channel of x")
    check_dtypes(x=x, **vectors)
