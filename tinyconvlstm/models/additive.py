"""Additive attention over the frames of a clip: a query asks every frame, and reads a mixture of them.

Source: Bahdanau, Cho & Bengio 2015, arXiv 1409.0473, section 3.1 and appendix A.1.2; over the frames of a
video: Yao et al. 2015, arXiv 1502.08029, equations 6 to 8.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module, check_dtypes
from ..ops.activations import AxisSaved
from ..ops.attention import masked_softmax_backward, masked_softmax_forward


class AdditiveSaved(NamedTuple):
    """What `additive_attention_backward` needs."""

    s: Array  # (T, N, A), tanh
    a: Array  # (T, N), weights
    u: Array  # (A,)
    values: Array  # (T, N, D)


def additive_attention_forward(
    query: Array, keys: Array, u: Array, values: Array, *, mask: Array | None = None
) -> tuple[Array, AdditiveSaved]:
    """One query a clip, over its frames.

        s_t = tanh(keys_t + query);   e_t = u . s_t;   a = softmax over t of e;   context = sum_t a_t values_t

    Args:
        query: (N, A). keys: (T, N, A).
        u: (A,), the same for every frame.
        values: (T, N, D).
        mask: (T, N) bool, False where a clip has ended; such frames get weight 0. Each clip needs one frame.
    Returns:
        context (N, D), and what `additive_attention_backward` needs; its `a` (T, N) are the weights.
    Raises:
        ValueError: shapes do not fit, or a clip has no frame.
        TypeError: dtypes differ.
    Source: Bahdanau et al. 2015, appendix A.1.2.
    """
    xp = array_module(query=query, keys=keys, u=u, values=values, mask=mask)
    check_dtypes(query=query, keys=keys, u=u, values=values)
    if keys.ndim != 3 or query.shape != keys.shape[1:] or u.shape != keys.shape[2:]:
        raise ValueError(
            f"query {query.shape}, keys {keys.shape} and u {u.shape}: expected (N, A), (T, N, A) and (A,)"
        )
    if values.ndim != 3 or values.shape[:2] != keys.shape[:2]:
        raise ValueError(f"values.shape is {values.shape}, expected {keys.shape[:2]} and an axis of features")
    if mask is not None and (mask.shape != keys.shape[:2] or not mask.any(axis=0).all()):
        raise ValueError(f"mask {mask.shape} is not {keys.shape[:2]} with a True for every clip")
    s = xp.tanh(keys + query)  # (T, N, A)
    a, _ = masked_softmax_forward(s @ u, mask=mask, axis=0)
    context = (a[..., None] * values).sum(axis=0)
    return context, AdditiveSaved(s, a, u, values)


def additive_attention_backward(dcontext: Array, saved: AdditiveSaved) -> tuple[Array, Array, Array, Array]:
    """Gradients of `additive_attention_forward`.

        dvalues_t = a_t dcontext;   da_t = dcontext . values_t;   de = a (da - sum_t a_t da_t)
        du = sum_{t, n} de s;       dkeys = de u (1 - s^2);       dquery = sum_t dkeys_t

    Args:
        dcontext: (N, D).
        saved: from `additive_attention_forward`.
    Returns:
        dquery (N, A), dkeys (T, N, A), du (A,), dvalues (T, N, D).
    """
    s, a, u, values = saved
    dvalues = a[..., None] * dcontext
    da = (values * dcontext).sum(axis=-1)  # (T, N)
    de = masked_softmax_backward(da, AxisSaved(a, 0))
    du = (de[..., None] * s).sum(axis=(0, 1))
    dkeys = de[..., None] * u * (1 - s * s)
    return dkeys.sum(axis=0), dkeys, du, dvalues
