"""Initialisers: moments, limits, orthogonality, fans per gate, one seed for every dtype."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import init
from tinyconvlstm.ops.gates import GATES

RANDOM = [init.glorot_uniform, init.glorot_normal, init.he_uniform, init.he_normal, init.orthogonal]
SHAPE = (4 * 24, 10, 5, 3)  # fan_in 150, fan_out of one gate 360
VARIANCE = {"glorot": 2 / (150 + 360), "he": 2 / 150}


@pytest.mark.parametrize("name", ["glorot_uniform", "glorot_normal", "he_uniform", "he_normal"])
def test_moments(name: str, rng: np.random.Generator) -> None:
    w = getattr(init, name)(rng, SHAPE, np.float64, gates=4)
    family, law = name.split("_")
    assert w.shape == SHAPE
    n = w.size
    variance = VARIANCE[family]
    assert abs(w.mean()) < 5 * sqrt(variance / n)
    assert w.var() == pytest.approx(variance, rel=5 * sqrt(2 / n))
    kurtosis = (w**4).mean() / w.var() ** 2
    assert kurtosis == pytest.approx(1.8 if law == "uniform" else 3.0, abs=0.15)
    if law == "uniform":
        limit = sqrt(3 * variance)
        assert 0.999 * limit < np.abs(w).max() <= limit


@pytest.mark.parametrize("initialise", RANDOM[:2])
def test_gates_have_their_own_fans(initialise: Any) -> None:
    """Four gates in one array are as large as one gate alone, and larger than one map of 4F features."""
    four = initialise(np.random.default_rng(3), SHAPE, np.float64, gates=4)
    one = initialise(np.random.default_rng(3), (24, 10, 5, 3), np.float64)
    np.testing.assert_array_equal(four[:24], one)
    whole = initialise(np.random.default_rng(3), SHAPE, np.float64)
    np.testing.assert_allclose(four, whole * sqrt((150 + 4 * 360) / (150 + 360)), atol=1e-14)


@pytest.mark.parametrize(
    "shape", [(4 * 5, 3), (4 * 7, 2, 3), (4 * 9, 1, 2, 2), (4 * 2, 2, 1, 3, 2), (4 * 3, 3)]
)
def test_orthogonal_in_every_gate(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    w = init.orthogonal(rng, shape, np.float64, gates=4, gain=1.5)
    assert w.shape == shape
    assert w.flags.c_contiguous
    blocks = w.reshape(4, shape[0] // 4, -1)
    for block in blocks:
        gram = block @ block.T if block.shape[0] <= block.shape[1] else block.T @ block
        np.testing.assert_allclose(gram, 2.25 * np.eye(len(gram)), atol=1e-14)
    assert np.abs(blocks[0] - blocks[1]).max() > 0.1


def test_orthogonal_is_uniform_over_the_group(rng: np.random.Generator) -> None:
    """The signs of Q's entries are fair: without the correction by R's signs the diagonal is one-sided."""
    signs = sum(np.sign(np.diag(init.orthogonal(rng, (6, 6), np.float64))) for _ in range(400))
    assert np.abs(signs).max() < 5 * sqrt(400)


@pytest.mark.parametrize("initialise", RANDOM)
def test_same_numbers_in_every_dtype(initialise: Any) -> None:
    w = {d: initialise(np.random.default_rng(7), (8, 3, 2), d, gates=2) for d in (np.float32, np.float64)}
    assert w[np.float32].dtype == np.float32
    assert w[np.float64].dtype == np.float64
    np.testing.assert_array_equal(w[np.float64].astype(np.float32), w[np.float32])
    default = initialise(np.random.default_rng(7), (8, 3, 2), gates=2)
    assert default.dtype == np.float32
    np.testing.assert_array_equal(default, w[np.float32])
    assert w[np.float64].flags.c_contiguous
    assert w[np.float64].flags.writeable
    other = initialise(np.random.default_rng(8), (8, 3, 2), np.float64, gates=2)
    assert (other != w[np.float64]).all()


def test_zeros() -> None:
    w = init.zeros(None, (4, 2, 3), np.float64, gates=4)
    assert w.dtype == np.float64
    np.testing.assert_array_equal(w, np.zeros((4, 2, 3)))


def test_lstm_bias_opens_the_forget_gate_only() -> None:
    b = init.lstm_bias(3, forget_bias=0.75)
    assert b.dtype == np.float32
    assert b.tolist() == [0.75 if gate == "f" else 0.0 for gate in GATES for _ in range(3)]
    assert GATES == ("i", "f", "g", "o")
    assert init.lstm_bias(1, dtype=np.float64).tolist() == [0.0, 1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="features is 0, expected at least 1"):
        init.lstm_bias(0)


@pytest.mark.parametrize("initialise", RANDOM)
def test_bad_shapes(initialise: Any, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=r"shape is \(4,\), expected \(F, C, \*K\)"):
        initialise(rng, (4,))
    with pytest.raises(ValueError, match=r"shape is \(4, 0\)"):
        initialise(rng, (4, 0))
    with pytest.raises(ValueError, match=r"gates is 4, expected a divisor of the 6 features"):
        initialise(rng, (6, 2, 3), gates=4)
    with pytest.raises(ValueError, match="gates is 0"):
        initialise(rng, (6, 2, 3), gates=0)


def test_chrono_bias_spreads_memories_over_the_wanted_lengths(rng: np.random.Generator) -> None:
    b = init.chrono_bias(rng, 4000, 50, np.float64).reshape(4, -1)
    i, f, g, o = b
    assert not g.any()
    assert not o.any()
    np.testing.assert_array_equal(i, -f)
    u = np.exp(f)  # even from 1 to 49
    assert 1 <= u.min() < 1.1
    assert 48.9 < u.max() < 49
    assert abs(u.mean() - 25) < 1
    keeps = 1 / (1 + np.exp(-f))  # a share 1 - 1 / (u + 1) a step
    np.testing.assert_allclose(1 / (1 - keeps), u + 1)
    assert init.chrono_bias(rng, 3, 9).dtype == np.float32
    with pytest.raises(ValueError, match="longest 1, expected at least 1 and at least 2"):
        init.chrono_bias(rng, 3, 1)
