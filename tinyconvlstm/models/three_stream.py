"""Pictures, flow and sound: a stream of convolutions and an LSTM for each, fused, trained jointly.

    pictures (T, N, 3, H, W)  conv3d, ReLU, pool -> mean over positions -> align -> LSTM -> h_rgb
    flow     (T, N, 2, H, W)  conv3d, ReLU, pool -> mean over positions -> align -> LSTM -> h_flow
    sound    (T_a, N, M)      conv1d, ReLU, pool                        -> align -> LSTM -> h_audio
    fusion: one of `layers.fusion.FUSIONS` -> logits (N, classes)

Streams of different rates meet by one rule (`ops.align`): all cover the same span of time, and each
LSTM runs on one clock of `steps` steps, whose step is the mean of what it overlaps.

Source: Simonyan & Zisserman 2014, arXiv 1406.2199, for a stream of pictures and one of flow; Tran et al.
2015, arXiv 1412.0767, for convolutions over time; Ng et al. 2015, arXiv 1503.08909, for the LSTM over
what they give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, array_module
from ..cells import LSTMCell
from ..layers.base import Grads, Layer, Rng, Sequential, Shape, needed
from ..layers.basic import Conv
from ..layers.clips import ToFrames, ToVolume
from ..layers.fusion import FUSIONS
from ..layers.plain import Activation, GlobalPool, Pool
from ..layers.recurrent import Recurrent, TimeDistributed, check_time
from ..layers.summary import Cost, Summary
from ..ops.align import align_steps_backward, align_steps_forward
from ..parameters import Container, prefixed
from .classifier import check_features

NAMES = ("rgb", "flow", "audio")


class StreamSaved(NamedTuple):
    """What `Stream.backward` needs."""

    conv: Any
    align: Any
    lstm: Any
    skip: Array | None  # (T, 1, 1): how many steps the mean of the features went over


class Stream(Container, Layer):
    """Convolutions over time (and space), pooling, one clock, an LSTM: h of its last step, (N, F).

        u = mean over positions of pool(relu(conv(x))) ..., (T', N, C')
        v = align(u, steps);   h = LSTM(v)[-1]
        y = h                       skip=None
            [h, mean_t v]           skip="concat"
            h + mean_t v            skip="sum", where C' = F

    Args:
        channels: C of the input.
        features: of the convolutions, first to last; the last is C'.
        kernel: (k_t, *k_s): (3, 3, 3) for pictures, (3,) for the features of a sound.
        pool: of the maximum after each convolution, (p_t, *p_s).
        hidden: F of the LSTM.
        skip: whether the convolutions' features also pass the LSTM by.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Parameters: "conv.*" and "lstm.*".
    Raises:
        ValueError: skip is unknown, or "sum" with features that do not fit.
    """

    def __init__(
        self,
        channels: int,
        *,
        features: Sequence[int] = (8, 16),
        kernel: Shape = (3, 3, 3),
        pool: Shape | None = None,
        hidden: int = 16,
        skip: str | None = None,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        check_features(features)
        if skip not in (None, "concat", "sum"):
            raise ValueError(f"skip is {skip!r}, expected None, 'concat' or 'sum'")
        if skip == "sum" and features[-1] != hidden:
            raise ValueError(
                f"skip is 'sum' with {features[-1]} features and hidden {hidden}, expected equal ones"
            )
        rng = np.random.default_rng(rng)
        kernel = tuple(kernel)
        window = pool or (1, *(2 for _ in kernel[1:]))
        layers: list[Layer] = [ToVolume()]
        for c, f in zip((channels, *features[:-1]), features, strict=True):
            layers += [Conv(c, f, kernel, rng=rng, dtype=dtype), Activation("relu"), Pool("max", window)]
        layers.append(ToFrames())
        if len(kernel) > 1:
            layers.append(TimeDistributed(GlobalPool("avg")))
        self.skip = skip
        self.features = hidden + (features[-1] if skip == "concat" else 0)  # of y
        self.parts = {
            "conv": Sequential(*layers),
            "lstm": Recurrent(LSTMCell(features[-1], hidden, rng=rng, dtype=dtype), return_sequences=False),
        }

    def forward(
        self, x: Array, *, train: bool = False, rng: Rng = None, steps: int | None = None
    ) -> tuple[Array, StreamSaved]:
        """y (N, features) of x (T, N, C, *S); steps: of the clock, default as many as the convolutions leave."""
        u, conv = self.parts["conv"].forward(x, train=train, rng=rng)
        v, align = align_steps_forward(u, steps=len(u) if steps is None else steps)
        h, lstm = self.parts["lstm"].forward(v, train=train, rng=rng)
        if self.skip is None:
            return h, StreamSaved(conv, align, lstm, None)
        mean = v.mean(axis=0)
        y = h + mean if self.skip == "sum" else array_module(h).concatenate([h, mean], axis=1)
        return y, StreamSaved(conv, align, lstm, 0 * v[:, :1, :1] + 1)

    def backward(self, dy: Array, saved: StreamSaved) -> tuple[Array, Grads]:
        """dx (T, N, C, *S) and grads of dy (N, features)."""
        hidden = self.parts["lstm"].cell.features
        dh = dy if self.skip == "sum" else dy[:, :hidden]
        dv, own = self.parts["lstm"].backward(dh, saved.lstm)
        grads = prefixed("lstm", own)
        if saved.skip is not None:
            dmean = dy if self.skip == "sum" else dy[:, hidden:]
            dv = dv + saved.skip * dmean / len(dv)
        dx, own = self.parts["conv"].backward(align_steps_backward(dv, saved.align), saved.conv)
        return dx, {**prefixed("conv", own), **grads}

    def cost(self, shape: Shape, steps: int | None = None) -> Cost:
        """Convolutions at the stream's rate, the LSTM at the clock's."""
        check_time(shape, "Stream")
        conv = self.parts["conv"].cost(shape)
        lstm = self.parts["lstm"].cost((steps or conv.out[0], *conv.out[1:]))
        cost = Cost.of([("conv", self.parts["conv"], conv), ("lstm", self.parts["lstm"], lstm)])
        return cost._replace(out=(shape[1], self.features))


class ThreeStreamSaved(NamedTuple):
    """What `ThreeStream.backward` needs."""

    streams: dict[str, Any]
    fusion: Any


class ThreeStream(Container, Layer):
    """Streams and their fusion; the input and its gradient are dictionaries with the streams' names.

    Args:
        rgb, flow, audio: a `Stream` each.
        classes: K.
        fusion: a key of `FUSIONS`: "concat", "sum", "gated" or "score-average".
        steps: of the clock that all LSTMs run on, whichever streams are there.
        drop: in training, the probability that a sample lacks a stream (never all of them), so that
            the model learns to do without.
        rng: a NumPy Generator or a seed. dtype: of the fusion's parameters.
    Parameters: "rgb.*", "flow.*", "audio.*", "fusion.*".
    """

    def __init__(
        self,
        rgb: Stream,
        flow: Stream,
        audio: Stream,
        *,
        classes: int,
        steps: int,
        fusion: str = "concat",
        drop: float = 0.0,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        if fusion not in FUSIONS:
            raise ValueError(f"fusion is {fusion!r}, expected one of {sorted(FUSIONS)}")
        if not 0 <= drop < 1:
            raise ValueError(f"drop is {drop}, expected a probability from 0 up to but not including 1")
        self.steps, self.drop = steps, drop
        streams = dict(zip(NAMES, (rgb, flow, audio), strict=True))
        widths = [stream.features for stream in streams.values()]
        self.parts = {**streams, "fusion": FUSIONS[fusion](widths, classes, rng=rng, dtype=dtype)}

    def forward(
        self,
        x: Mapping[str, Array | None],
        *,
        train: bool = False,
        rng: Rng = None,
        present: Mapping[str, Array] | None = None,
    ) -> tuple[Array, ThreeStreamSaved]:
        """Logits (N, classes).

        Args:
            x: the streams by name, each (T_s, N, C_s, *S_s); one that is missing for all samples is
                None or left out.
            train, rng: as `Layer.forward`; rng draws which streams are dropped.
            present: (N,) by name, true where a sample has the stream; default: all.
        Raises:
            ValueError: an unknown name, streams of different batch sizes, or a sample without any stream.
        """
        found = self.check(x)
        xp = array_module(*found.values())
        N = next(iter(found.values())).shape[1]
        mask = np.array([[name in found] * N for name in NAMES])
        for name, there in (present or {}).items():
            if name not in NAMES or len(there) != N:
                raise ValueError(
                    f"present[{name!r}] has {len(there)} entries, expected {N}, for one of {NAMES}"
                )
            mask[NAMES.index(name)] &= np.array([bool(b) for b in there])
        if train and self.drop:
            mask = dropped(mask, self.drop, needed(rng, "drop"))
        if not mask.any(axis=0).all():
            raise ValueError("present leaves a sample without any stream")
        hs, tapes = [], {}
        for name in NAMES:
            stream = self.parts[name]
            if name in found:
                there = mask[NAMES.index(name)]
                if not there.all():  # what stands in the place of a missing stream is never read
                    found[name] = only(found[name], xp.asarray(there))
                h, tapes[name] = stream.forward(found[name], train=train, rng=rng, steps=self.steps)
            else:
                like = next(iter(found.values()))
                h = xp.zeros((N, stream.features), like.dtype)
            hs.append(h)
        y, fusion = self.parts["fusion"].forward(hs, xp.asarray(mask), train=train, rng=rng)
        return y, ThreeStreamSaved(tapes, fusion)

    def backward(self, dy: Array, saved: ThreeStreamSaved) -> tuple[dict[str, Array], Grads]:
        """The gradients of the streams' inputs by name, and grads; zero for what was missing."""
        dhs, own = self.parts["fusion"].backward(dy, saved.fusion)
        grads, dx = prefixed("fusion", own), {}
        for name, dh in zip(NAMES, dhs, strict=True):
            stream = self.parts[name]
            if name in saved.streams:
                dx[name], own = stream.backward(dh, saved.streams[name])
            else:
                own = {key: 0 * a for key, a in stream.params.items()}
            grads |= prefixed(name, own)
        return dx, {name: grads[name] for name in self.params}

    def check(self, x: Mapping[str, Array | None]) -> dict[str, Array]:
        """The streams that are there; ValueError for an unknown name, none at all or unequal batches."""
        unknown = sorted(set(x) - set(NAMES))
        found = {name: a for name in NAMES if (a := x.get(name)) is not None}
        if unknown or not found:
            raise ValueError(f"x has streams {sorted(x)}, expected one or more of {NAMES}")
        sizes = {name: a.shape[1] for name, a in found.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"x has batches of different sizes: {sizes}")
        return found

    def summary(self, shape: Mapping[str, Shape]) -> Summary:  # type: ignore[override]
        """As `Layer.summary`, for a dictionary of shapes; streams that are left out are not counted."""
        itemsize = next(int(a.dtype.itemsize) for a in self.params.values())
        shapes: Any = tuple(map(tuple, shape.values()))
        return Summary(self.cost(shape).rows, shapes, itemsize)

    def cost(self, shape: Mapping[str, Shape]) -> Cost:  # type: ignore[override]
        """The streams that have a shape, and the fusion."""
        rows = [
            (name, self.parts[name], self.parts[name].cost(tuple(shape[name]), self.steps))
            for name in NAMES
            if name in shape
        ]
        batch = next(iter(shape.values()))[1]
        return Cost.of([*rows, ("fusion", self.parts["fusion"], self.parts["fusion"].cost((batch,)))])


def three_stream(
    classes: int,
    *,
    bands: int,
    steps: int,
    features: Sequence[int] = (8, 16),
    hidden: int = 16,
    rng: np.random.Generator | int = 0,
    dtype: Any = np.float32,
    **settings: Any,
) -> ThreeStream:
    """The three-stream network for pictures (C = 3), flow (C = 2) and a sound's features (C = bands).

    Args:
        classes: K. bands: frequency bands of the sound's features.
        steps: of the clock that all LSTMs run on.
        features, hidden: of every `Stream`.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
        settings: further settings of `ThreeStream`.
    """
    rng = np.random.default_rng(rng)
    made: dict[str, Any] = {"features": features, "hidden": hidden, "rng": rng, "dtype": dtype}
    return ThreeStream(
        Stream(3, **made),
        Stream(2, **made),
        Stream(bands, kernel=(3,), pool=(2,), **made),
        classes=classes,
        steps=steps,
        rng=rng,
        dtype=dtype,
        **settings,
    )


def only(x: Array, there: Array) -> Array:
    """x (T, N, ...) with zeros for the samples that are not there."""
    return array_module(x).where(there.reshape(1, -1, *(1,) * (x.ndim - 2)), x, 0)


def dropped(mask: Array, rate: float, rng: np.random.Generator) -> Array:
    """The mask (S, N) with each entry kept with probability 1 - rate; a sample left bare keeps one of its own."""
    drawn = rng.random((*mask.shape, 1))[..., 0]
    kept: Array = mask & (drawn >= rate)
    last = np.where(mask, drawn, -1).argmax(axis=0)  # the one that came closest to staying
    kept[last, np.arange(mask.shape[1])] |= mask.any(axis=0)
    return kept
