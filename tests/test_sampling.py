"""Sampling between pixels: against loops, against PyTorch, and where it must be a copy."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.gradcheck import gradcheck, zoo
from tinyconvlstm.gradcheck.zoo_deformable import between
from tinyconvlstm.ops import sample_backward, sample_forward

from . import oracles_deformable as naive

SIZES = [(5,), (3, 4), (1, 3), (2, 3, 2)]
sizes = pytest.mark.parametrize("size", SIZES, ids=str)


def drawn(rng, size, *places):
    x = rng.standard_normal((2, 3, *size))
    return x, np.stack([between(rng, -3, n + 1, 2, *places) for n in size], axis=1)


@sizes
def test_sampling_equals_the_sum_over_all_pixels(size, rng, backend):
    x, at = drawn(rng, size, 4, 3)
    at[0, :, 0] = np.rint(at[0, :, 0])  # some whole numbers too
    y, _ = sample_forward(*to_backend((x, at), backend))
    np.testing.assert_allclose(to_numpy(y), naive.sample(x, at), rtol=1e-13, atol=1e-14)


@sizes
def test_whole_coordinates_give_the_shifted_frame_exactly(size, rng):
    x = rng.standard_normal((2, 3, *size))
    shift = tuple(rng.integers(-1, 2, len(size)))
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"))
    at = (grid + np.reshape(shift, (-1, *(1,) * len(size)))).astype(float)
    y, _ = sample_forward(x, np.stack([at, at]))
    wide = np.pad(x, [(0, 0), (0, 0), *((1, 1) for _ in size)])
    cut = tuple(slice(1 + s, 1 + s + n) for s, n in zip(shift, size, strict=True))
    np.testing.assert_array_equal(y, wide[(slice(None), slice(None), *cut)])


def test_beyond_the_frame_the_value_fades_to_zero_within_a_pixel():
    x = np.array([[[2.0, 4.0]]])
    at = np.array([[[-1e30, -2.0, -1.0, -0.75, 0.0, 0.5, 1.0, 1.25, 2.0, 7.5, 1e30]]])
    np.testing.assert_array_equal(sample_forward(x, at)[0][0, 0], [0, 0, 0, 0.5, 2, 3, 4, 3, 0, 0, 0])


def test_a_place_that_is_no_number_gives_no_number_and_nothing_else_does(rng):
    x, at = drawn(rng, (3, 4), 5)
    at[1, 0, 2] = np.nan
    y, _ = sample_forward(x, at)
    assert np.isnan(y[1, :, 2]).all()
    assert np.isnan(y).sum() == 3


@sizes
def test_sampling_is_exact_for_functions_linear_in_every_coordinate(size, rng):
    """Inside the frame, a plane is read off wherever one looks."""
    slopes, grid = rng.standard_normal(len(size)), np.meshgrid(*map(np.arange, size), indexing="ij")
    plane = 0.3 + sum(a * g for a, g in zip(slopes, grid, strict=True))
    at = np.stack([(n - 1) * rng.random((1, 7)) for n in size], axis=1)
    y, _ = sample_forward(plane[None, None], at)
    np.testing.assert_allclose(y[0, 0], 0.3 + slopes @ at[0], rtol=1e-13, atol=1e-14)


@sizes
def test_backward_in_x_is_the_adjoint(size, rng, backend):
    x, at = drawn(rng, size, 6)
    dy, other = rng.standard_normal((2, 3, 6)), rng.standard_normal(x.shape)
    x, at, dy, other = to_backend((x, at, dy, other), backend)
    dx, _ = sample_backward(dy, sample_forward(x, at)[1])
    there, back = (sample_forward(other, at)[0] * dy).sum(), (other * dx).sum()
    np.testing.assert_allclose(to_numpy(there), to_numpy(back), rtol=1e-12)


@pytest.mark.parametrize("case", zoo("sample"), ids=lambda case: case.name)
def test_gradients(case):
    assert gradcheck(case)


def test_at_a_whole_number_the_slope_is_that_towards_larger_coordinates():
    x = np.array([[[1.0, 4.0, 9.0]]])
    _, saved = sample_forward(x, np.array([[[1.0, 2.0, -1.0, 3.0]]]))
    np.testing.assert_array_equal(sample_backward(np.ones((1, 1, 4)), saved)[1][0, 0], [5, -9, 1, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_stay(dtype, rng):
    x, at = (a.astype(dtype) for a in drawn(rng, (3, 4), 5))
    y, saved = sample_forward(x, at)
    assert {a.dtype for a in (y, *sample_backward(y, saved))} == {np.dtype(dtype)}


def test_nothing_is_changed_and_backward_can_be_called_twice(rng):
    x, at = drawn(rng, (3, 4), 5)
    kept = x.copy(), at.copy()
    y, saved = sample_forward(x, at)
    first, second = sample_backward(y, saved), sample_backward(y, saved)
    for a, b in zip((x, at, *first), (*kept, *second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_coordinates_that_do_not_fit_are_refused(rng):
    x = rng.standard_normal((2, 3, 4, 5))
    for shape in ((2, 3, 7), (1, 2, 7), (2,)):
        with pytest.raises(ValueError, match=r"at.shape is .* expected \(N, r, \*P\)"):
            sample_forward(x, np.zeros(shape))
    with pytest.raises(TypeError, match="dtypes differ: x is float64 and at is float32"):
        sample_forward(x, np.zeros((2, 2, 7), np.float32))


def test_values_and_gradients_equal_autograd_and_grid_sample(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    x, at = drawn(rng, (3, 4), 5, 2)
    y, saved = sample_forward(x, at)
    dy = rng.standard_normal(y.shape)
    grads = sample_backward(dy, saved)

    def grid_sample(x, at):
        scale = torch.tensor([2 / (n - 1) for n in x.shape[2:]], dtype=x.dtype).reshape(1, 2, 1, 1)
        grid = (at * scale - 1).flip(1).permute(0, 2, 3, 1)  # x before y, from -1 to 1
        return torch.nn.functional.grid_sample(x, grid, align_corners=True)

    for theirs in (naive.torch_sample, grid_sample):
        tensors = [torch.tensor(a, requires_grad=True) for a in (x, at)]
        expected = theirs(*tensors)
        expected.backward(torch.tensor(dy))
        wanted = [expected.detach(), *(tensor.grad for tensor in tensors)]
        for a, b in zip((y, *grads), wanted, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-13)
