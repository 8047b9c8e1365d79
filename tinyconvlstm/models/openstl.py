"""OpenSTL's ConvLSTM: one stack that reads every frame and forecasts the next, at first and to the end.

    x_t   = the frame, in patches, while frames are known; then the forecast of the step before
    layer l scans the h of layer l - 1, layer 0 the patches; its maps have no bias
    y_t   = head(h of the last layer), a 1x1 convolution without bias and without sigmoid

It differs from Shi's encoder-forecaster: there is one stack, no peephole and no bias, and the loss is
the squared error of all T + K - 1 forecasts, those of known frames too.

Every cell of the published model also has two convolutions over [h, c] that its forward pass never
uses; they are counted in the published totals. Here they are the parameters "unused.*", and
`dead.dead_weights` finds them.

Source: Tan et al. 2023, "OpenSTL: a comprehensive benchmark of spatio-temporal predictive learning",
arXiv 2306.11249; the architecture as its repository chengtan9907/OpenSTL has it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, backend_name, to_backend
from ..batch import Parts
from ..bptt import scan, scan_backward
from ..cells.lstm import LSTMCell
from ..cells.maps import ConvMap
from ..init import glorot_uniform
from ..layers.base import Grads, Layer, Rng, Shape, needed
from ..layers.basic import Conv
from ..layers.recurrent import Recurrent
from ..layers.summary import Cost
from ..loops import Tape
from ..ops.gates import LSTMState
from ..parameters import Container, Parametric
from .forecast_cell import ForecastCell, ForecastState
from .forecaster import axes, check_settings
from .patched import Patched


class BiaslessLSTMCell(LSTMCell):
    """The convolutional LSTM cell without bias: z = w_x * x + w_h * h, the rest as `LSTMCell`.

    Parameters: w_x (4F, C, *K), w_h (4F, F, *K); gates in the order i, f, g, o.
    """

    def __init__(self, channels: int, features: int, kernel: Shape, **settings: Any) -> None:
        super().__init__(channels, features, kernel, **settings)
        self.input_map = ConvMap("w_x", None, self.kernel)
        del self.params["b"]


class Unused(Parametric):
    """The two convolutions over [h, c] of each published cell that no forward pass reads.

    Parameters: w_o (F, 2F, *K), w_last (F, 2F, 1, ...).
    """

    def __init__(self, features: int, kernel: Shape, rng: np.random.Generator, dtype: Any) -> None:
        shapes = {
            "w_o": (features, 2 * features, *kernel),
            "w_last": (features, 2 * features, *(1 for _ in kernel)),
        }
        self.params = {name: glorot_uniform(rng, shape, dtype) for name, shape in shapes.items()}
        self.buffers = {}


class LinearForecastCell(ForecastCell):
    """`ForecastCell` that feeds the head's output back as it is, without a sigmoid."""

    def fed(self, h: Array) -> Array:
        """The head's output itself."""
        return h

    def fed_backward(self, dx: Array, p: Array) -> Array:
        """The gradient itself."""
        return dx


class OpenSTLSaved(NamedTuple):
    """What `OpenSTLForecaster.backward` needs."""

    patches_in: Any
    cell: LinearForecastCell
    tape: Tape | Parts
    patches_out: Any
    observed: int


class OpenSTLForecaster(Patched, Container, Layer):
    """One stack of biasless ConvLSTMs that forecasts the frame after each one it reads.

    Args:
        features: F of each layer, bottom first.
        channels: C of a frame. size: spatial sizes S of a frame.
        kernel: of all maps, odd, one int an axis or a single int.
        patch: side p of the patches, a divisor of every size.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Parameters: "0.w_x", "0.w_h", "1.w_x", ..., "head.w", and "unused.0.w_o", "unused.0.w_last", ..., whose
        gradient is zero.
    """

    def __init__(
        self,
        features: tuple[int, ...],
        *,
        channels: int = 1,
        size: Shape = (64, 64),
        kernel: int | Shape = 5,
        patch: int = 4,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        features, size = tuple(features), tuple(size)
        check_settings(features, channels, size, patch, "last")
        kernel = axes(kernel, len(size))
        if not kernel or any(k % 2 == 0 for k in kernel):
            raise ValueError(f"kernel is {kernel}, expected odd sizes: k // 2 pixels are padded at both ends")
        self.channels, self.size, self.patch = channels, size, patch
        self.depth = self.patch_depth = channels * patch ** len(size)
        self.grid = self.patch_grid = tuple(n // patch for n in size)
        rng = np.random.default_rng(rng)
        self.cells = len(features)
        self.parts: dict[str, Any] = {
            str(k): BiaslessLSTMCell(c, f, kernel, rng=rng, dtype=dtype)
            for k, (c, f) in enumerate(zip((self.depth, *features[:-1]), features, strict=True))
        }
        ones = (1,) * len(size)
        self.parts["head"] = Conv(features[-1], self.depth, ones, bias=False, rng=rng, dtype=dtype)
        for k, f in enumerate(features):
            self.parts[f"unused.{k}"] = Unused(f, kernel, rng, dtype)

    def forward(
        self,
        x: Array,
        *,
        horizon: int = 10,
        train: bool = False,
        rng: Rng = None,
        truth: Array | None = None,
        truth_rate: float = 0.0,
    ) -> tuple[Array, OpenSTLSaved]:
        """Forecasts of frames 1 .. T + horizon - 1 from frames 0 .. T - 1.

        Args:
            x: (T, N, C, *S).
            horizon: frames to forecast after the last of x, K.
            train, rng: rng draws the coins of scheduled sampling.
            truth: (K, N, C, *S), the frames that follow. truth_rate: the probability that a clip is fed the
                true frame at a step after x, instead of its forecast.
        Returns:
            y (T + K - 1, N, C, *S), y[t] forecasting frame t + 1, and what `backward` needs.
        """
        check_clip(self, x, horizon, truth, truth_rate)
        xp, (T, N) = array_module(x), x.shape[:2]
        steps = T + horizon - 1
        coins = np.arange(steps)[:, None].repeat(N, axis=1) < T
        frames, patches_in = self.to_patches(x)
        true = xp.zeros((steps, *frames.shape[1:]), dtype=frames.dtype)
        true[:T] = frames
        if truth is not None and horizon > 1:
            true[T:] = self.to_patches(truth[:-1])[0]
            rng = needed(rng, "scheduled sampling") if 0 < truth_rate < 1 else np.random.default_rng(0)
            coins[T:] = rng.random((horizon - 1, N, 1))[..., 0] < truth_rate
        cell = self.as_cell(to_backend(coins, backend_name(x) or "numpy"))
        shapes = [(N, layer.features, *self.grid) for layer in cell.cells]
        states = tuple(LSTMState(*xp.zeros((2, *shape), dtype=frames.dtype)) for shape in shapes)
        z, _, tape = scan(cell, true, ForecastState(xp.zeros_like(true[0]), states))
        y, patches_out = self.to_frames(z)
        return y, OpenSTLSaved(patches_in, cell, tape, patches_out, T)

    def backward(self, dy: Array, saved: OpenSTLSaved) -> tuple[Array, Grads]:
        """dx (T, N, C, *S) and grads from dy (T + K - 1, N, C, *S); what is unused has gradient 0."""
        dz = self.to_frames_backward(dy, saved.patches_out)
        dtrue, _, grads = scan_backward(saved.cell, dz, None, saved.tape)
        dx = self.to_patches_backward(dtrue[: saved.observed], saved.patches_in)
        xp = array_module(dy)
        return dx, {
            name: grads[name] if name in grads else xp.zeros_like(a) for name, a in self.params.items()
        }

    def predict(self, x: Array, horizon: int = 10) -> Array:
        """Forecast frames (horizon, N, C, *S), those after the last of x."""
        y: Array = self.forward(x, horizon=horizon)[0][len(x) - 1 :]
        return y

    def as_cell(self, coins: Array) -> LinearForecastCell:
        """The stack, its head and the way back in as one cell."""
        cells = [self.parts[str(k)] for k in range(self.cells)]
        return LinearForecastCell(cells, self.parts["head"], coins, "last")

    def cost(self, shape: Shape, horizon: int = 10) -> Cost:
        """Every layer and the head at T + horizon - 1 steps."""
        T, N = shape[0] + horizon - 1, shape[1]
        rows = []
        for k in range(self.cells):
            cell = self.parts[str(k)]
            rows.append((str(k), cell, Recurrent(cell).cost((T, N, cell.channels, *self.grid))))
        head = self.parts["head"]
        cost = head.cost((T * N, head.params["w"].shape[1], *self.grid))
        rows.append(("head", head, cost._replace(out=(T, N, self.channels, *self.size))))
        return Cost.of(rows)


def check_clip(model: Any, x: Array, horizon: int, truth: Array | None, truth_rate: float) -> None:
    """ValueError where an argument of `forward` does not fit the model."""
    frame = (model.channels, *model.size)
    if horizon < 1 or not 0 <= truth_rate <= 1 or (truth_rate > 0 and truth is None):
        raise ValueError(
            f"horizon is {horizon} and truth_rate {truth_rate}, expected at least 1, and 0..1, above 0 only with truth"
        )
    for name, frames in (("x", x), ("truth", truth)):
        if frames is not None and (frames.ndim != 2 + len(frame) or frames.shape[2:] != frame):
            raise ValueError(
                f"{name} has shape {tuple(frames.shape)}, expected (T, N, {', '.join(map(str, frame))})"
            )
    if truth is not None and truth.shape[:2] != (horizon, x.shape[1]):
        raise ValueError(f"truth has {truth.shape[:2]} frames and clips, expected {(horizon, x.shape[1])}")


def openstl_counts(
    features: tuple[int, ...], *, channels: int = 1, size: Shape = (64, 64), kernel: int = 5, patch: int = 4
) -> tuple[int, int]:
    """(all, live) parameters of an `OpenSTLForecaster`, without building one.

    live = sum over layers of 4 F (C + F) K  +  D F_last          K = kernel^axes, D = channels * patch^axes
    dead = sum over layers of 2 F F K + 2 F F                     the two convolutions over [h, c]
    """
    taps = kernel ** len(size)
    depth = channels * patch ** len(size)
    inputs = (depth, *features[:-1])
    live = sum(4 * f * (c + f) * taps for c, f in zip(inputs, features, strict=True)) + depth * features[-1]
    return live + sum(2 * f * f * (taps + 1) for f in features), live
