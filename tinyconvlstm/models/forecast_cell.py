"""A forecaster that reads its own forecasts, as one cell: a stack of cells, a head, and the way back in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..backend import Array, array_module
from ..batch import where
from ..cells.base import Cell
from ..cells.lstm import LSTMCell
from ..cells.maps import add_to
from ..layers.base import Grads
from ..ops.activations import sigmoid
from ..ops.gates import LSTMState
from ..parameters import Container, prefixed


class ForecastState(NamedTuple):
    """What a fed forecaster carries from step to step."""

    h: Array  # (N, C, *S) logits of the frame before
    layers: tuple[LSTMState, ...]


class ForecastStepSaved(NamedTuple):
    """What one backward step needs."""

    coin: Array  # (N,) True where the truth was fed
    forecast: Array  # (N, C, *S) sigmoid of the logits before
    projections: list[Any]
    steps: list[Any]
    head: Any


class ForecastCell(Container, Cell):  # type: ignore[override]
    """One step of a stack of LSTM cells whose head's output is the next step's input.

        x = coin ? truth : sigmoid(h)               the frame before, true or forecast
        for every layer:  s_l = step_l(x, s_l);  x = s_l.h
        h' = head(s_0.h, s_1.h, ...)

    Because this is a `Cell`, every backward pass of `bptt.py` runs on it.

    Args:
        cells: bottom first. head: a layer over their concatenated h.
        coins: (T, N) True where a clip is fed the truth at a step.
        head_over: "all" or "last".
    Source: scheduled sampling, Bengio et al. 2015, arXiv 1506.03099, section 2.4; differentiated
        through the fed-back forecast.
    """

    def __init__(self, cells: Sequence[LSTMCell], head: Any, coins: Array, head_over: str) -> None:
        self.parts = {**{str(k): cell for k, cell in enumerate(cells)}, "head": head}
        self.cells, self.coins, self.head_over = list(cells), coins, head_over

    def fed(self, h: Array) -> Array:
        """The forecast that is fed back, from the head's output."""
        return sigmoid(h)

    def fed_backward(self, dx: Array, p: Array) -> Array:
        """The gradient of the head's output from that of the forecast p."""
        return dx * p * (1 - p)

    def project(self, xs: Array) -> tuple[list[tuple[Array, Array]], None]:
        """The true frames and their coins; nothing can be computed before the forecasts are known."""
        return list(zip(xs, self.coins, strict=True)), None

    def project_backward(
        self,
        dzs: Sequence[Array],
        saved: None,
        grads: Grads,
        *,
        input_grad: bool = True,
        out: Array | None = None,
    ) -> Array:
        """The gradient of the true frames (T, N, C, *S): zero where a forecast was fed."""
        return array_module(dzs[0]).stack(list(dzs))

    def state_backward(self, dzs: Sequence[Any], steps: Sequence[Any], grads: Grads) -> None:
        """Nothing is left: `step_backward` returns every gradient."""

    def step(
        self, z: tuple[Array, Array], state: ForecastState, h_mask: Array | None = None
    ) -> tuple[ForecastState, ForecastStepSaved]:
        """One step from z = (true frame (N, C, *S), coin (N,))."""
        truth, coin = z
        forecast = self.fed(state.h)
        x = where(coin, truth, forecast)
        states, projections, steps = [], [], []
        for cell, before in zip(self.cells, state.layers, strict=True):
            zs, projection = cell.project(x[None])
            after, saved = cell.step(zs[0], before)
            x = after.h
            states.append(after)
            projections.append(projection)
            steps.append(saved)
        shown = [s.h for s in states] if self.head_over == "all" else [states[-1].h]
        logits, head = self.parts["head"].forward(array_module(x).concatenate(shown, axis=1))
        return ForecastState(logits, tuple(states)), ForecastStepSaved(
            coin, forecast, projections, steps, head
        )

    def step_backward(
        self, dstate: ForecastState, saved: ForecastStepSaved
    ) -> tuple[Array, ForecastState, Grads]:
        """Head, layers from the top, then the choice of input, in the reverse order of `step`."""
        dshown, head_grads = self.parts["head"].backward(dstate.h, saved.head)
        grads = prefixed("head", head_grads)
        dh = split_features(dshown, [cell.features for cell in self.cells], self.head_over)
        before: list[LSTMState] = []
        dx: Array = 0
        for k in reversed(range(len(self.cells))):
            cell, own = self.cells[k], Grads()
            dnew = dstate.layers[k]
            dnew = dnew._replace(h=dnew.h + dh[k] + dx)
            dz, dold, step_grads = cell.step_backward(dnew, saved.steps[k])
            cell.state_backward([dz], [saved.steps[k]], own)
            dx = cell.project_backward([dz], saved.projections[k], own)[0]
            for name, value in step_grads.items():
                add_to(own, name, value)
            grads |= prefixed(str(k), own)
            before.append(dold)
        p = saved.forecast
        dlogits = where(saved.coin, 0 * dx, self.fed_backward(dx, p))
        return where(saved.coin, dx, 0), ForecastState(dlogits, tuple(before[::-1])), grads


def split_features(d: Array, features: list[int], head_over: str) -> list[Array]:
    """The gradient of each layer's h from that of the head's input, features on axis 1."""
    if head_over == "last":
        return [0] * (len(features) - 1) + [d]
    ends = [sum(features[: k + 1]) for k in range(len(features))]
    return [d[:, end - f : end] for end, f in zip(ends, features, strict=True)]
