"""The encoder-forecaster of Shi et al. 2015: a stack of ConvLSTMs reads a clip, its copy unrolls the future.

    patches      frame (C, H, W) -> (C p^2, H/p, W/p), so that one state pixel sees p x p image pixels
    encoder      layer l scans the hidden sequence of layer l - 1; layer 0 scans the patches
    forecaster   starts from the encoder's final states, layer by layer; its first layer has no input
    head         1x1 convolution over all forecaster layers concatenated -> logits of the next frames

With `feed=True` the forecaster's first layer instead reads the frame before: the true one (teacher
forcing), its own forecast (closed loop), or a coin toss between the two (scheduled sampling, Bengio
et al. 2015, arXiv 1506.03099). Training then differentiates through the fed-back forecasts.

Source: Shi et al. 2015, arXiv 1506.04214, section 3.2, figure 3, and section 4.1.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module, backend_name, to_backend
from ..batch import Parts
from ..bptt import scan, scan_backward
from ..cells.lstm import LSTMCell
from ..layers.base import Grads, Layer, Rng, Shape, needed
from ..layers.basic import Conv
from ..layers.recurrent import Recurrent
from ..layers.summary import Cost
from ..loops import Tape
from ..ops.activations import sigmoid
from ..ops.lowering import frames_of
from ..ops.windows import as_int, per_axis
from ..parameters import Container, prefixed
from .forecast_cell import ForecastCell, ForecastState, split_features
from .patched import Patched


class ForecasterSaved(NamedTuple):
    """What `Forecaster.backward` needs."""

    patches_in: Any
    encoder: dict[str, Tape | Parts]
    forecaster: Any  # tapes by layer, or the FedTape of a fed forecaster
    head: Any
    patches_out: Any


class Forecaster(Patched, Container, Layer):
    """Encoder-forecaster over 0 to 3 spatial axes; with kernel () it is the FC-LSTM baseline.

    Args:
        features: F of each layer, bottom first, e.g. (128, 64, 64).
        channels: C of a frame.
        size: spatial sizes S of a frame.
        kernel: of the input maps, one int an axis or a single int. state_kernel: of the state maps.
            None for both makes dense layers on flattened frames (FC-LSTM).
        patch: side p of the patches, a divisor of every size.
        peephole: None, "channel" or "map", as `LSTMCell`.
        head: "all" forecaster layers concatenated or the "last" one. The published FC-LSTM count
            needs "last", the ConvLSTM counts "all"; default: by the kind.
        feed: whether the forecaster's first layer reads the previous frame.
        prior: mean intensity of the frames; the head's bias starts at its log-odds, so that training
            does not begin by learning how dark a frame is (Lin et al. 2017, arXiv 1708.02002, 3.3).
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Parameters: "encoder.0.w_x", ..., "forecaster.0.w_h", ..., "head.w", "head.b". Without feed the
        forecaster's first layer has no w_x.
    """

    def __init__(
        self,
        features: tuple[int, ...],
        *,
        channels: int = 1,
        size: Shape = (64, 64),
        kernel: int | Shape | None = 5,
        state_kernel: int | Shape | None = None,
        patch: int = 1,
        peephole: str | None = "channel",
        head: str | None = None,
        feed: bool = False,
        prior: float = 0.5,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        features, size = tuple(features), tuple(size)
        dense = kernel is None
        head = head or ("last" if dense else "all")
        check_settings(features, channels, size, patch, head)
        self.config: dict[str, Any] = {
            "features": list(features),
            "channels": channels,
            "size": list(size),
            "kernel": kernel if kernel is None or isinstance(kernel, int) else list(kernel),
            "state_kernel": list(state_kernel) if isinstance(state_kernel, tuple | list) else state_kernel,
            "patch": patch,
            "peephole": peephole,
            "head": head,
            "feed": feed,
        }
        self.size, self.channels, self.patch, self.dense, self.feed = size, channels, patch, dense, feed
        self.head_over = head
        grid = tuple(n // patch for n in size)  # spatial sizes of the states
        depth = channels * patch ** len(size)  # channels of a frame cut into patches
        self.patch_depth, self.patch_grid = depth, grid
        if dense:
            depth, grid = depth * prod(grid), ()
        input_kernel = axes(kernel, len(grid))
        state = input_kernel if state_kernel is None else axes(state_kernel, len(grid))
        rng = np.random.default_rng(rng)
        settings = {"state_kernel": state, "peephole": peephole, "size": grid, "rng": rng, "dtype": dtype}
        inputs = (depth, *features[:-1])
        self.depth, self.grid = depth, grid
        self.parts = {}
        for k, (c, f) in enumerate(zip(inputs, features, strict=True)):
            self.parts[f"encoder.{k}"] = LSTMCell(c, f, input_kernel, **settings)
        for k, (c, f) in enumerate(zip(inputs, features, strict=True)):
            channels_in = c if k or feed else 0
            self.parts[f"forecaster.{k}"] = LSTMCell(channels_in, f, input_kernel, **settings)
        self.parts["head"] = Conv(
            sum(features) if head == "all" else features[-1], depth, (1,) * len(grid), rng=rng, dtype=dtype
        )
        if not 0 < prior < 1:
            raise ValueError(f"prior is {prior}, expected a mean intensity between 0 and 1")
        self.parts["head"].params["b"] += np.log(prior / (1 - prior))

    @property
    def layers(self) -> int:
        """Number of layers of the encoder, and of the forecaster."""
        return len(self.config["features"])

    def forward(
        self,
        x: Array,
        *,
        horizon: int = 10,
        train: bool = False,
        rng: Rng = None,
        truth: Array | None = None,
        truth_rate: float = 0.0,
    ) -> tuple[Array, ForecasterSaved]:
        """Logits of the `horizon` frames that follow x; their sigmoid is the forecast.

        Args:
            x: (T, N, C, *S), frames in [0, 1].
            horizon: frames to forecast.
            train, rng: rng draws the coins of scheduled sampling.
            truth: (horizon, N, C, *S), the frames that follow, for teacher forcing; needs feed.
            truth_rate: probability that the true frame before is fed instead of the forecast, for each
                clip and step: 1 teacher forcing, 0 closed loop, between them scheduled sampling.
        Returns:
            logits (horizon, N, C, *S) and what `backward` needs.
        Raises:
            ValueError: x or truth do not fit the model, or truth_rate needs what is not given.
        """
        self.check(x, horizon, truth, truth_rate)
        patches, patches_in = self.to_patches(x)
        sequence, encoder, states = patches, {}, []
        for k in range(self.layers):
            sequence, state, encoder[f"encoder.{k}"] = scan(self.parts[f"encoder.{k}"], sequence)
            states.append(state)
        z: Array
        if self.feed:
            z, forecaster, head = self.unroll_fed(patches, states, horizon, truth, truth_rate, rng)
        else:
            z, forecaster, head = self.unroll(states, horizon)
        logits, patches_out = self.to_frames(z)
        return logits, ForecasterSaved(patches_in, encoder, forecaster, head, patches_out)

    def backward(self, dy: Array, saved: ForecasterSaved) -> tuple[Array, Grads]:
        """dx (T, N, C, *S) and grads from dy, the gradient of the logits (horizon, N, C, *S)."""
        dz = self.to_frames_backward(dy, saved.patches_out)
        if self.feed:
            dpatches, dstates, grads = self.unroll_fed_backward(dz, saved.forecaster)
        else:
            dstates, grads = self.unroll_backward(dz, saved.forecaster, saved.head)
            dpatches = None
        dsequence: Array = None
        for k in reversed(range(self.layers)):
            name = f"encoder.{k}"
            dsequence, _, own = scan_backward(self.parts[name], dsequence, dstates[k], saved.encoder[name])
            grads |= prefixed(name, own)
        if dpatches is not None:
            dsequence[-1] += dpatches  # the last frame was also the first one fed
        dx = self.to_patches_backward(dsequence, saved.patches_in)
        return dx, {name: grads[name] for name in self.params}

    def unroll(self, states: list[Any], horizon: int) -> tuple[Array, Any, Any]:
        """Head outputs (horizon, N, D, *G) of the forecaster without input, layer by layer."""
        start = states[0].h
        xp = array_module(start)
        sequence = xp.empty((horizon, start.shape[0], 0, *self.grid), dtype=start.dtype)
        tapes, shown = {}, []
        for k in range(self.layers):
            name = f"forecaster.{k}"
            sequence, _, tapes[name] = scan(self.parts[name], sequence, states[k])
            shown.append(sequence)
        shown = shown if self.head_over == "all" else shown[-1:]
        z, head = self.parts["head"].forward(frames_of(xp.concatenate(shown, axis=2)))
        return z.reshape(horizon, start.shape[0], *z.shape[1:]), tapes, head

    def unroll_backward(
        self, dz: Array, tapes: dict[str, Tape | Parts], head: Any
    ) -> tuple[list[Any], Grads]:
        """Gradients of the encoder's final states, bottom first, and of the forecaster and head."""
        dshown, own = self.parts["head"].backward(frames_of(dz), head)
        grads = prefixed("head", own)
        dshown = split_features(dshown, self.config["features"], self.head_over)
        dstates: list[Any] = []
        dabove: Array = 0
        for k in reversed(range(self.layers)):
            name = f"forecaster.{k}"
            if not isinstance(dshown[k], int):
                dabove = dshown[k].reshape(*dz.shape[:2], *dshown[k].shape[1:]) + dabove
            dabove, dstate, own = scan_backward(self.parts[name], dabove, None, tapes[name])
            grads |= prefixed(name, own)
            dstates.append(dstate)
        return dstates[::-1], grads

    def fed_cell(self, coins: Array) -> ForecastCell:
        """The forecaster and its head as one cell."""
        cells = [self.parts[f"forecaster.{k}"] for k in range(self.layers)]
        return ForecastCell(cells, self.parts["head"], coins, self.head_over)

    def unroll_fed(
        self, patches: Array, states: list[Any], horizon: int, truth: Array | None, rate: float, rng: Rng
    ) -> tuple[Array, Any, Any]:
        """Head outputs (horizon, N, D, *G) of the forecaster that reads the frame before.

        The first frame fed is the clip's last one; then the truth where the coin says so.
        """
        xp, N = array_module(patches), patches.shape[1]
        coins = np.full((horizon, N), truth is not None and rate == 1)
        if 0 < rate < 1:
            coins = needed(rng, "scheduled sampling").random((horizon, N, 1))[..., 0] < rate
        coins[0] = True
        true = xp.zeros((horizon, *patches.shape[1:]), dtype=patches.dtype)
        true[0] = patches[-1]
        if truth is not None and horizon > 1:
            true[1:] = self.to_patches(truth[:-1])[0]
        cell = self.fed_cell(to_backend(coins, backend_name(patches) or "numpy"))
        z, _, tape = scan(cell, true, ForecastState(xp.zeros_like(true[0]), tuple(states)))
        return z, FedTape(cell, tape), None

    def unroll_fed_backward(self, dz: Array, fed: FedTape) -> tuple[Array, list[Any], Grads]:
        """Gradients of the clip's last patches, of the encoder's final states, and of forecaster and head."""
        dtrue, dstate, found = scan_backward(fed.cell, dz, None, fed.tape)
        grads = {n if n.startswith("head.") else f"forecaster.{n}": g for n, g in found.items()}
        return dtrue[0], list(dstate.layers), grads

    def predict(self, x: Array, horizon: int = 10, *, clips: int = 32) -> Array:
        """Forecast frames (horizon, N, C, *S) in [0, 1], a few clips at a time to bound the memory."""
        batches = (x[:, n : n + clips] for n in range(0, x.shape[1], clips))
        parts = [sigmoid(self.forward(batch, horizon=horizon)[0]) for batch in batches]
        return array_module(x).concatenate(parts, axis=1)

    def check(self, x: Array, horizon: int, truth: Array | None, truth_rate: float) -> None:
        """ValueError where an argument of `forward` does not fit the model."""
        frame = (self.channels, *self.size)
        for name, frames in (("x", x), ("truth", truth)):
            if frames is not None and (frames.ndim != 2 + len(frame) or frames.shape[2:] != frame):
                raise ValueError(
                    f"{name} has shape {tuple(frames.shape)}, expected (T, N, {', '.join(map(str, frame))})"
                )
        as_int(horizon, "horizon")
        if not 0 <= truth_rate <= 1:
            raise ValueError(f"truth_rate is {truth_rate}, expected a probability from 0 to 1")
        if truth_rate > 0 and (truth is None or not self.feed):
            raise ValueError("truth_rate above 0 needs truth, and a forecaster with feed=True")
        if truth is not None and truth.shape[:2] != (horizon, x.shape[1]):
            raise ValueError(
                f"truth has {truth.shape[:2]} frames and clips, expected {(horizon, x.shape[1])}"
            )

    def cost(self, shape: Shape, horizon: int = 10) -> Cost:
        """Every layer of both stacks, and the head, for `horizon` forecast frames."""
        T, N = shape[0], shape[1]
        rows, features = [], self.config["features"]
        inputs = (self.depth, *features[:-1])
        for stack, steps in (("encoder", T), ("forecaster", horizon)):
            for k, channels in enumerate(inputs):
                cell = self.parts[f"{stack}.{k}"]
                cost = Recurrent(cell).cost((steps, N, min(channels, cell.channels), *self.grid))
                rows.append((f"{stack}.{k}", cell, cost))
        head = self.parts["head"]
        cost = head.cost((horizon * N, head.params["w"].shape[1], *self.grid))
        out = (horizon, N, self.channels, *self.size)
        return Cost.of([*rows, ("head", head, cost._replace(out=out))])


class FedTape(NamedTuple):
    """The tape of a fed forecaster, and the cell that made it."""

    cell: ForecastCell
    tape: Tape | Parts


def axes(kernel: int | Shape | None, rank: int) -> Shape:
    """A kernel with one entry an axis; () for a dense map."""
    return per_axis(() if kernel is None else kernel, rank, "kernel") if rank else ()


def check_settings(features: Shape, channels: int, size: Shape, patch: int, head: str) -> None:
    """ValueError where a setting of `Forecaster` is out of range."""
    if not features:
        raise ValueError("features is (), expected one entry for each layer")
    for f in features:
        as_int(f, "features")
    as_int(channels, "channels")
    as_int(patch, "patch")
    for n in size:
        if as_int(n, "size") % patch:
            raise ValueError(f"patch is {patch}, expected a divisor of every size of {size}")
    if head not in ("all", "last"):
        raise ValueError(f"head is {head!r}, expected 'all' or 'last'")
