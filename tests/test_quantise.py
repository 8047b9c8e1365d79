"""Weights in eight bits: the bound on the error, the report, the file."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.cells import ConvLSTMCell
from tinyconvlstm.files import ModelFileError, save
from tinyconvlstm.layers import BatchNorm, Conv, Recurrent, Sequential, TimeDistributed
from tinyconvlstm.quantise import (
    Quantised,
    dequantise,
    load_quantised,
    quantisation_report,
    quantise,
    quantise_params,
    rounded,
    save_quantised,
)


def model(dtype=np.float32):
    return Sequential(
        Recurrent(ConvLSTMCell(2, 8, (3, 3), peephole="channel", dtype=dtype)),
        TimeDistributed(Sequential(Conv(8, 4, 3, dtype=dtype), BatchNorm(4, dtype=dtype))),
    )


@pytest.mark.parametrize(("dtype", "slack"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_no_weight_moves_by_more_than_half_a_step(dtype, slack, rng, backend):
    w = (rng.standard_normal((5, 3, 2)) * 10.0 ** rng.integers(-6, 6, (5, 1, 1))).astype(dtype)
    q, scale = to_numpy(quantise(to_backend(w, backend)))
    assert q.dtype == np.int8
    assert scale.dtype == dtype
    assert scale.shape == (5, 1, 1)
    error = np.abs(to_numpy(dequantise(quantise(to_backend(w, backend)))) - w)
    assert (error <= (0.5 + slack) * scale).all()
    assert (np.abs(q).max(axis=(1, 2)) == 127).all()  # every channel uses all its levels
    assert error.max() > 0.1 * scale.max()


def test_levels_come_back_exactly_and_so_does_zero(rng):
    q = rng.integers(-127, 128, (4, 9)).astype(np.int8)
    q[:, 0] = 127
    q[2] = 0
    scale = np.array([0.5, 2.0, 1.0, 0.25])[:, None]
    found = quantise(dequantise(Quantised(q, scale)))
    np.testing.assert_array_equal(found.q, q)
    np.testing.assert_array_equal(found.scale, scale)


def test_each_channel_has_its_own_scale(rng):
    """One scale for all would lose the small channel altogether."""
    w = rng.standard_normal((2, 50))
    w[1] *= 1e-4
    error = dequantise(quantise(w)) - w
    assert np.abs(error[1]).max() < 1e-6


def test_only_weights_are_quantised_and_the_rest_is_untouched():
    net = model()
    found = quantise_params(net.params)
    small = {n for n, a in net.params.items() if a.ndim == 1}
    assert {n for n, a in found.items() if not isinstance(a, Quantised)} == small
    assert all(found[n] is net.params[n] for n in small)
    copy = rounded(net)
    assert copy.arrays.keys() == net.arrays.keys()
    assert all(copy.arrays[n].dtype == a.dtype for n, a in net.arrays.items())


def test_the_report_counts_bytes_and_measures_the_output(rng):
    net = model()
    report = quantisation_report(net, rng.standard_normal((4, 2, 2, 6, 5)).astype(np.float32))
    weights = {n: a for n, a in net.params.items() if a.ndim > 1}
    assert {row.name for row in report.rows} == set(weights)
    for row in report.rows:
        w = weights[row.name]
        assert row.bytes == (4 * w.size, w.size + 4 * len(w))
        assert row.largest <= row.bound * (1 + 1e-4)
        assert row.relative < 0.01
    assert report.bytes[0] == 4 * net.count
    assert report.bytes[1] < 0.36 * report.bytes[0]
    assert report.output is not None
    assert 0 < report.output < 0.01
    assert "w_x" in str(report)
    assert "output: relative" in str(report)
    assert quantisation_report(net).output is None


def test_a_file_takes_a_quarter_and_comes_back(tmp_path, rng):
    net = Recurrent(ConvLSTMCell(16, 32, (3, 3), peephole="channel"))
    save(tmp_path / "whole", net.arrays, {})
    save_quantised(tmp_path / "small", net, {"features": 32})
    whole, small = (os.path.getsize(tmp_path / name) for name in ("whole", "small"))
    assert small < 0.27 * whole
    arrays, config = load_quantised(tmp_path / "small")
    assert config == {"features": 32}
    expected = rounded(net).arrays
    assert arrays.keys() == expected.keys()
    for name, a in arrays.items():
        np.testing.assert_array_equal(a, expected[name])
    net.bind(arrays)


def test_buffers_travel_with_the_weights(tmp_path):
    net = model()
    save_quantised(tmp_path / "m", net)
    assert load_quantised(tmp_path / "m")[0].keys() == net.arrays.keys()


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"w.shape is \(3,\), expected \(F, ...\)"):
        quantise(np.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        quantise(np.array([[1.0, np.nan]]))
    save(tmp_path / "other", {"w": np.ones((2, 2))}, {})
    with pytest.raises(ModelFileError, match="quantised"):
        load_quantised(tmp_path / "other")
    arrays = {"w": np.ones((2, 2), np.int8), "w.scale": np.ones(2)}
    save(tmp_path / "bad", arrays, {}, kind="quantised")
    with pytest.raises(ModelFileError, match=r"scale of shape \(2,\) for w"):
        load_quantised(tmp_path / "bad")
