"""The pyramid of dilated bidirectional ConvLSTMs: several views of a clip, near and far, side by side."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..cells import ConvLSTMCell
from ..parameters import Container, prefixed
from .base import Grads, Layer, Rng, Shape
from .basic import Conv
from .recurrent import Recurrent, TimeDistributed
from .summary import Cost


class DeeperSaved(NamedTuple):
    """What `DeeperBidirectional.backward` needs."""

    parts: dict[str, Any]
    y: Array
    alive: Array | None  # (T, N); None when all clips are whole


class DeeperBidirectional(Container, Layer):
    """Two ConvLSTMs, the second reading the first one's h from the last frame to the first.

        h_f = scan(forward, x)                    t = 0 .. T-1
        h_b = scan(backward, h_f)                 t = T-1 .. 0, put back in x's order
        y = tanh(w * (h_f, h_b) + b)              frame by frame

    Unlike `Bidirectional` the second layer does not read x, so it is deeper, and y[t] has seen every
    frame twice over. In padded clips y is zero beyond the length.

    Args:
        channels, features: C, and F of h_f, h_b and y.
        kernel: K of both cells and of the fusion.
        rate: dilation of both cells' input and state maps, in pixels.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Parameters: "forward.*" and "backward.*" of `ConvLSTMCell`; fuse.layer.w (F, 2F, *K), fuse.layer.b.
    Source: Song, Wang, Zhao, Shen, Lam 2018, "Pyramid dilated deeper ConvLSTM for video salient object
        detection", ECCV, section 3.2: the deeper bidirectional ConvLSTM.
    """

    takes_lengths = True

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...],
        *,
        rate: int = 1,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        rng = np.random.default_rng(rng)
        settings: dict[str, Any] = {"dilation": rate, "state_dilation": rate, "rng": rng, "dtype": dtype}
        self.parts = {
            "forward": Recurrent(ConvLSTMCell(channels, features, kernel, **settings)),
            "backward": Recurrent(ConvLSTMCell(features, features, kernel, **settings), reverse=True),
            "fuse": TimeDistributed(Conv(2 * features, features, tuple(kernel), rng=rng, dtype=dtype)),
        }

    def forward(
        self, x: Array, *, train: bool = False, rng: Rng = None, lengths: Any = None
    ) -> tuple[Array, DeeperSaved]:
        """y (T, N, F, *S) of x (T, N, C, *S); lengths (N,) as `scan`."""
        xp, parts, saved = array_module(x), self.parts, {}
        h_f, saved["forward"] = parts["forward"].forward(x, train=train, rng=rng, lengths=lengths)
        h_b, saved["backward"] = parts["backward"].forward(h_f, train=train, rng=rng, lengths=lengths)
        z, saved["fuse"] = parts["fuse"].forward(xp.concatenate([h_f, h_b], axis=2))
        alive = None if lengths is None else xp.arange(len(x))[:, None] < xp.asarray(lengths)
        y = xp.tanh(z)
        return (y if alive is None else frames_where(alive, y)), DeeperSaved(saved, y, alive)

    def backward(self, dy: Array, saved: DeeperSaved) -> tuple[Array, Grads]:
        """dx (T, N, C, *S); h_f is reached from the fusion and from the second layer."""
        parts, y, alive = saved
        dy = dy if alive is None else frames_where(alive, dy)
        dboth, grads_fuse = self.parts["fuse"].backward(dy * (1 - y * y), parts["fuse"])
        features = dboth.shape[2] // 2
        dh_f, grads_b = self.parts["backward"].backward(dboth[:, :, features:], parts["backward"])
        dx, grads_f = self.parts["forward"].backward(dboth[:, :, :features] + dh_f, parts["forward"])
        named = {"forward": grads_f, "backward": grads_b, "fuse": grads_fuse}
        return dx, {name: g for part, grads in named.items() for name, g in prefixed(part, grads).items()}

    def cost(self, shape: Shape) -> Cost:
        """Both scans and the fusion, which keeps h_f and h_b side by side."""
        first = self.parts["forward"].cost(shape)
        T, N, F, *S = first.out
        second, fuse = self.parts["backward"].cost(first.out), self.parts["fuse"].cost((T, N, 2 * F, *S))
        fuse = fuse._replace(kept=fuse.kept + 2 * prod(first.out), rows=())
        costs = {"forward": first, "backward": second, "fuse": fuse}
        return Cost.of([(name, self.parts[name], cost) for name, cost in costs.items()])


class DilatedPyramid(Container, Layer):
    """Deeper bidirectional ConvLSTMs of several dilation rates on one clip, put side by side.

        y = (y_1, y_2, ...)      y_k of `DeeperBidirectional(rate=rates[k])`, along the features

    Args:
        channels, features: C, and F of each rate; y has len(rates) * F.
        rates: one dilation a branch, in pixels; Song et al. use 1 and 2.
        The others as `DeeperBidirectional`.
    Parameters: those of the branches, named "rate1.*", "rate2.*" and so on.
    Source: Song et al. 2018, ECCV, section 3.2: PDB-ConvLSTM.
    """

    takes_lengths = True

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...],
        *,
        rates: tuple[int, ...] = (1, 2),
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        if not rates or len(set(rates)) < len(rates):
            raise ValueError(f"rates is {rates}, expected at least one dilation, each once")
        rng, self.features = np.random.default_rng(rng), features
        self.parts = {
            f"rate{rate}": DeeperBidirectional(channels, features, kernel, rate=rate, rng=rng, dtype=dtype)
            for rate in rates
        }

    def forward(
        self, x: Array, *, train: bool = False, rng: Rng = None, lengths: Any = None
    ) -> tuple[Array, dict[str, DeeperSaved]]:
        """y (T, N, len(rates) * F, *S) of x (T, N, C, *S)."""
        found = {n: part.forward(x, train=train, rng=rng, lengths=lengths) for n, part in self.parts.items()}
        y = array_module(x).concatenate([y for y, _ in found.values()], axis=2)
        return y, {name: saved for name, (_, saved) in found.items()}

    def backward(self, dy: Array, saved: dict[str, DeeperSaved]) -> tuple[Array, Grads]:
        """dx is the sum of the branches'."""
        dx, grads = None, Grads()
        for k, (name, part) in enumerate(self.parts.items()):
            dx_k, own = part.backward(dy[:, :, k * self.features : (k + 1) * self.features], saved[name])
            dx = dx_k if dx is None else dx + dx_k
            grads |= prefixed(name, own)
        return dx, grads

    def cost(self, shape: Shape) -> Cost:
        """The branches', added up."""
        cost = Cost.of([(name, part, part.cost(shape)) for name, part in self.parts.items()])
        T, N, F, *S = cost.out
        return cost._replace(out=(T, N, F * len(self.parts), *S))


def frames_where(alive: Array, y: Array) -> Array:
    """y (T, N, ...) where alive (T, N), else 0."""
    return array_module(y).where(alive.reshape(*alive.shape, *(1,) * (y.ndim - 2)), y, 0)
