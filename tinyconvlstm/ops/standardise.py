"""Subtract the mean and divide by the standard deviation: the part all normalisations share."""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module


class Standardised(NamedTuple):
    """x standardised over some axes, and what it was divided by."""

    x_hat: Array  # the shape of x, mean 0 and variance 1 over axes
    inv_std: Array  # 1 / sqrt(var + eps), size 1 along axes
    axes: tuple[int, ...]


def standardise(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Standardised, Array, Array]:
    """x_hat = (x - mean) / sqrt(var + eps), with mean and var over `axes`; also mean and var."""
    xp = array_module(x)
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    var = (centred * centred).mean(axis=axes, keepdims=True)  # not |.|^2: analytic, for the complex step
    inv_std = 1 / xp.sqrt(var + eps)
    return Standardised(centred * inv_std, inv_std, axes), mean, var


def standardise_backward(dx_hat: Array, saved: Standardised) -> Array:
    """Gradient of `standardise`: what is left of dx_hat without its mean and its part along x_hat.

    centred = x - mean, so dx = dcentred - mean(dcentred)
    x_hat = centred * inv_std, inv_std = (mean(centred^2) + eps)^(-1/2), so
    dcentred = inv_std * (dx_hat - x_hat * mean(dx_hat * x_hat))
    dx = inv_std * (dx_hat - mean(dx_hat) - x_hat * mean(dx_hat * x_hat))       for mean(x_hat) = 0
    """
    x_hat, inv_std, axes = saved
    along = (dx_hat * x_hat).mean(axis=axes, keepdims=True)
    return inv_std * (dx_hat - dx_hat.mean(axis=axes, keepdims=True) - x_hat * along)
