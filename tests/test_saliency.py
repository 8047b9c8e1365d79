"""Maps of where a network looks, on networks of which that is known."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.cells import ConvLSTMCell
from tinyconvlstm.layers import Dense, Flatten, Layer, Recurrent, Sequential
from tinyconvlstm.receptive import receptive_field
from tinyconvlstm.viz.saliency import corners, mass_on, occlusion, saliency, seen_by

T, N, C, H, W = 3, 2, 2, 5, 4


class TimeLast(Layer):
    """(T, N, C, H, W) as (N, T, C, H, W)."""

    def forward(self, x, *, train=False, rng=None):
        return x.swapaxes(0, 1), None

    def backward(self, dy, saved):
        return dy.swapaxes(0, 1), {}


def linear(rng):
    dense = Dense(T * C * H * W, 3, dtype=np.float64)
    return Sequential(TimeLast(), Flatten(), dense), dense.params["w"].reshape(3, T, C, H, W)


def test_the_saliency_of_a_linear_model_is_its_weights(rng):
    model, w = linear(rng)
    found = saliency(model, rng.standard_normal((T, N, C, H, W)), np.array([2, 0]))
    for n, label in enumerate([2, 0]):
        np.testing.assert_allclose(found[:, n], abs(w[label]).max(axis=1), rtol=1e-12)


def test_saliency_wants_labels_that_exist(rng):
    model, _ = linear(rng)
    x = rng.standard_normal((T, N, C, H, W))
    for labels in ([0, 3], [0], [-1, 0]):
        with pytest.raises(ValueError, match="labels is"):
            saliency(model, x, np.array(labels))


def test_the_occlusion_of_a_linear_model_is_what_the_patch_held(rng):
    model, w = linear(rng)
    x = rng.standard_normal((T, N, C, H, W))
    found = occlusion(lambda x: model(x)[:, 1], x, patch=1, stride=1, fill=0.5)
    for n in range(N):
        np.testing.assert_allclose(found[n], (w[1] * (x[:, n] - 0.5)).sum(axis=(0, 1)), rtol=1e-9, atol=1e-12)


def test_patches_that_overlap_are_averaged(rng):
    """One bright pixel is all the score: every patch over it takes it away."""
    x = np.zeros((1, 1, 1, 5, 5))
    x[0, 0, 0, 1, 1] = 6
    found = occlusion(lambda x: x[0, :, 0, 1, 1], x, patch=2, stride=1)[0]
    share = np.array([1, 1, 0.5, 0, 0])  # of the patches along an axis that cover a pixel, those over pixel 1
    np.testing.assert_allclose(found, 6 * np.outer(share, share))
    assert corners(5, 2, 2) == [0, 2, 3]
    assert corners(6, 2, 2) == [0, 2, 4]


def test_patches_must_fit_and_leave_nothing_out():
    x = np.zeros((1, 1, 1, 4, 6))
    for patch, stride in ((5, 1), (2, 3), (0, 1), (2, 0)):
        with pytest.raises(ValueError, match=f"patch is {patch} and stride {stride}"):
            occlusion(lambda x: x[0, :, 0, 0, 0], x, patch=patch, stride=stride)


def test_a_unit_sees_exactly_its_receptive_field(rng):
    cell = ConvLSTMCell(1, 2, (3, 5), state_kernel=(3, 3), dtype=np.float64)
    cell = cell.bind({n: rng.standard_normal(a.shape) for n, a in cell.params.items()})
    found = seen_by(Recurrent(cell), rng.standard_normal((3, 2, 1, 11, 13)), (5, 6))
    assert found.shape == (3, 11, 13)
    for t, steps in enumerate((3, 2, 1)):
        seen = np.argwhere(found[t] > 0)
        high, wide = np.ptp(seen, axis=0) + 1
        assert high == receptive_field(3, 3, steps)
        assert wide == receptive_field(5, 3, steps)
        np.testing.assert_array_equal((seen.min(axis=0) + seen.max(axis=0)) / 2, [5, 6])


def test_the_share_of_a_mass():
    maps = np.array([[[1.0, -3], [0, 4]], [[2, 2], [2, 2]]])
    mask = np.array([[[True, True], [False, False]], [[True, False], [False, False]]])
    np.testing.assert_allclose(mass_on(maps, mask), [0.5, 0.25])
    assert np.isnan(mass_on(0 * maps, mask)).all()
    with pytest.raises(ValueError, match=r"maps.shape is \(2, 2, 2\), mask.shape is \(2, 2\)"):
        mass_on(maps, mask[0])
