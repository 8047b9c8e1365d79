"""The cost table: parameters, multiply-accumulates and kept activations, against what really is kept."""

import numpy as np
import pytest

from tinyconvlstm.backend import backend_name
from tinyconvlstm.cells import ConvLSTMCell, GRUCell, LSTMCell, ResetBeforeGRUCell, RNNCell
from tinyconvlstm.layers import (
    Activation,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    LayerNorm,
    Pool,
    Recurrent,
    Sequential,
    TimeDistributed,
)
from tinyconvlstm.layers.summary import si
from tinyconvlstm.models import Forecaster

F64 = {"dtype": np.float64}


def owner(array):
    """The array that owns the memory."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def owners(tree):
    """Every array's owner in a tree of saved values, by identity."""
    if backend_name(tree) is not None:
        found = owner(tree)
        return {id(found): found} if found.dtype.kind == "f" else {}
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return {key: array for part in parts for key, array in owners(part).items()}


def kept(layer, x, **settings):
    """Numbers that forward made and that output and saved keep alive."""
    y, saved = layer.forward(x, train=True, rng=np.random.default_rng(0), **settings)
    found = owners([y, saved])
    given = owners([x, layer.params])
    return sum(a.size for key, a in found.items() if key not in given)


IMAGE, CLIP = (3, 2, 6, 4), (4, 3, 2, 6, 4)
LAYERS = [
    (Dense(4, 5, **F64), (3, 4)),
    (Conv(2, 3, 3, stride=2, **F64), IMAGE),
    (Conv(2, 4, (3, 2), groups=2, **F64), IMAGE),
    (ConvTranspose(2, 3, 3, stride=2, **F64), IMAGE),
    (Activation("tanh"), IMAGE),
    (Pool("avg", 2), IMAGE),
    (GlobalPool("avg"), IMAGE),
    (Flatten(), IMAGE),
    (Dropout(0.5), IMAGE),
    (TimeDistributed(Conv(2, 3, 3, **F64)), CLIP),
    (Recurrent(LSTMCell(2, 3, **F64)), (5, 3, 2)),
    (Recurrent(LSTMCell(2, 3, peephole="channel", **F64)), (5, 3, 2)),
    (Recurrent(ConvLSTMCell(2, 3, (3, 3), **F64)), CLIP),
    (Recurrent(ConvLSTMCell(2, 3, (3, 3), **F64), return_sequences=False), CLIP),
    (Recurrent(RNNCell(2, 3, (3, 3), **F64)), CLIP),
    (Recurrent(GRUCell(2, 3, (3, 3), **F64)), CLIP),
    (Recurrent(ResetBeforeGRUCell(2, 3, (3, 3), **F64)), CLIP),
    (Sequential(Conv(2, 3, 3, **F64), Activation("gelu"), Flatten(), Dense(72, 2, **F64)), IMAGE),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: type(v).__name__)
def test_kept_numbers_are_those_that_forward_keeps(layer, shape, rng):
    x = rng.standard_normal(shape)
    cost = layer.cost(shape)
    assert cost.out == layer.forward(x)[0].shape
    measured = kept(layer, x)
    assert measured <= cost.kept * 1.01 + 8  # a divisor or two apart
    assert measured >= cost.kept * 0.99 - 8


def test_forecaster_s_kept_numbers(rng):
    model = Forecaster((3, 2), size=(4, 6), patch=2, kernel=3, **F64)
    shape = (5, 2, 1, 4, 6)
    measured = kept(model, rng.random(shape), horizon=4)
    assert measured == pytest.approx(model.cost(shape, horizon=4).kept, rel=0.15)
    assert model.cost(shape, horizon=4).out == (4, 2, 1, 4, 6)


def test_multiply_accumulates_by_hand():
    assert Dense(4, 5).cost((3, 4)).macs == 3 * 4 * 5
    assert Conv(2, 3, 3, stride=2).cost(IMAGE).macs == 3 * (3 * 2) * (3 * 2 * 9)
    assert Conv(2, 4, 3, groups=2).cost(IMAGE).macs == 3 * 24 * (4 * 1 * 9)
    assert ConvTranspose(2, 3, 3, stride=2).cost(IMAGE).macs == 3 * 24 * (2 * 3 * 9)
    lstm = Recurrent(LSTMCell(2, 3)).cost((5, 7, 2))
    assert lstm.macs == 5 * 7 * (12 * 2 + 12 * 3)
    conv = Recurrent(ConvLSTMCell(2, 3, (5, 5), state_kernel=(3, 3))).cost((5, 7, 2, 6, 4))
    assert conv.macs == 5 * 7 * 24 * (12 * 2 * 25 + 12 * 3 * 9)


def test_the_table():
    net = Sequential(TimeDistributed(Conv(1, 4, 3)), Recurrent(ConvLSTMCell(4, 6, (3, 3))))
    summary = net.summary((5, 2, 1, 8, 6))
    text = str(summary)
    assert [row.name for row in summary.rows] == ["0.layer", "1"]
    assert summary.params == net.count
    assert f"{net.count:,}" in text
    assert "5x2x6x8x6" in text
    assert summary.activation_bytes == 4 * sum(row.kept for row in summary.rows)
    assert "Recurrent" in text
    single = Dense(3, 2).summary((4, 3))
    assert single.params == 8
    assert single.macs == 24


@pytest.mark.parametrize(("number", "text"), [(7, "7 "), (1500, "1.5 k"), (2_000_000, "2 M"), (3e12, "3 T")])
def test_si(number, text):
    assert si(number) == text


def test_wrong_channels_are_refused():
    with pytest.raises(ValueError, match="Dense expects 4 channels on axis -1"):
        Dense(4, 5).cost((3, 5))
    with pytest.raises(ValueError, match="Conv expects 2 channels"):
        Conv(2, 3, 3).cost((3, 1, 5, 5))
    with pytest.raises(ValueError, match="input has 3 channels, the cell expects 2"):
        Recurrent(LSTMCell(2, 3)).cost((5, 1, 3))
    assert LayerNorm(4).cost((3, 4)).out == (3, 4)
