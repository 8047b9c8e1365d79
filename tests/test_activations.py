"""Activations against their definitions, at zero, far out, and along any axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyconvlstm import ops
from tinyconvlstm.backend import to_backend, to_numpy

from .oracles import DTYPES, assert_pair_agrees, random, run_pair, scattered


def pair(noun: str) -> tuple[Any, Any]:
    return getattr(ops, f"{noun}_forward"), getattr(ops, f"{noun}_backward")


EVERY: list[tuple[str, dict[str, Any]]] = [
    ("sigmoid", {}),
    ("tanh", {}),
    ("relu", {}),
    ("leaky_relu", {}),
    ("leaky_relu", {"slope": 0.3}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("softmax", {}),
    ("softmax", {"axis": -1}),
    ("log_softmax", {}),
    ("log_softmax", {"axis": 0}),
]


def by_math(noun: str, x: float, **settings: Any) -> float:
    """One number through the definition, by Python's math."""
    if noun == "sigmoid":
        return 1 / (1 + math.exp(-x))
    if noun == "tanh":
        return math.tanh(x)
    if noun == "relu":
        return max(x, 0.0)
    if noun == "leaky_relu":
        return x if x > 0 else settings.get("slope", 0.01) * x
    if settings:
        return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize(("noun", "settings"), EVERY[:7])
def test_each_number_by_its_definition(backend: str, noun: str, settings: dict[str, Any]) -> None:
    x = np.array([[-30.0, -8.5, -3.1, -0.4, -1e-9], [0.0, 1e-9, 0.7, 2.5, 40.0]])
    y, _, _ = run_pair(pair(noun), x, backend=backend, **settings)
    expected = [[by_math(noun, float(v), **settings) for v in row] for row in x]
    np.testing.assert_allclose(y, expected, rtol=1e-14, atol=2e-15)


@pytest.mark.parametrize(("noun", "settings"), EVERY)
def test_every_backend_gives_numpys_numbers(backend: str, noun: str, settings: dict[str, Any]) -> None:
    assert_pair_agrees(pair(noun), 2 * random(1, (3, 4, 5)), backend=backend, **settings)


@pytest.mark.parametrize(("noun", "settings"), EVERY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dtype_is_kept(backend: str, noun: str, settings: dict[str, Any], dtype: Any) -> None:
    x = random(1, (3, 4, 5)).astype(dtype)
    y, _, dx = run_pair(pair(noun), x, backend=backend, **settings)
    assert y.dtype == dx.dtype == dtype
    exact = run_pair(pair(noun), x.real.astype(np.float64), **settings)[0]
    np.testing.assert_allclose(y.real, exact, atol=2e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize(("noun", "settings"), EVERY)
def test_arrays_need_not_be_contiguous_and_are_not_changed(noun: str, settings: dict[str, Any]) -> None:
    x = random(1, (3, 4, 5))
    before, apart = x.copy(), scattered(x)
    y, _, dx = run_pair(pair(noun), x, **settings)
    y2, _, dx2 = run_pair(pair(noun), apart, **settings)
    np.testing.assert_allclose(y2, y, atol=1e-15)
    np.testing.assert_allclose(dx2, dx, atol=1e-15)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(apart, before)


@pytest.mark.parametrize(("noun", "settings"), EVERY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_overflows_far_out(noun: str, settings: dict[str, Any], dtype: Any) -> None:
    """Warnings are errors, so an overflow anywhere inside would fail."""
    huge = 1e4 if dtype == np.float32 else 1e200
    x = np.array([[-huge, -100, 0, 100, huge]], dtype)
    y, _, dx = run_pair(pair(noun), x, **settings)
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()


def test_subgradient_of_relu_at_zero_is_zero(backend: str) -> None:
    x = np.array([-1.0, -0.0, 0.0, 1e-300])
    _, dy, dx = run_pair(pair("relu"), x, backend=backend)
    np.testing.assert_array_equal(dx, [0, 0, 0, dy[3]])
    _, dy, dx = run_pair(pair("leaky_relu"), x, backend=backend, slope=0.5)
    np.testing.assert_array_equal(dx, [dy[0] / 2, dy[1] / 2, dy[2] / 2, dy[3]])


@pytest.mark.parametrize(("noun", "settings"), EVERY)
def test_nan_stays_nan(noun: str, settings: dict[str, Any]) -> None:
    y, _, _ = run_pair(pair(noun), np.array([[np.nan, 1.0]]), **settings)
    assert np.isnan(y[0, 0])


@given(st.floats(-20, 20))
def test_erf_is_maths_erf(x: float) -> None:
    assert abs(float(ops.erf(np.array(x))) - math.erf(x)) <= 1e-15


def test_erf_on_a_fine_grid_and_its_derivative_by_the_complex_step() -> None:
    x = np.linspace(-7, 7, 20001)
    assert np.abs(ops.erf(x) - [math.erf(v) for v in x]).max() <= 1e-15
    slope = ops.erf(x + 1e-30j).imag / 1e-30
    np.testing.assert_allclose(slope, 2 / math.sqrt(math.pi) * np.exp(-x * x), atol=1e-14)


def test_erf_keeps_relative_precision_near_zero_and_its_limits(backend: str) -> None:
    x = np.array([-np.inf, -1e300, -1e-300, 0.0, 1e-18, 1e300, np.inf])
    y = to_numpy(ops.erf(to_backend(x, backend)))
    np.testing.assert_allclose(y, [math.erf(v) for v in x], rtol=1e-14)
    assert np.isnan(ops.erf(np.array([np.nan]))).all()


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_softmax_sums_to_one_and_ignores_a_shift(backend: str, axis: int) -> None:
    x = 3 * random(1, (3, 4, 5))
    y, _, _ = run_pair(pair("softmax"), x, backend=backend, axis=axis)
    np.testing.assert_allclose(y, np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(y.sum(axis=axis), 1, rtol=1e-14)
    shifted, _, _ = run_pair(pair("softmax"), x + 1000, backend=backend, axis=axis)
    np.testing.assert_allclose(shifted, y, rtol=1e-11)
    log_y, _, _ = run_pair(pair("log_softmax"), x, backend=backend, axis=axis)
    np.testing.assert_allclose(np.exp(log_y), y, rtol=1e-13)


def test_every_row_of_a_softmax_has_its_own_largest_number() -> None:
    x = np.array([[1000.0, 1001.0], [-1000.0, -1001.0]])
    y, _, _ = run_pair(pair("softmax"), x)
    np.testing.assert_allclose(
        y, [[1 / (1 + math.e), math.e / (1 + math.e)], [math.e / (1 + math.e), 1 / (1 + math.e)]]
    )
    log_y, _, _ = run_pair(pair("log_softmax"), x)
    np.testing.assert_allclose(log_y, np.log(y))


def test_log_softmax_does_not_underflow() -> None:
    y, _, _ = run_pair(pair("log_softmax"), np.array([[0.0, 1e4]]))
    np.testing.assert_array_equal(y, [[-1e4, 0]])


def test_an_unknown_gelu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"approximate is 'erf', expected 'none' or 'tanh'"):
        ops.gelu_forward(np.zeros(3), approximate="erf")
