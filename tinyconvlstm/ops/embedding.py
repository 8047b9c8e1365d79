"""Embedding: a table of vectors, one row looked up per index."""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module


class EmbeddingSaved(NamedTuple):
    """What `embedding_backward` needs."""

    indices: Array  # (...)
    w: Array  # (V, D)


def embedding_forward(indices: Array, w: Array) -> tuple[Array, EmbeddingSaved]:
    """Look up rows of w: y[..., :] = w[indices[...], :].

    Args:
        indices: integers from 0 to V - 1, any shape. Data, not differentiated.
        w: (V, D).
    Returns:
        y (*indices.shape, D) and what `embedding_backward` needs.
    Raises:
        ValueError: w is not a table, or indices are not integers from 0 to V - 1. (Left alone, NumPy
            would count negative ones from the end, and CuPy would wrap all of them.)
    """
    array_module(indices=indices, w=w)
    if w.ndim != 2:
        raise ValueError(f"w.shape is {w.shape}, expected (V, D)")
    if indices.dtype.kind not in "iu":
        raise ValueError(f"indices have dtype {indices.dtype}, expected integers")
    wrong = (indices < 0) | (indices >= w.shape[0])
    if wrong.any():
        raise ValueError(
            f"indices hold {int(indices[wrong][0])}, expected integers from 0 to {w.shape[0] - 1} "
            f"(w.shape == {w.shape})"
        )
    return w[indices], EmbeddingSaved(indices, w)


def embedding_backward(dy: Array, saved: EmbeddingSaved) -> Array:
    """dw[v, :] = sum of dy[..., :] over all places where indices is v: a row used twice adds up twice.

    Args:
        dy: (*indices.shape, D).
        saved: from `embedding_forward`.
    Returns:
        dw (V, D); indices have no gradient.
    """
    indices, w = saved
    xp = array_module(dy=dy, w=w)
    dw = xp.zeros(w.shape, dtype=dy.dtype)
    xp.add.at(dw, indices, dy)
    return dw
