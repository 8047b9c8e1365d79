"""Losses by their definitions; masks, reductions, extremes and refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import ops
from tinyconvlstm.backend import to_backend

from .oracles import assert_pair_agrees, random, run_pair, scattered

SHAPE = (3, 4, 5)
NOUNS = ["mse", "mae", "huber", "binary_cross_entropy"]
KEEP = np.array([[True, False, True, True, False]])  # broadcasts over N and C


def pair(noun: str) -> tuple[Any, Any]:
    return getattr(ops, f"{noun}_forward"), getattr(ops, f"{noun}_backward")


def one(noun: str, y: float, t: float) -> float:
    """One element's loss by Python's math."""
    if noun == "mse":
        return (y - t) ** 2
    if noun == "mae":
        return abs(y - t)
    if noun == "huber":
        return (y - t) ** 2 / 2 if abs(y - t) <= 0.7 else 0.7 * (abs(y - t) - 0.35)
    p = 1 / (1 + math.exp(-y))
    return -t * math.log(p) - (1 - t) * math.log(1 - p)


def data(noun: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    target = np.random.default_rng(2).uniform(0, 1, SHAPE)
    return 1.5 * random(1, SHAPE), target, {"delta": 0.7} if noun == "huber" else {}


@pytest.mark.parametrize("noun", NOUNS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_by_the_definition(backend: str, noun: str, reduction: str, masked: bool) -> None:
    y, target, settings = data(noun)
    keep = np.broadcast_to(KEEP if masked else True, SHAPE)
    losses = [one(noun, float(y[i]), float(target[i])) for i in np.ndindex(*SHAPE) if keep[i]]
    expected = sum(losses) / (len(losses) if reduction == "mean" else 1)
    loss, _, dy = run_pair(
        pair(noun), y, target, backend=backend, reduction=reduction, mask=KEEP if masked else None, **settings
    )
    assert float(loss) == pytest.approx(expected, rel=1e-13)
    assert loss.shape == ()
    assert dy.shape == SHAPE
    assert (dy[~keep] == 0).all()
    assert (dy[keep] != 0).all()


@pytest.mark.parametrize("noun", NOUNS)
def test_a_mask_is_the_loss_of_what_it_keeps(noun: str) -> None:
    y, target, settings = data(noun)
    keep = random(3, SHAPE) > 0
    loss, saved = pair(noun)[0](y, target, mask=keep.astype(float), **settings)
    alone, alone_saved = pair(noun)[0](y[keep], target[keep], **settings)
    assert float(loss) == pytest.approx(float(alone), rel=1e-13)
    np.testing.assert_allclose(pair(noun)[1](1.7, saved)[keep], pair(noun)[1](1.7, alone_saved), rtol=1e-12)


@pytest.mark.parametrize("noun", NOUNS)
def test_what_is_masked_may_be_nan(backend: str, noun: str) -> None:
    y, target, settings = data(noun)
    keep = np.broadcast_to(KEEP, SHAPE)
    y[~keep] = np.nan
    target[~keep] = np.nan
    loss, _, dy = run_pair(pair(noun), y, target, backend=backend, mask=KEEP, **settings)
    assert np.isfinite(loss)
    assert np.isfinite(dy).all()


@pytest.mark.parametrize("noun", NOUNS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_scales_with_dloss(noun: str, reduction: str) -> None:
    y, target, settings = data(noun)
    _, saved = pair(noun)[0](y, target, reduction=reduction, mask=KEEP, **settings)
    backward = pair(noun)[1]
    np.testing.assert_allclose(backward(-2.5, saved), -2.5 * backward(1.0, saved), rtol=1e-14)


@pytest.mark.parametrize("noun", NOUNS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_targets_follow_the_predictions_dtype(backend: str, noun: str, dtype: Any) -> None:
    y, target, settings = data(noun)
    there = to_backend((y.astype(dtype), target), backend)
    loss, saved = pair(noun)[0](*there, **settings)
    assert loss.dtype == dtype
    if dtype != np.complex128:  # gradients are taken at real numbers
        assert pair(noun)[1](1.0, saved).dtype == dtype
    bits = to_backend((target > 0.5).astype(np.uint8), backend)
    assert pair(noun)[0](there[0], bits, **settings)[0].dtype == dtype


@pytest.mark.parametrize("noun", NOUNS)
def test_backends_agree(backend: str, noun: str) -> None:
    y, target, settings = data(noun)
    assert_pair_agrees(pair(noun), y, target, backend=backend, mask=KEEP, **settings)


@pytest.mark.parametrize("noun", NOUNS)
def test_arrays_need_not_be_contiguous(noun: str) -> None:
    y, target, settings = data(noun)
    loss, _, dy = run_pair(pair(noun), y, target, **settings)
    loss2, _, dy2 = run_pair(pair(noun), scattered(y), scattered(target), **settings)
    np.testing.assert_allclose(loss2, loss, rtol=1e-13)
    np.testing.assert_allclose(dy2, dy, rtol=1e-12)


def test_subgradient_of_the_absolute_error_at_the_target_is_zero(backend: str) -> None:
    y, target = np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 0.0])
    _, dloss, dy = run_pair(pair("mae"), y, target, backend=backend, reduction="sum")
    np.testing.assert_array_equal(dy, [0, -dloss, dloss])


def test_binary_cross_entropy_far_out() -> None:
    """A sigmoid that rounds to 1 would make its logarithm infinite; warnings are errors here."""
    x, t = np.array([1e4, -1e4, 1e4, -1e4]), np.array([1.0, 0.0, 0.0, 1.0])
    loss, saved = ops.binary_cross_entropy_forward(x, t, reduction="sum")
    assert float(loss) == 2e4
    np.testing.assert_array_equal(ops.binary_cross_entropy_backward(1.0, saved), [0, 0, 1, -1])


# --- cross-entropy over classes ---

CE = pair("cross_entropy")


def class_data(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (N, C, *S), integer labels (N, *S), soft labels (N, C, *S)."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 5, (3, *sizes))
    soft = np.moveaxis(rng.dirichlet(np.full(5, 0.7), (3, *sizes)), -1, 1)
    return 2 * random(5, (3, 5, *sizes)), labels, soft


@pytest.mark.parametrize("sizes", [(), (4,), (2, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_by_its_definition(
    backend: str, sizes: tuple[int, ...], smoothing: float, soft: bool, reduction: str
) -> None:
    logits, labels, q = class_data(sizes)
    mask = np.random.default_rng(6).random((3, *sizes)) > 0.4
    total, grad = 0.0, np.zeros_like(logits)
    for n, *p in np.ndindex(3, *sizes):
        if mask[(n, *p)]:
            x = logits[(n, slice(None), *p)]
            probability = np.exp(x) / np.exp(x).sum()
            wanted = q[(n, slice(None), *p)] if soft else np.eye(5)[labels[(n, *p)]]
            wanted = (1 - smoothing) * wanted + smoothing / 5
            total -= float((wanted * np.log(probability)).sum())
            grad[(n, slice(None), *p)] = probability - wanted
    divisor = mask.sum() if reduction == "mean" else 1
    loss, dloss, dx = run_pair(
        CE,
        logits,
        q if soft else labels,
        backend=backend,
        mask=mask,
        label_smoothing=smoothing,
        reduction=reduction,
    )
    assert float(loss) == pytest.approx(total / divisor, rel=1e-12)
    np.testing.assert_allclose(dx, dloss * grad / divisor, atol=1e-13)


def test_integer_labels_are_soft_labels_of_one_and_zero() -> None:
    logits, labels, _ = class_data((4,))
    one_hot = np.moveaxis(np.eye(5)[labels], -1, 1)
    loss, _, dx = run_pair(CE, logits, labels.astype(np.int32), label_smoothing=0.1)
    soft_loss, _, soft_dx = run_pair(CE, logits, one_hot, label_smoothing=0.1)
    np.testing.assert_allclose(loss, soft_loss, rtol=1e-14)
    np.testing.assert_allclose(dx, soft_dx, atol=1e-15)


def test_soft_labels_need_not_sum_to_one() -> None:
    """Their gradient is then p sum(q) - q; differences along a direction say so."""
    logits, _, q = class_data((4,))
    q, v, h = q * 1.7, random(9, logits.shape), 1e-6
    _, saved = CE[0](logits, q)
    numeric = (CE[0](logits + h * v, q)[0] - CE[0](logits - h * v, q)[0]) / (2 * h)
    assert float((CE[1](1.0, saved) * v).sum()) == pytest.approx(float(numeric), rel=1e-7)


def test_masked_labels_and_logits_may_be_anything(backend: str) -> None:
    logits, labels, _ = class_data((4,))
    mask = np.array([[1, 0, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1]])
    expected, _, expected_dx = run_pair(CE, logits, labels, mask=mask)
    labels[mask == 0] = -100
    logits[np.broadcast_to(mask[:, None], logits.shape) == 0] = np.nan
    loss, _, dx = run_pair(CE, logits, labels, backend=backend, mask=mask)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-14)


def test_cross_entropy_far_out_and_with_excluded_classes() -> None:
    logits = np.array([[1e4, -1e4, 0.0], [-np.inf, 0.0, 0.0]])
    loss, _, dx = run_pair(CE, logits, np.array([1, 2]), reduction="sum")
    assert float(loss) == pytest.approx(2e4 + math.log(2))
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_cross_entropy_keeps_the_dtype(backend: str, dtype: Any) -> None:
    logits, labels, q = class_data((4,))
    for target in (labels, q):
        there = to_backend((logits.astype(dtype), target), backend)
        loss, saved = CE[0](*there, label_smoothing=0.1)
        assert loss.dtype == dtype
        assert CE[1](1.0, saved).dtype == dtype


# --- refusals ---


@pytest.mark.parametrize("noun", NOUNS)
def test_refusals_of_the_element_wise_losses(noun: str) -> None:
    forward, name = pair(noun)[0], "logits" if noun == "binary_cross_entropy" else "y"
    y = np.zeros((2, 3))
    with pytest.raises(ValueError, match=rf"target.shape is \(2, 1\), expected \(2, 3\), that of {name}"):
        forward(y, np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"reduction is 'none', expected one of \('mean', 'sum'\)"):
        forward(y, y, reduction="none")
    with pytest.raises(
        ValueError, match=r"mask.shape is \(2,\), expected a shape that broadcasts to \(2, 3\)"
    ):
        forward(y, y, mask=np.ones(2))
    with pytest.raises(ValueError, match=r"the mask leaves no element to take the mean of"):
        forward(y, y, mask=np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"there is no element to take the mean of"):
        forward(np.zeros((0, 3)), np.zeros((0, 3)))
    assert float(forward(y, y, mask=np.zeros((2, 1)), reduction="sum")[0]) == 0


def test_refusals_of_cross_entropy() -> None:
    forward, x = CE[0], np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match=r"logits.shape is \(3,\), expected \(N, C, \*S\)"):
        forward(np.zeros(3), np.zeros(3))
    with pytest.raises(
        ValueError, match=r"labels.shape is \(2,\), expected \(2, 4\) for integers or \(2, 3, 4\)"
    ):
        forward(x, np.zeros(2, int))
    with pytest.raises(ValueError, match=r"labels of shape \(2, 4\) have dtype float64, expected integers"):
        forward(x, np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"labels of shape \(2, 3, 4\) have dtype int64, expected floating"):
        forward(x, np.zeros((2, 3, 4), np.int64))
    with pytest.raises(ValueError, match=r"labels hold 3, expected integers from 0 to 2 \(3 classes\)"):
        forward(x, np.full((2, 4), 3))
    with pytest.raises(ValueError, match=r"labels hold -1, expected integers"):
        forward(x, np.full((2, 4), -1))
    with pytest.raises(ValueError, match=r"label_smoothing is 1.5, expected a number from 0 to 1"):
        forward(x, np.zeros((2, 4), int), label_smoothing=1.5)
    with pytest.raises(ValueError, match=r"the mask leaves no element"):
        forward(x, np.zeros((2, 4), int), mask=np.zeros((2, 4)))


def test_refusal_of_a_huber_without_width() -> None:
    with pytest.raises(ValueError, match=r"delta is 0, expected a positive number"):
        ops.huber_forward(np.zeros(3), np.zeros(3), delta=0)
