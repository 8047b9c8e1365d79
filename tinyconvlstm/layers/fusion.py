"""Fusion: one prediction from several streams, some of which may be missing.

Every fusion reads a list of feature vectors h_s (N, F_s) and a mask `present` (S, N), and gives logits
(N, classes). A stream that is missing for a sample changes nothing, whatever numbers stand in its place,
and gets no gradient:

    ConcatFusion   W [m_1 h_1, m_2 h_2, ...] + b                  a missing stream is zeros
    SumFusion      W (S / sum m) sum_s m_s (P_s h_s + p_s) + b    the present ones stand in for it
    GatedFusion    W sum_s a_s tanh(P_s h_s + p_s) + b,           a = softmax over the present streams of
                                                                  the scores Q [m_1 h_1, ...] + q
    ScoreFusion    log mean over the present of softmax(W_s h_s + b_s)

ConcatFusion was trained to see all streams: without `drop` in training its answer for a missing one is
whatever zeros make of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..ops.activations import softmax_backward, softmax_forward
from ..ops.mean_score import mean_score_backward, mean_score_forward
from ..parameters import Container, prefixed
from .base import Grads, Layer, Rng
from .basic import Dense
from .summary import Cost

Hs = Sequence[Array]


class Fusion(Container, Layer):
    """What all fusions share.

    Args:
        features: F_s of each stream. classes: K.
        width: F of the common space of `SumFusion` and `GatedFusion`; default: the largest F_s.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    """

    def __init__(
        self,
        features: Sequence[int],
        classes: int,
        *,
        width: int | None = None,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        self.features = tuple(features)
        settings = {"rng": np.random.default_rng(rng), "dtype": dtype}
        self.parts = self.make(classes, width or max(features), settings)

    def make(self, classes: int, width: int, settings: dict[str, Any]) -> dict[str, Layer]:
        """The dense layers, by name."""
        raise NotImplementedError(type(self).__name__)

    def forward(  # type: ignore[override]
        self, hs: Hs, present: Array, *, train: bool = False, rng: Rng = None
    ) -> tuple[Array, Any]:
        """Logits (N, classes) of hs, a list of (N, F_s), and present (S, N)."""
        raise NotImplementedError(type(self).__name__)

    def check(self, hs: Hs, present: Array) -> None:
        """ValueError where streams, features or the mask do not fit, or a sample has no stream."""
        shapes = [tuple(h.shape) for h in hs]
        expected = [(present.shape[-1], f) for f in self.features]
        if shapes != expected or tuple(present.shape) != (len(hs), len(hs[0])):
            raise ValueError(
                f"hs have shapes {shapes} and present {tuple(present.shape)}, "
                f"expected (N, F_s) with F_s of {self.features}, and ({len(self.features)}, N)"
            )
        if not (present != 0).any(axis=0).all():
            raise ValueError("present leaves a sample without any stream")

    def backward(self, dy: Array, saved: Any) -> tuple[list[Array], Grads]:
        """The gradients of hs, and grads."""
        raise NotImplementedError(type(self).__name__)

    def cost(self, shape: Any) -> Cost:
        """The dense layers', for a batch of shape[0]."""
        rows = [
            (name, layer, layer.cost((shape[0], layer.params["w"].shape[1])))
            for name, layer in self.parts.items()
        ]
        return Cost.of([(name, layer, cost) for name, layer, cost in rows])


class ConcatFusion(Fusion):
    """y = W [m_1 h_1, m_2 h_2, ...] + b. Parameters: head.w (K, sum F_s), head.b."""

    def make(self, classes: int, width: int, settings: dict[str, Any]) -> dict[str, Layer]:
        """The head."""
        return {"head": Dense(sum(self.features), classes, **settings)}

    def forward(  # type: ignore[override]
        self, hs: Hs, present: Array, *, train: bool = False, rng: Rng = None
    ) -> tuple[Array, Any]:
        """As `Fusion.forward`."""
        self.check(hs, present)
        y, head = self.parts["head"].forward(beside(hs, present))
        return y, (present, head)

    def backward(self, dy: Array, saved: Any) -> tuple[list[Array], Grads]:
        """As `Fusion.backward`."""
        present, head = saved
        dx, grads = self.parts["head"].backward(dy, head)
        return apart(dx, self.features, present), prefixed("head", grads)


class SumFusion(Fusion):
    """y = W (S / sum m) sum_s m_s (P_s h_s + p_s) + b. Parameters: into.s.w (F, F_s), into.s.b, head.w, head.b."""

    def make(self, classes: int, width: int, settings: dict[str, Any]) -> dict[str, Layer]:
        """A way into the common space for each stream, and the head."""
        into: dict[str, Layer] = {
            f"into.{s}": Dense(f, width, **settings) for s, f in enumerate(self.features)
        }
        return {**into, "head": Dense(width, classes, **settings)}

    def forward(  # type: ignore[override]
        self, hs: Hs, present: Array, *, train: bool = False, rng: Rng = None
    ) -> tuple[Array, Any]:
        """As `Fusion.forward`."""
        self.check(hs, present)
        weights = share(present, hs[0].dtype) * len(hs)  # (S, N, 1)
        total, tapes = 0, []
        for s, h in enumerate(hs):
            u, tape = self.parts[f"into.{s}"].forward(kept(h, present[s]))
            total = total + weights[s] * u
            tapes.append(tape)
        y, head = self.parts["head"].forward(total)
        return y, (weights, tapes, head)

    def backward(self, dy: Array, saved: Any) -> tuple[list[Array], Grads]:
        """As `Fusion.backward`."""
        weights, tapes, head = saved
        dtotal, own = self.parts["head"].backward(dy, head)
        grads, dhs = prefixed("head", own), []
        for s, tape in enumerate(tapes):
            dh, own = self.parts[f"into.{s}"].backward(weights[s] * dtotal, tape)
            dhs.append(dh)
            grads |= prefixed(f"into.{s}", own)
        return dhs, grads


class GatedFusion(Fusion):
    """y = W sum_s a_s tanh(P_s h_s + p_s) + b,  a = softmax_s(Q [m_1 h_1, ...] + q) over the present streams.

    Parameters: into.s.w (F, F_s), into.s.b, gate.w (S, sum F_s), gate.b, head.w (K, F), head.b.
    Source: Arevalo et al. 2017, arXiv 1702.01992, equations 1 to 3, with one gate a stream in place of
        one a feature, and a softmax so that they sum to 1 over any number of streams.
    """

    def make(self, classes: int, width: int, settings: dict[str, Any]) -> dict[str, Layer]:
        """A way into the common space for each stream, the gate and the head."""
        into: dict[str, Layer] = {
            f"into.{s}": Dense(f, width, **settings) for s, f in enumerate(self.features)
        }
        gate = Dense(sum(self.features), len(self.features), **settings)
        return {**into, "gate": gate, "head": Dense(width, classes, **settings)}

    def forward(  # type: ignore[override]
        self, hs: Hs, present: Array, *, train: bool = False, rng: Rng = None
    ) -> tuple[Array, Any]:
        """As `Fusion.forward`."""
        self.check(hs, present)
        xp = array_module(hs[0])
        m = (present != 0).T  # (N, S)
        scores, gate = self.parts["gate"].forward(beside(hs, present))
        a, soft = softmax_forward(xp.where(m, scores, -1e30), axis=1)  # a missing stream's is exactly 0
        us, tapes = [], []
        for s, h in enumerate(hs):
            u, tape = self.parts[f"into.{s}"].forward(kept(h, present[s]))
            us.append(xp.tanh(u))
            tapes.append(tape)
        u = xp.stack(us)  # (S, N, F)
        y, head = self.parts["head"].forward((a.T[..., None] * u).sum(axis=0))
        return y, (present, a, soft, u, gate, tapes, head)

    def backward(self, dy: Array, saved: Any) -> tuple[list[Array], Grads]:
        """As `Fusion.backward`: every h_s is reached through its own tanh and through the gate."""
        present, a, soft, u, gate, tapes, head = saved
        dtotal, own = self.parts["head"].backward(dy, head)
        grads = prefixed("head", own)
        da = (u * dtotal).sum(axis=2).T  # (N, S)
        dbeside, own = self.parts["gate"].backward(softmax_backward(da, soft), gate)
        grads |= prefixed("gate", own)
        dhs = apart(dbeside, self.features, present)
        for s, tape in enumerate(tapes):
            dh, own = self.parts[f"into.{s}"].backward(a[:, s, None] * dtotal * (1 - u[s] * u[s]), tape)
            dhs[s] = dhs[s] + kept(dh, present[s])
            grads |= prefixed(f"into.{s}", own)
        return dhs, grads


class ScoreFusion(Fusion):
    """y = log mean_s softmax(W_s h_s + b_s) over the present streams. Parameters: head.s.w (K, F_s), head.s.b."""

    def make(self, classes: int, width: int, settings: dict[str, Any]) -> dict[str, Layer]:
        """A head for each stream."""
        return {f"head.{s}": Dense(f, classes, **settings) for s, f in enumerate(self.features)}

    def forward(  # type: ignore[override]
        self, hs: Hs, present: Array, *, train: bool = False, rng: Rng = None
    ) -> tuple[Array, Any]:
        """As `Fusion.forward`."""
        self.check(hs, present)
        found = [self.parts[f"head.{s}"].forward(kept(h, present[s])) for s, h in enumerate(hs)]
        y, mean = mean_score_forward(array_module(hs[0]).stack([logits for logits, _ in found]), present)
        return y, ([tape for _, tape in found], mean)

    def backward(self, dy: Array, saved: Any) -> tuple[list[Array], Grads]:
        """As `Fusion.backward`."""
        tapes, mean = saved
        dhs, grads = [], Grads()
        for s, (dlogits, tape) in enumerate(zip(mean_score_backward(dy, mean), tapes, strict=True)):
            dh, own = self.parts[f"head.{s}"].backward(dlogits, tape)
            dhs.append(dh)
            grads |= prefixed(f"head.{s}", own)
        return dhs, grads


FUSIONS: dict[str, type[Fusion]] = {
    "concat": ConcatFusion,
    "sum": SumFusion,
    "gated": GatedFusion,
    "score-average": ScoreFusion,
}


def kept(h: Array, present: Array) -> Array:
    """h (N, F) with zeros where present (N,) is 0, whatever stood there."""
    return array_module(h).where(present[:, None] != 0, h, 0)


def beside(hs: Hs, present: Array) -> Array:
    """[m_1 h_1, m_2 h_2, ...], (N, sum F_s)."""
    return array_module(hs[0]).concatenate([kept(h, m) for h, m in zip(hs, present, strict=True)], axis=1)


def apart(d: Array, features: Sequence[int], present: Array) -> list[Array]:
    """The gradient of each h_s from that of `beside`."""
    ends = np.cumsum(features)
    return [kept(d[:, end - f : end], m) for end, f, m in zip(ends, features, present, strict=True)]


def share(present: Array, dtype: Any) -> Array:
    """m_s / sum_k m_k, (S, N, 1)."""
    m = (present != 0).astype(dtype)
    weights: Array = (m / m.sum(axis=0))[..., None]
    return weights
