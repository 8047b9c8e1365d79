"""The pyramid of dilated, deeper bidirectional ConvLSTMs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm.bptt import scan
from tinyconvlstm.cells import ConvLSTMCell
from tinyconvlstm.layers import DeeperBidirectional, DilatedPyramid
from tinyconvlstm.parameters import under

from . import oracles_recurrent as oracle
from .test_summary import kept
from .test_variants import stuffed

F64: dict[str, Any] = {"dtype": np.float64}
CLOSE: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-12}


def made(rng, build=DeeperBidirectional, kernel=(3, 2), **settings):
    layer = build(2, 3, kernel, **settings, **F64)
    return layer.bind({n: 0.5 * rng.standard_normal(a.shape) for n, a in layer.params.items()})


def test_the_second_reads_the_firsts_h_backwards_and_is_put_back_in_order(rng):
    """Both scans by naive loops, the fusion pixel by pixel."""
    layer, x = made(rng), rng.standard_normal((4, 2, 2, 3, 4))
    zero = (np.zeros((2, 3, 3, 4)),) * 2
    h_f, _ = oracle.run("ConvLSTMCell", x, zero, under(layer.params, "forward"))
    backwards, _ = oracle.run("ConvLSTMCell", h_f[::-1], zero, under(layer.params, "backward"))
    h_b = backwards[::-1]
    y, _ = layer.forward(x)
    w, b = layer.params["fuse.layer.w"], layer.params["fuse.layer.b"]
    for t, n, f, i, j in np.ndindex(y.shape):
        both = np.concatenate([h_f[t, n], h_b[t, n]])
        assert y[t, n, f, i, j] == pytest.approx(
            np.tanh(b[f] + oracle.taps_at(both, w[f], (i, j))), rel=1e-11
        )


def test_the_backward_half_knows_the_future_and_the_forward_half_does_not(rng):
    layer, x = made(rng), rng.standard_normal((4, 1, 2, 5, 4))
    later = x.copy()
    later[2] += 1
    for half, sees in ((slice(0, 3), False), (slice(3, 6), True)):
        w = np.zeros_like(layer.params["fuse.layer.w"])
        w[:, half] = layer.params["fuse.layer.w"][:, half]
        one = layer.bind({**layer.params, "fuse.layer.w": w})
        assert (not np.allclose(one(x)[:2], one(later)[:2])) is sees
        assert not np.allclose(one(x)[2], one(later)[2])


def test_without_the_first_layer_the_second_sees_nothing_of_the_clip(rng):
    layer, x = made(rng), rng.standard_normal((3, 2, 2, 3, 4))
    shut = layer.params["forward.b"].copy()
    shut[9:] = -1e4  # output gates
    weights = {"forward.b": shut, "forward.w_x": 1e-9 * layer.params["forward.w_x"]}
    silent = layer.bind({**layer.params, **weights})
    np.testing.assert_array_equal(silent(x), silent(x[:, ::-1]))
    assert silent(x).any()


@pytest.mark.parametrize("rate", [(1,), (2,), (3,)])
def test_a_rate_is_a_dilation_of_both_maps_of_both_cells(rate, rng):
    layer, x = made(rng, kernel=(3,), rate=rate[0]), rng.standard_normal((3, 2, 2, 9))
    wide = (2 * rate[0] + 1,)
    h = x
    for part, reverse, channels in (("forward", False, 2), ("backward", True, 3)):
        p = under(layer.params, part)
        cell = ConvLSTMCell(channels, 3, wide, **F64)
        p = {**p, "w_x": stuffed(p["w_x"], rate), "w_h": stuffed(p["w_h"], rate)}
        h, _, _ = scan(cell.bind(p), h, reverse=reverse)
        found = layer.parts[part].cell.bind(under(layer.params, part))
        x, _, _ = scan(found, x, reverse=reverse)
        np.testing.assert_allclose(x, h, **CLOSE)


def test_the_pyramid_is_its_branches_side_by_side(rng):
    layer, x = made(rng, DilatedPyramid, rates=(1, 3)), rng.standard_normal((3, 2, 2, 7, 6))
    y = layer(x)
    assert y.shape == (3, 2, 6, 7, 6)
    for k, rate in enumerate((1, 3)):
        branch = DeeperBidirectional(2, 3, (3, 2), rate=rate, **F64)
        branch = branch.bind(under(layer.params, f"rate{rate}"))
        np.testing.assert_array_equal(y[:, :, 3 * k : 3 * k + 3], branch(x))
    with pytest.raises(ValueError, match=r"rates is \(2, 2\), expected at least one dilation, each once"):
        DilatedPyramid(2, 3, (3, 3), rates=(2, 2))


def test_padded_clips_are_clips_of_their_own(rng):
    layer, x = made(rng, DilatedPyramid), rng.standard_normal((4, 3, 2, 4, 3))
    lengths = [2, 4, 3]
    y, saved = layer.forward(x, lengths=lengths)
    dy = rng.standard_normal(y.shape)
    dx, grads = layer.backward(dy, saved)
    total = {name: np.zeros_like(g) for name, g in grads.items()}
    for n, length in enumerate(lengths):
        clip, own = layer.forward(x[:length, n : n + 1])
        np.testing.assert_allclose(y[:length, n : n + 1], clip, **CLOSE)
        assert not y[length:, n].any()
        d, g = layer.backward(dy[:length, n : n + 1], own)
        np.testing.assert_allclose(dx[:length, n : n + 1], d, **CLOSE)
        assert not dx[length:, n].any()
        total = {name: total[name] + g[name] for name in total}
    # padded frames are tanh(b) before they are masked: nothing of them may reach the fusion's gradient
    for name, g in grads.items():
        np.testing.assert_allclose(g, total[name], **CLOSE)


def test_the_cost_table(rng):
    layer, shape = made(rng, DilatedPyramid, (3, 3), rates=(1, 2)), (4, 2, 2, 5, 6)
    cost = layer.cost(shape)
    positions = 4 * 2 * 30
    each = 12 * (2 + 3) * 9 + 12 * (3 + 3) * 9 + 3 * 6 * 9
    assert cost.macs == 2 * positions * each
    assert cost.out == (4, 2, 6, 5, 6) == layer(rng.standard_normal(shape)).shape
    assert [row.name for row in cost.rows][:3] == ["rate1.forward", "rate1.backward", "rate1.fuse"]
    measured = kept(layer, rng.standard_normal(shape))
    assert measured == pytest.approx(
        cost.kept, rel=0.12
    )  # beside it: a reversed copy, and all branches joined
