"""Space to depth and back: non-overlapping patches become channels.

Shi et al. feed a 64 x 64 frame to their network as 16 x 16 pixels of 16 channels. It is `im2col`
with a stride of one whole window, so the two maps below are each other's inverse and adjoint.

Source: Shi et al. 2015, arXiv 1506.04214, section 4.1 ("patch size").
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from ..backend import Array
from .columns import col2im, im2col
from .windows import Geometry, Sizes, Window, per_axis


class PatchesSaved(NamedTuple):
    """Where the patches lie."""

    geometry: Geometry


def space_to_depth_forward(x: Array, *, patch: int | Sizes) -> tuple[Array, PatchesSaved]:
    """Fold every patch of pixels into the channels of one pixel.

        y[n, (c, k), p] = x[n, c, patch * p + k]      k in *patch

    Args:
        x: (N, C, *S), every size a multiple of the patch.
        patch: pixels per patch, an int or one an axis.
    Returns:
        y (N, C * prod(patch), *(S / patch)) and what `space_to_depth_backward` needs.
    Raises:
        ValueError: a size of x is no multiple of the patch.
    """
    if x.ndim < 2:
        raise ValueError(f"x.shape is {x.shape}, expected (N, C, *S)")
    sizes = x.shape[2:]
    patch = per_axis(patch, len(sizes), "patch")
    if any(n % k for n, k in zip(sizes, patch, strict=True)):
        raise ValueError(f"x has spatial sizes {sizes}, expected multiples of the patch {patch}")
    geometry = Window(patch, stride=patch).over(sizes)
    return to_depth(x, geometry), PatchesSaved(geometry)


def space_to_depth_backward(dy: Array, saved: PatchesSaved) -> Array:
    """dx (N, C, *S) from dy (N, C * prod(patch), *(S / patch)): every number goes back to its pixel."""
    return to_space(dy, saved.geometry)


def depth_to_space_forward(x: Array, *, patch: int | Sizes) -> tuple[Array, PatchesSaved]:
    """Unfold channels into patches of pixels: the inverse of `space_to_depth_forward`.

        y[n, c, patch * p + k] = x[n, (c, k), p]      k in *patch

    Args:
        x: (N, C * prod(patch), *S).
        patch: pixels per patch, an int or one an axis.
    Returns:
        y (N, C, *(S * patch)) and what `depth_to_space_backward` needs.
    Raises:
        ValueError: the channels of x are no multiple of prod(patch).
    """
    if x.ndim < 2:
        raise ValueError(f"x.shape is {x.shape}, expected (N, C, *S)")
    patch = per_axis(patch, x.ndim - 2, "patch")
    if x.shape[1] % prod(patch):
        raise ValueError(f"x has {x.shape[1]} channels, expected a multiple of prod(patch) = {prod(patch)}")
    geometry = Window(patch, stride=patch).over(tuple(n * k for n, k in zip(x.shape[2:], patch, strict=True)))
    return to_space(x, geometry), PatchesSaved(geometry)


def depth_to_space_backward(dy: Array, saved: PatchesSaved) -> Array:
    """dx (N, C * prod(patch), *S) from dy (N, C, *(S * patch))."""
    return to_depth(dy, saved.geometry)


def to_depth(x: Array, geometry: Geometry) -> Array:
    """(N, C, *S) as (N, C * taps, *out)."""
    return im2col(x, geometry).reshape(x.shape[0], x.shape[1] * geometry.taps, *geometry.out)


def to_space(x: Array, geometry: Geometry) -> Array:
    """(N, C * taps, *out) as (N, C, *S)."""
    return col2im(x.reshape(*x.shape[:2], geometry.positions), geometry)
