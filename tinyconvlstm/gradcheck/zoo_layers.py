"""The layers' and models' part of the zoo."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..cells import ConvLSTMCell, GRUCell, LSTMCell, RNNCell
from ..layers import (
    Activation,
    BatchNorm,
    Bidirectional,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalPool,
    GroupNorm,
    Layer,
    LayerNorm,
    Pool,
    Recurrent,
    Sequential,
    TimeDistributed,
)
from ..models.forecaster import Forecaster
from ..models.openstl import OpenSTLForecaster
from .case import Case
from .layers import layer_case

Rng = np.random.Generator
F64: dict[str, Any] = {"dtype": np.float64}


def layer_cases(rng: Rng) -> list[Case]:
    """A case of every layer, with random parameters.

    Args:
        rng: a NumPy Generator.
    Returns:
        Cases with float64 arguments.
    """
    spread = separated(rng, (2, 2, 5, 4))  # no two values near each other or near 0: no kink is near
    flat, image = rng.standard_normal((3, 4)), rng.standard_normal((3, 2, 5, 4))
    plain: list[tuple[str, Layer, Array, bool]] = [
        ("dense", Dense(4, 3, **F64), flat, True),
        ("dense without bias", Dense(4, 3, bias=False, **F64), flat, True),
        ("conv", Conv(2, 3, (3, 2), stride=2, **F64), image, True),
        ("conv transpose", ConvTranspose(2, 3, 3, stride=2, **F64), image, True),
        ("embedding", Embedding(5, 3, **F64), rng.integers(0, 5, (4, 2)), True),
        ("max pool", Pool("max", 2), spread, False),
        ("avg pool", Pool("avg", 3, stride=2, padding=1), image, True),
        ("global max pool", GlobalPool("max"), spread, False),
        ("global avg pool", GlobalPool("avg"), image, True),
        ("flatten", Flatten(), image, True),
        ("batch norm, evaluating", BatchNorm(2, **F64), image, True),
        ("layer norm", LayerNorm((5, 4), **F64), image, True),
        ("group norm", GroupNorm(4, 2, **F64), rng.standard_normal((2, 4, 3)), True),
    ]
    cases = [case(rng, *entry) for entry in plain]
    cases += [
        case(
            rng,
            f"activation {name}",
            Activation(name),
            spread if "relu" in name else image,
            "relu" not in name,
        )
        for name in ("sigmoid", "tanh", "relu", "leaky_relu", "gelu", "softmax", "log_softmax")
    ]
    cases += [
        case(rng, "dropout, training", Dropout(0.4), image, True, train=True),
        case(rng, "batch norm, training", BatchNorm(2, **F64), image, True, train=True),
    ]
    return cases + recurrent_cases(rng)


def recurrent_cases(rng: Rng) -> list[Case]:
    """Cases of the layers over time."""
    xs, ids = rng.standard_normal((4, 2, 2)), rng.integers(0, 5, (4, 2))
    frames = rng.standard_normal((3, 2, 1, 4, 3))
    cases = []
    for sequences in (True, False):
        for state in (True, False):
            layer = Recurrent(LSTMCell(2, 3, **F64), return_sequences=sequences, return_state=state)
            name = f"recurrent {'sequence' if sequences else 'last'}{' and state' if state else ''}"
            cases.append(case(rng, name, layer, xs, lengths=np.array([4, 2])))
    backwards = Recurrent(RNNCell(2, 3, **F64), reverse=True)
    dropped = Recurrent(GRUCell(2, 3, **F64), dropout=0.3, recurrent_dropout=0.3)
    stack = Sequential(
        TimeDistributed(Sequential(Conv(1, 2, 3, **F64), Activation("tanh"))),
        Recurrent(ConvLSTMCell(2, 2, (3, 3), peephole="channel", **F64)),
        Recurrent(ConvLSTMCell(2, 2, (3, 3), **F64), return_sequences=False),
        GlobalPool("avg"),
        Dense(2, 3, **F64),
    )
    words = Sequential(
        Embedding(5, 2, **F64), Recurrent(LSTMCell(2, 3, **F64)), TimeDistributed(Dense(3, 2, **F64))
    )
    cases += [
        case(rng, "recurrent reverse", backwards, xs, lengths=[4, 3]),
        case(rng, "recurrent with dropouts, training", dropped, xs, train=True),
        case(rng, "stack of conv, ConvLSTMs and dense", stack, frames),
        case(rng, "stack of embedding, LSTM and dense", words, ids),
    ]
    for merge, sequences in (("concat", True), ("concat", False), ("sum", True)):
        second = 2 if merge == "concat" else 3
        both = Bidirectional(
            LSTMCell(2, 3, **F64), GRUCell(2, second, **F64), merge=merge, return_sequences=sequences
        )
        name = f"bidirectional {merge}{'' if sequences else ' last'}"
        cases.append(case(rng, name, both, xs, lengths=[3, 4]))
    return cases


def model_cases(rng: Rng) -> list[Case]:
    """Cases of the forecaster in all its forms.

    Args:
        rng: a NumPy Generator.
    Returns:
        Cases with float64 arguments.
    """
    x, truth = rng.random((3, 2, 1, 4, 6)), rng.random((3, 2, 1, 4, 6))
    common: dict[str, Any] = {"size": (4, 6), "patch": 2, **F64}

    def made(features: tuple[int, ...] = (3, 2), **settings: Any) -> Forecaster:
        return Forecaster(features, **{"kernel": 3, **common, **settings})

    forms: list[tuple[str, Forecaster, Array, dict[str, Any]]] = [
        ("forecaster", made(), x, {}),
        ("forecaster, last layer shown", made(head="last"), x, {}),
        ("forecaster, other state kernel, peephole map", made(state_kernel=1, peephole="map"), x, {}),
        ("forecaster, fed its forecasts", made(feed=True), x, {}),
        ("forecaster, teacher forcing", made(feed=True), x, {"truth": truth, "truth_rate": 1.0}),
        ("forecaster, scheduled sampling", made(feed=True), x, {"truth": truth, "truth_rate": 0.5}),
        ("FC-LSTM", made(kernel=None), x, {}),
        ("FC-LSTM, fed its forecasts", made(kernel=None, feed=True), x, {}),
        ("forecaster 1d", made(size=(6,)), rng.random((3, 2, 1, 6)), {}),
        ("forecaster 3d", made((2,), size=(4, 2, 2)), rng.random((3, 1, 1, 4, 2, 2)), {}),
    ]
    return [
        case(rng, name, model, clip, True, "model", sequence=True, horizon=3, **settings)
        for name, model, clip, settings in forms + openstl_forms(rng)
    ]


def openstl_forms(rng: Rng) -> list[tuple[str, Layer, Array, dict[str, Any]]]:
    """OpenSTL's stack over 1 and 2 axes, fed its forecasts and, half the time, the truth."""
    x, truth = rng.random((3, 2, 2, 4, 6)), rng.random((3, 2, 2, 4, 6))
    flat = OpenSTLForecaster((3, 2), channels=2, size=(4, 6), patch=2, kernel=3, **F64)
    line = OpenSTLForecaster((2, 3), size=(6,), patch=2, kernel=3, **F64)
    return [
        ("OpenSTL 2d", flat, x, {}),
        ("OpenSTL 2d, scheduled sampling", flat, x, {"truth": truth, "truth_rate": 0.5}),
        ("OpenSTL 1d", line, rng.random((4, 2, 1, 6)), {}),
    ]


def case(
    rng: Rng, name: str, layer: Layer, x: Array, analytic: bool = True, family: str = "layer", **settings: Any
) -> Case:
    """The case of a layer whose parameters are moved away from their special initial values."""
    moved = {n: a + 0.3 * rng.standard_normal(a.shape) for n, a in layer.params.items()}
    layer = layer.bind(moved)
    return layer_case(f"{family}/{name}", layer, x, analytic=analytic, **settings)


def separated(rng: Rng, shape: tuple[int, ...]) -> Array:
    """Numbers in random order, at least 0.05 from each other and from 0."""
    count = int(np.prod(shape))
    values = 0.1 * (np.arange(count) - count // 2) + 0.05
    return rng.permutation(values).reshape(shape)
