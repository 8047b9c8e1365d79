"""The zoo's part of the clip classifiers: alignment, volumes, fusion, streams."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..cells import ConvLSTMCell, LSTMCell
from ..layers import Activation, Bidirectional, Conv, Dense, GlobalPool, Layer, Pool, Recurrent, Sequential
from ..layers.clips import FactorisedConv, ToFrames, ToVolume, inflated
from ..layers.fusion import FUSIONS, Fusion
from ..models.classifier import FrameLabeller, VideoClassifier
from ..models.three_stream import Stream, ThreeStream
from ..ops.align import align_steps_backward, align_steps_forward
from ..ops.mean_score import mean_score_backward, mean_score_forward
from .case import Arrays, Case, pair_case
from .layers import layer_case
from .zoo_layers import case

Rng = np.random.Generator
F64: dict[str, Any] = {"dtype": np.float64}


def network_cases(rng: Rng) -> list[Case]:
    """Cases of what `models.classifier` and `models.three_stream` are made of, and of the models.

    Args:
        rng: a NumPy Generator.
    Returns:
        Cases with float64 arguments.
    """
    mask = np.array([[1, 0, 1], [1, 1, 0]])
    pairs = [
        pair_case(
            f"align_steps/{old} to {new} steps",
            align_steps_forward,
            align_steps_backward,
            {"x": rng.standard_normal((old, 2, 3))},
            steps=new,
            sequences=("x",),
        )
        for old, new in ((7, 3), (3, 5), (4, 4))
    ]
    pairs.append(
        pair_case(
            "mean_score/with missing sources",
            mean_score_forward,
            mean_score_backward,
            {"x": rng.standard_normal((2, 3, 4))},
            present=mask,
        )
    )
    frames = rng.standard_normal((3, 2, 1, 5, 4))
    image = Sequential(Conv(2, 2, (3, 2), **F64), Activation("tanh"), Pool("avg", 2))
    smooth = Sequential(Conv(1, 2, 3, **F64), Activation("tanh"), GlobalPool("avg"))
    last = Recurrent(ConvLSTMCell(1, 2, (3, 3), **F64), return_sequences=False)
    both = Bidirectional(LSTMCell(3, 2, **F64), LSTMCell(3, 2, **F64), return_sequences=False)
    layers: list[tuple[str, Layer, Array, bool, dict[str, Any]]] = [
        ("to volume", ToVolume(), frames, True, {}),
        ("to frames", ToFrames(), rng.standard_normal((2, 3, 4, 2)), True, {}),
        (
            "factorised conv",
            FactorisedConv(2, 2, (2, 3, 3), **F64),
            rng.standard_normal((2, 2, 3, 4, 3)),
            False,
            {},
        ),
        ("inflated network", inflated(image, 2), rng.standard_normal((1, 2, 3, 5, 4)), True, {}),
    ]
    models: list[tuple[str, Layer, Array, bool, dict[str, Any]]] = [
        (
            "classifier, CNN and LSTM",
            VideoClassifier(
                [Recurrent(LSTMCell(2, 3, **F64), return_sequences=False)],
                Dense(3, 4, **F64),
                backbone=smooth,
            ),
            frames,
            True,
            {"lengths": [3, 2]},
        ),
        (
            "classifier, ConvLSTM",
            VideoClassifier([last], Sequential(GlobalPool("avg"), Dense(2, 3, **F64))),
            frames,
            True,
            {"lengths": [2, 3]},
        ),
        (
            "classifier, LSTMs, bidirectional on top",
            VideoClassifier([Recurrent(LSTMCell(2, 3, **F64)), both], Dense(4, 3, **F64)),
            rng.standard_normal((4, 2, 2)),
            True,
            {"lengths": [4, 2]},
        ),
        (
            "labeller",
            FrameLabeller(
                [Recurrent(LSTMCell(2, 3, **F64)), Recurrent(LSTMCell(3, 2, **F64))], Dense(2, 4, **F64)
            ),
            rng.standard_normal((4, 2, 2)),
            True,
            {},
        ),
    ]
    settings: dict[str, Any] = {"features": (3,), "hidden": 3, "dtype": np.float64}
    for skip in (None, "concat", "sum"):
        stream = Stream(2, kernel=(2,), pool=(2,), skip=skip, rng=1, **settings)
        models.append((f"stream, skip {skip}", stream, rng.standard_normal((7, 2, 2)), False, {"steps": 2}))
    cases = [case(rng, name, layer, x, analytic, **more) for name, layer, x, analytic, more in layers]
    cases += [
        layer_case(f"model/{name}", spread(rng, layer), x, analytic=analytic, sequence=True, **more)
        for name, layer, x, analytic, more in models
    ]
    cases += [fusion_case(rng, name, kind((2, 3), 3, **F64), mask) for name, kind in FUSIONS.items()]
    cases += [three_stream_case(rng, name) for name in FUSIONS]
    return pairs + cases


def fusion_case(rng: Rng, name: str, layer: Fusion, present: Array) -> Case:
    """A fusion of two streams, some missing; one input an h."""
    layer = spread(rng, layer)
    hs = {f"h.{s}": rng.standard_normal((present.shape[1], f)) for s, f in enumerate(layer.features)}

    def forward(values: Arrays) -> tuple[Arrays, Any]:
        bound = layer.bind({n: values[n] for n in layer.params})
        y, saved = bound.forward([values[n] for n in hs], present)
        return {"y": y}, (bound, saved)

    def backward(upstream: dict[str, Any], saved: Any) -> Arrays:
        bound, tape = saved
        dhs, grads = bound.backward(upstream["y"], tape)
        return {**dict(zip(hs, dhs, strict=True)), **grads}

    return Case(f"layer/fusion, {name}", {**hs, **layer.params}, forward, backward)


def three_stream_case(rng: Rng, fusion: str) -> Case:
    """All three streams through one fusion, jointly; one sample lacks the flow."""
    settings: dict[str, Any] = {"features": (2,), "hidden": 2, "dtype": np.float64}
    model = ThreeStream(
        Stream(3, kernel=(2, 2, 2), rng=1, **settings),
        Stream(2, kernel=(2, 3, 2), rng=2, skip="concat", **settings),
        Stream(2, kernel=(3,), pool=(2,), rng=3, **settings),
        classes=3,
        steps=2,
        fusion=fusion,
        dtype=np.float64,
    )
    model = spread(rng, model)
    x = {
        "rgb": rng.standard_normal((3, 2, 3, 4, 3)),
        "flow": rng.standard_normal((2, 2, 2, 4, 3)),
        "audio": rng.standard_normal((6, 2, 2)),
    }

    def forward(values: Arrays) -> tuple[Arrays, Any]:
        bound = model.bind({n: values[n] for n in model.params})
        y, saved = bound.forward({n: values[n] for n in x}, present={"flow": np.array([1, 0])})
        return {"y": y}, (bound, saved)

    def backward(upstream: dict[str, Any], saved: Any) -> Arrays:
        bound, tape = saved
        dx, grads = bound.backward(upstream["y"], tape)
        return {**dx, **grads}

    name = f"model/three streams, {fusion}"
    return Case(name, {**x, **model.params}, forward, backward, False, tuple(x))


def spread(rng: Rng, layer: Any) -> Any:
    """The layer with parameters moved away from their special initial values."""
    return layer.bind({n: a + 0.3 * rng.standard_normal(a.shape) for n, a in layer.params.items()})
