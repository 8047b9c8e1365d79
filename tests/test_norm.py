"""Normalisations against their definitions, and against each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.ops import (
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference_backward,
    batch_norm_inference_forward,
    group_norm_backward,
    group_norm_forward,
    layer_norm_backward,
    layer_norm_forward,
)

from .oracles import DTYPES, assert_pair_agrees, random, run_pair, scattered

BATCH = (batch_norm_forward, batch_norm_backward)
INFERENCE = (batch_norm_inference_forward, batch_norm_inference_backward)
LAYER = (layer_norm_forward, layer_norm_backward)
GROUP = (group_norm_forward, group_norm_backward)
SHAPES = [(5, 6), (3, 6, 4), (2, 6, 3, 5), (2, 6, 2, 3, 2)]


def image(shape: tuple[int, ...], dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x with another mean and scale in every channel, gamma, beta."""
    channels = np.arange(1.0, shape[1] + 1).reshape(-1, *(1,) * (len(shape) - 2))
    x = random(1, shape) * channels + 3 * channels
    return x.astype(dtype), random(2, shape[1:2]).astype(dtype), random(3, shape[1:2]).astype(dtype)


def along(v: np.ndarray, x: np.ndarray) -> np.ndarray:
    return v.reshape(-1, *(1,) * (x.ndim - 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_by_its_definition(backend: str, shape: tuple[int, ...]) -> None:
    x, gamma, beta = image(shape)
    y, saved = batch_norm_forward(*to_backend((x, gamma, beta), backend), eps=0.01)
    for c in range(shape[1]):
        mean, var = x[:, c].mean(), x[:, c].var()
        expected = gamma[c] * (x[:, c] - mean) / np.sqrt(var + 0.01) + beta[c]
        np.testing.assert_allclose(to_numpy(y)[:, c], expected, atol=1e-13)
        np.testing.assert_allclose(to_numpy(saved.mean)[c], mean, rtol=1e-13)
        np.testing.assert_allclose(to_numpy(saved.var)[c], var, rtol=1e-13)
    assert saved.mean.shape == saved.var.shape == (shape[1],)
    assert saved.members == x.size // shape[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_inference_with_the_batchs_own_statistics_is_training(backend: str, shape: tuple[int, ...]) -> None:
    x, gamma, beta = image(shape)
    y, saved = batch_norm_forward(x, gamma, beta)
    inferred, dy, (dx, dgamma, dbeta) = run_pair(
        INFERENCE, x, gamma, beta, backend=backend, mean=saved.mean, var=saved.var
    )
    np.testing.assert_allclose(inferred, y, atol=1e-13)
    _, expected_dgamma, expected_dbeta = batch_norm_backward(dy, saved)
    np.testing.assert_allclose(dgamma, expected_dgamma, atol=1e-12)
    np.testing.assert_allclose(dbeta, expected_dbeta, atol=1e-12)
    np.testing.assert_allclose(dx, dy * along(gamma / np.sqrt(saved.var + 1e-5), x), rtol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_layer_norm_by_its_definition(backend: str, axes: int) -> None:
    x = 4 * random(1, (3, 4, 2, 5)) + 7
    gamma, beta = random(2, x.shape[-axes:]), random(3, x.shape[-axes:])
    y, _, _ = run_pair(LAYER, x, gamma, beta, backend=backend, eps=0.1)
    last = tuple(range(-axes, 0))
    mean, var = x.mean(axis=last, keepdims=True), x.var(axis=last, keepdims=True)
    np.testing.assert_allclose(y, gamma * (x - mean) / np.sqrt(var + 0.1) + beta, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_group_norm_by_its_definition(backend: str, shape: tuple[int, ...], groups: int) -> None:
    x, gamma, beta = image(shape)
    y, _, _ = run_pair(GROUP, x, gamma, beta, backend=backend, groups=groups)
    size = shape[1] // groups
    for n in range(shape[0]):
        for c in range(shape[1]):
            group = x[n, c // size * size : c // size * size + size]
            expected = gamma[c] * (x[n, c] - group.mean()) / np.sqrt(group.var() + 1e-5) + beta[c]
            np.testing.assert_allclose(y[n, c], expected, atol=1e-12)


def test_one_group_is_layer_norm_of_the_whole_sample() -> None:
    x, gamma, beta = image((2, 6, 3, 5))
    wide = [np.broadcast_to(along(v, x), x.shape[1:]).copy() for v in (gamma, beta)]
    y, _, (dx, dgamma, dbeta) = run_pair(GROUP, x, gamma, beta, groups=1)
    y_layer, _, (dx_layer, dgamma_layer, dbeta_layer) = run_pair(LAYER, x, *wide)
    np.testing.assert_allclose(y, y_layer, atol=1e-13)
    np.testing.assert_allclose(dx, dx_layer, atol=1e-13)
    np.testing.assert_allclose(dgamma, dgamma_layer.sum(axis=(1, 2)), atol=1e-12)
    np.testing.assert_allclose(dbeta, dbeta_layer.sum(axis=(1, 2)), atol=1e-12)


def test_batch_norm_of_a_single_sample_is_group_norm_with_groups_of_one() -> None:
    x, gamma, beta = image((1, 6, 3, 5))
    y, _, grads = run_pair(BATCH, x, gamma, beta)
    y_group, _, group_grads = run_pair(GROUP, x, gamma, beta, groups=6)
    np.testing.assert_allclose(y, y_group, atol=1e-13)
    for got, expected in zip(grads, group_grads, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_the_gradient_has_no_mean_and_no_part_along_x_hat() -> None:
    """Adding a constant to x or stretching it leaves y alone, where eps is 0."""
    x, gamma, beta = image((4, 3, 5))
    _, _, (dx, _, _) = run_pair(BATCH, x, gamma, beta, eps=0.0)
    np.testing.assert_allclose(dx.sum(axis=(0, 2)), 0, atol=1e-12)
    np.testing.assert_allclose((dx * x).sum(axis=(0, 2)), 0, atol=1e-11)
    assert np.abs(dx).max() > 0.01


CALLS: list[Any] = [
    (BATCH, {}),
    (INFERENCE, {"mean": random(4, (6,)), "var": random(5, (6,)) ** 2}),
    (GROUP, {"groups": 3}),
]


@pytest.mark.parametrize(("pair", "settings"), CALLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_backends_agree_and_the_dtype_is_kept(backend: str, pair: Any, settings: Any, dtype: Any) -> None:
    settings = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in settings.items()}
    arrays = image((2, 6, 3, 5), dtype)
    y, _, grads = run_pair(pair, *arrays, backend=backend, **settings)
    assert {y.dtype, *(g.dtype for g in grads)} == {np.dtype(dtype)}
    if dtype == np.float64:
        assert_pair_agrees(pair, *arrays, backend=backend, **settings)
        assert_pair_agrees(LAYER, arrays[0], random(6, (3, 5)), random(7, (3, 5)), backend=backend)


@pytest.mark.parametrize(("pair", "settings"), [*CALLS, (LAYER, {})])
def test_arrays_need_not_be_contiguous_and_are_not_changed(pair: Any, settings: Any) -> None:
    arrays = (
        image((2, 6, 3, 5)) if pair is not LAYER else (random(1, (4, 6)), random(2, (6,)), random(3, (6,)))
    )
    apart = [scattered(a) for a in arrays]
    y, _, grads = run_pair(pair, *arrays, **settings)
    y2, _, grads2 = run_pair(pair, *apart, **settings)
    for got, expected in zip([y2, *grads2, *apart], [y, *grads, *arrays], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    x, six, five = np.zeros((2, 6, 4)), np.zeros(6), np.zeros(5)
    with pytest.raises(ValueError, match=r"gamma.shape is \(5,\), expected \(6,\), one entry a channel of x"):
        batch_norm_forward(x, five, six)
    with pytest.raises(ValueError, match=r"x.shape is \(6,\), expected \(N, C, \*S\)"):
        batch_norm_forward(six, six, six)
    with pytest.raises(
        ValueError, match=r"x.shape is \(1, 6\): batch normalisation needs more than one number"
    ):
        batch_norm_forward(np.zeros((1, 6)), six, six)
    with pytest.raises(ValueError, match=r"var.shape is \(5,\), expected \(6,\)"):
        batch_norm_inference_forward(x, six, six, mean=six, var=five)
    with pytest.raises(ValueError, match=r"groups is 4, expected a divisor of x's 6 channels"):
        group_norm_forward(x, six, six, groups=4)
    with pytest.raises(
        ValueError, match=r"gamma.shape is \(6,\) and beta.shape is \(6,\), expected the last axes"
    ):
        layer_norm_forward(x, six, six)
    with pytest.raises(TypeError, match="x is float32 and gamma is float64"):
        group_norm_forward(x.astype(np.float32), six, six, groups=2)
