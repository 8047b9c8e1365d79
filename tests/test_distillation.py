"""ops/distillation.py against its definition in plain loops, and what must hold between teacher and student."""

import math

import numpy as np
import pytest

from tinyconvlstm import ops
from tinyconvlstm.backend import to_backend, to_numpy

SHAPE = (3, 5, 2, 3)  # (N, C, *S)


def softened(x, temperature=1.0):
    powers = [math.exp(float(v) / temperature) for v in x]
    return [v / sum(powers) for v in powers]


def data(seed=0):
    rng = np.random.default_rng(seed)
    x, v = 2 * rng.standard_normal(SHAPE), 3 * rng.standard_normal(SHAPE)
    return x, rng.integers(0, 5, (3, 2, 3)), v, rng.random((3, 2, 3)) > 0.3


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_distillation_by_its_definition(backend, masked, reduction):
    x, labels, v, mask = data()
    weight, T = 0.35, 2.5
    total, grad = 0.0, np.zeros(SHAPE)
    for n, *at in np.ndindex(3, 2, 3):
        if masked and not mask[n, *at]:
            continue
        place = (n, slice(None), *at)
        p, s, u = softened(x[place]), softened(x[place], T), softened(v[place], T)
        k = labels[n, *at]
        total -= (1 - weight) * math.log(p[k])
        total += weight * T * T * sum(a * (math.log(a) - math.log(b)) for a, b in zip(u, s, strict=True))
        for c in range(5):
            hard = p[c] - (c == k)
            grad[n, c, *at] = (1 - weight) * hard + weight * T * (s[c] - u[c])
    divisor = (mask.sum() if masked else 18) if reduction == "mean" else 1
    there = to_backend((x, labels, v), backend)
    settings = {"mask": to_backend(mask, backend) if masked else None, "reduction": reduction}
    loss, saved = ops.distillation_forward(*there, temperature=T, weight=weight, **settings)
    assert float(loss) == pytest.approx(total / divisor, rel=1e-12)
    dx = to_numpy(ops.distillation_backward(-1.3, saved))
    np.testing.assert_allclose(dx, -1.3 * grad / divisor, rtol=1e-12, atol=1e-15)


def test_a_weight_of_nought_is_the_cross_entropy():
    x, labels, v, mask = data(1)
    found, saved = ops.distillation_forward(x, labels, v, weight=0.0, mask=mask)
    loss, other = ops.cross_entropy_forward(x, labels, mask=mask)
    assert float(found) == pytest.approx(float(loss), rel=1e-14)
    np.testing.assert_allclose(
        ops.distillation_backward(0.7, saved), ops.cross_entropy_backward(0.7, other), atol=1e-16
    )


def test_a_student_who_answers_as_the_teacher_has_nothing_to_learn():
    x, labels, _, _ = data(2)
    loss, saved = ops.distillation_forward(
        x, labels, x + 4, temperature=3, weight=1.0
    )  # logits up to a constant
    assert abs(float(loss)) < 1e-14
    assert abs(ops.distillation_backward(1.0, saved)).max() < 1e-15


def test_the_gradient_hardly_depends_on_a_high_temperature():
    """High T: dx tends to weight (x - v) / (C N), both without their mean over classes (Hinton et al., equation 4)."""
    x, labels, v, _ = data(3)
    loss_at = [ops.distillation_forward(x, labels, v, temperature=T, weight=1.0)[1] for T in (1e3, 1e5)]
    near, far = (ops.distillation_backward(1.0, saved) for saved in loss_at)
    d = (x - x.mean(1, keepdims=True)) - (v - v.mean(1, keepdims=True))
    np.testing.assert_allclose(far, d / 5 / 18, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(near, far, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_the_dtype_is_the_students(backend, dtype):
    x, labels, v, _ = data()
    there = to_backend((x.astype(dtype), labels, v), backend)
    loss, saved = ops.distillation_forward(*there)
    assert loss.dtype == dtype
    assert ops.distillation_backward(1.0, saved).dtype == dtype


def test_far_out_it_is_finite():
    x, v = np.array([[1e4, -1e4, 0.0]]), np.array([[-1e4, 1e4, 0.0]])
    loss, saved = ops.distillation_forward(x, np.array([1]), v, temperature=2.0)
    assert np.isfinite(loss)
    assert np.isfinite(ops.distillation_backward(1.0, saved)).all()


def test_refusals():
    x, labels = np.zeros((2, 3)), np.zeros(2, int)
    with pytest.raises(ValueError, match=r"teacher.shape is \(2, 4\), expected \(2, 3\), that of logits"):
        ops.distillation_forward(x, labels, np.zeros((2, 4)))
    with pytest.raises(ValueError, match="temperature is 0, expected a positive number"):
        ops.distillation_forward(x, labels, x, temperature=0)
    with pytest.raises(ValueError, match=r"weight is 1.2, expected a number from 0 to 1"):
        ops.distillation_forward(x, labels, x, weight=1.2)
    with pytest.raises(ValueError, match="labels hold 3, expected integers from 0 to 2"):
        ops.distillation_forward(x, labels + 3, x)
