"""Named precisions: what they change, and how large their errors are."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm import ConvLSTMCell, scan
from tinyconvlstm.precision import loaded, products, rounded_to_tf32, stored


def test_tf32_keeps_ten_bits_and_rounds_to_nearest_even():
    one = np.float32(1)
    for step, expected in [(0.4, 0), (0.5, 0), (0.6, 1), (1, 1), (1.5, 2), (1.6, 2)]:
        x = np.array([one + np.float32(step) * np.float32(2**-10)], np.float32)
        assert rounded_to_tf32(x)[0] == one + np.float32(expected) * np.float32(2**-10)
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert (np.abs(rounded_to_tf32(x) - x) <= np.abs(x) * 2.0**-11).all()
    np.testing.assert_array_equal(rounded_to_tf32(-x), -rounded_to_tf32(x))


def test_halves_store_and_come_back(rng):
    tree = {"a": rng.standard_normal((3, 4)).astype(np.float32), "n": np.arange(3), "none": None}
    halves = stored(tree)
    assert halves["a"].dtype == np.float16
    assert halves["n"] is tree["n"]
    back = loaded(halves)["a"]
    assert back.dtype == np.float32
    assert (np.abs(back - tree["a"]) <= np.abs(tree["a"]) * 2.0**-11 + 2.0**-25).all()


@pytest.mark.parametrize(("how", "limit"), [(rounded_to_tf32, 2e-3), (lambda a: loaded(stored(a)), 2e-3)])
def test_the_error_of_a_scan_is_that_of_ten_bits(how, limit, rng):
    """Weights and inputs at 10 bits: the hidden states are off by some times 2^-11, not more, and not by nothing."""
    cell = ConvLSTMCell(8, 16, (3, 3))
    xs = rng.standard_normal((10, 2, 8, 16, 16)).astype(np.float32)
    exact = scan(cell, xs)[0]
    rough = scan(cell.bind({name: how(a) for name, a in cell.params.items()}), how(xs))[0]
    error = np.abs(rough - exact).max()
    assert 1e-5 < error < limit


def test_products_by_name():
    with products("tf32"):
        assert np.ones((2, 2), np.float32).dot(np.ones(2, np.float32))[0] == 2
    expected = pytest.raises(ValueError, match=r"precision is 'half', expected one of \('float32', 'tf32'\)")
    with expected, products("half"):
        pass


@pytest.mark.gpu
def test_tf32_on_a_gpu_is_what_rounding_says(rng):
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no CUDA device")
    a, b = (rng.standard_normal((64, 64)).astype(np.float32) for _ in range(2))
    on = [cupy.asarray(x) for x in (a, b)]
    with products("tf32"):
        rough = (on[0] @ on[1]).get()
    with products("float32"):
        exact = (on[0] @ on[1]).get()
    np.testing.assert_allclose(exact, a @ b, rtol=0, atol=1e-4)
    np.testing.assert_allclose(rough, rounded_to_tf32(a) @ rounded_to_tf32(b), rtol=0, atol=5e-2)
