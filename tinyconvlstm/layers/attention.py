"""Attention over time: a clip's states pooled with weights that the layer learns."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..batch import alive_steps, check_sequence
from ..init import glorot_uniform
from ..ops.activations import AxisSaved
from ..ops.attention import masked_softmax_backward, masked_softmax_forward
from ..ops.linear import LinearSaved, linear_backward, linear_forward
from .base import Grads, Layer, Rng, Shape
from .recurrent import check_time
from .summary import Cost


class TemporalAttentionSaved(NamedTuple):
    """What `TemporalAttention.backward` needs."""

    x: Array  # (T, N, F, *S); padding is zero
    linear: LinearSaved  # .x (T, N, F), the means over the positions
    a: Array  # (T, N, A), tanh
    weights: AxisSaved  # .y (T, N)


class TemporalAttention(Layer):
    """A sequence as the weighted mean of its steps: what matters counts more, wherever in the clip it is.

        m[t] = mean of x[t] over its positions
        a[t] = tanh(w m[t] + b)                  score[t] = v . a[t]
        alpha = softmax(score) over t            sum of alpha = 1 for each clip
        y = sum_t alpha[t] x[t]                  (T, N, F, *S) -> (N, F, *S)

    Steps beyond a clip's length get weight 0 and gradient 0, exactly, whatever stands there. With
    v = 0 it is the mean over the valid steps.

    Args:
        features: F of the states.
        hidden: A, the size of a; default: features.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Parameters: w (A, F), b (A,), v (A,).
    Source: Bahdanau, Cho, Bengio 2014, arXiv 1409.0473, appendix A.1.2, without a decoder's state; pooling a
        sequence by it: Yang et al. 2016, "Hierarchical attention networks for document classification",
        equations 5 to 7, whose v is u_w. Scores from pooled features are this layer's own choice.
    """

    takes_lengths = True

    def __init__(
        self,
        features: int,
        hidden: int | None = None,
        *,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        hidden = features if hidden is None else hidden
        if features < 1 or hidden < 1:
            raise ValueError(f"features is {features} and hidden is {hidden}, expected at least 1 of each")
        rng = np.random.default_rng(rng)
        self.params = {
            "w": glorot_uniform(rng, (hidden, features), dtype),
            "b": np.zeros(hidden, dtype),
            "v": glorot_uniform(rng, (1, hidden), dtype)[0],
        }

    def forward(
        self, x: Array, *, train: bool = False, rng: Rng = None, lengths: Any = None
    ) -> tuple[Array, TemporalAttentionSaved]:
        """y (N, F, *S) of x (T, N, F, *S); lengths (N,) are the valid steps of each clip, default all."""
        check_time(x.shape, "TemporalAttention")
        lengths = check_sequence(x, lengths)
        w = self.params["w"]
        if x.shape[2] != w.shape[1]:
            raise ValueError(f"x has {x.shape[2]} features, w expects {w.shape[1]} (w.shape == {w.shape})")
        xp, alive = array_module(x=x, w=w), alive_steps(len(x), lengths)
        if alive is not None:
            x = xp.where(along(alive, x), x, 0)  # 0 times what stands there would keep its NaN
        m = x.reshape(*x.shape[:3], -1).mean(axis=3) if x.ndim > 3 else x  # (T, N, F)
        z, linear = linear_forward(m, w, self.params["b"])
        a = xp.tanh(z)
        alpha, weights = masked_softmax_forward(a @ self.params["v"], mask=alive, axis=0)
        y = (along(alpha, x) * x).sum(axis=0)
        return y, TemporalAttentionSaved(x, linear, a, weights)

    def backward(self, dy: Array, saved: TemporalAttentionSaved) -> tuple[Array, Grads]:
        """dx (T, N, F, *S), through the mean and through the weights.

        dalpha[t] = <dy, x[t]>        dscore = softmax's backward        dv = sum dscore a
        dz = dscore v (1 - a^2)       dw = sum dz m^T                    db = sum dz
        dx[t] = alpha[t] dy + (w^T dz[t]) / prod(S)
        """
        x, linear, a, (alpha, axis) = saved
        v, sizes = self.params["v"], x.shape[3:]
        dalpha = (x * dy).sum(axis=tuple(range(2, x.ndim)))  # (T, N)
        dscore = masked_softmax_backward(dalpha, AxisSaved(alpha, axis))
        dv = (dscore[..., None] * a).sum(axis=(0, 1))
        dm, dw, db = linear_backward(dscore[..., None] * v * (1 - a * a), linear)
        dx = along(alpha, x) * dy + (dm / prod(sizes)).reshape(*dm.shape, *(1,) * len(sizes))
        return dx, {"w": dw, "b": db, "v": dv}

    def weights(self, x: Array, lengths: Any = None) -> Array:
        """alpha (T, N) of x (T, N, F, *S), to be looked at; each column sums to 1."""
        return self.forward(x, lengths=lengths)[1].weights.y

    def cost(self, shape: Shape) -> Cost:
        """Scores and weighted sum; means, a and weights are kept. Padded clips keep a masked copy of x besides."""
        T, N, F, *S = check_time(shape, "TemporalAttention")
        hidden, positions = len(self.params["b"]), prod(S)
        means = T * N * F if S else 0
        macs = T * N * (hidden * F + hidden + F * positions)
        return Cost((N, F, *S), macs, N * F * positions + means + T * N * (hidden + 1))


def along(a: Array, x: Array) -> Array:
    """a (T, N), shaped to multiply x (T, N, ...)."""
    return a.reshape(*a.shape, *(1,) * (x.ndim - 2))
