"""Histograms of oriented gradients: known answers."""

import numpy as np
import pytest

from tinyconvlstm.data.hand_features import oriented_gradients


@pytest.mark.parametrize("bins", [4, 9])
@pytest.mark.parametrize("bin_", [0, 1, 3])
def test_a_ramp_fills_the_bin_of_its_angle(bins, bin_):
    angle = (bin_ + 0.5) * np.pi / bins
    i, j = np.mgrid[0:18, 0:12]
    y = oriented_gradients(np.sin(angle) * i + np.cos(angle) * j, cell=6, bins=bins).reshape(3, 2, bins)
    inner = y[1] / y[1].sum(axis=1, keepdims=True)  # cells that the copied borders do not touch from above
    assert (y.reshape(-1, bins).argmax(axis=1) == bin_).all()
    assert inner[:, bin_].min() > 0.8


def test_an_angle_between_two_bins_is_shared_and_the_last_bins_neighbour_is_the_first():
    i, j = np.mgrid[0:20, 0:20]
    y = oriented_gradients(j.astype(float), cell=20, bins=4)  # angle 0: between bin 3 and bin 0
    assert y[0] == pytest.approx(y[3], rel=1e-12)
    assert y[0] == pytest.approx(np.sqrt(0.5), rel=1e-6)
    assert y[1] == y[2] == 0
    down = oriented_gradients(-i.astype(float), cell=20, bins=4)
    assert down[1] == pytest.approx(down[2], rel=1e-12)  # modulo half a turn


def test_light_and_contrast_do_not_matter_and_frames_are_apart(rng):
    x = rng.random((3, 2, 13, 14))
    y = oriented_gradients(x)
    assert y.shape == (3, 2, 2 * 2 * 9)
    assert np.allclose(oriented_gradients(5 * x + 2), y, rtol=0, atol=1e-6)
    assert np.allclose(oriented_gradients(-x), y, rtol=0, atol=1e-12)
    assert np.array_equal(y[1, 1], oriented_gradients(x[1, 1]))
    assert np.allclose((y**2).sum(axis=-1), 1, atol=1e-5)
    assert not oriented_gradients(np.ones((8, 8))).any()


def test_frames_smaller_than_a_cell_are_refused(rng):
    with pytest.raises(ValueError, match="expected at least 6 pixels a side"):
        oriented_gradients(rng.random((5, 9)))
