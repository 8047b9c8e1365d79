"""models/baselines.py: known answers, sign and axis order, every rank, both backends."""

import itertools

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.data.moving_digits import MovingDigits
from tinyconvlstm.models.baselines import constant_velocity, copy_last_frame, shift, translation


def blobs(starts, velocities, sizes, frames, widths=2.0):
    """A clip a row of starts: one Gaussian blob in straight motion, (T, N, 2, *S)."""
    t = np.arange(frames)[:, None, None]
    centres = np.asarray(starts, float) + t * np.asarray(velocities, float)  # (T, N, axes)
    grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1)
    away = grid - centres.reshape(*centres.shape[:2], *(1,) * len(sizes), len(sizes))
    one = np.exp(-((away / widths) ** 2).sum(axis=-1) / 2)
    return np.stack([one, 0.5 * one], axis=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copy_last_frame(backend, rng, dtype):
    past = rng.random((3, 2, 1, 5, 4)).astype(dtype)
    got = to_numpy(copy_last_frame(to_backend(past, backend), 4))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.stack([past[-1]] * 4))


CASES = {
    "1-d": ((40,), [(9.0,), (30.0,)], [(2.0,), (-1.25,)]),
    "2-d": ((33, 46), [(8.0, 9.0), (24.0, 12.0), (15.0, 36.0)], [(1.0, 3.0), (-2.0, 1.5), (0.375, -2.625)]),
    "3-d": ((15, 20, 17), [(5.0, 12.0, 6.0)], [(1.0, -1.5, 0.5)]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_single_blob_is_predicted_nearly_perfectly(backend, case):
    sizes, starts, velocities = CASES[case]
    clip = blobs(starts, velocities, sizes, frames=7)
    past = to_backend(clip[:3], backend)
    found = to_numpy(translation(past[1], past[2], radius=4))
    np.testing.assert_allclose(found, velocities, atol=0.02)  # sign and axis order
    forecast = to_numpy(constant_velocity(past, 4, radius=4))
    assert forecast.shape == clip[3:].shape
    error = ((forecast - clip[3:]) ** 2).mean()
    copied = ((clip[2] - clip[3:]) ** 2).mean()
    assert error < 0.01 * copied


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_steps_are_exact_and_zeros_enter(backend, dtype):
    past = np.zeros((2, 2, 1, 5, 7), dtype)
    past[0, 0, 0, 1, 2] = past[1, 0, 0, 2, 1] = 1  # down 1, left 1
    past[0, 1, 0, 4, 0] = past[1, 1, 0, 3, 3] = 1  # up 1, right 3
    got = to_numpy(constant_velocity(to_backend(past, backend), 3, radius=3))
    expected = np.zeros((3, 2, 1, 5, 7), dtype)
    expected[0, 0, 0, 3, 0] = 1  # then it is gone
    expected[0, 1, 0, 2, 6] = 1
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_translation_is_the_best_of_all_shifts(backend, rng):
    """The index definition: the squared error after zero-filled shifts, one clip at a time."""
    before, after = rng.random((2, 3, 2, 6, 5))
    after[1] = 0
    after[1, :, :4, 2:] = before[1, :, 2:, :3]  # up 2, right 2
    found = to_numpy(translation(to_backend(before, backend), to_backend(after, backend), radius=3))
    np.testing.assert_allclose(found[1], (-2, 2), atol=0.5)
    for n in range(3):
        cost = {}
        for d in itertools.product(range(-3, 4), repeat=2):
            moved = np.zeros_like(before[n])
            for i, j in np.ndindex(6, 5):
                if 0 <= i - d[0] < 6 and 0 <= j - d[1] < 5:
                    moved[:, i, j] = before[n, :, i - d[0], j - d[1]]
            cost[d] = ((after[n] - moved) ** 2).sum()
        best = min(cost, key=cost.get)
        for axis, d in enumerate(best):
            step = np.eye(2, dtype=int)[axis]
            expected = d
            if abs(d) < 3:
                low, high = cost[tuple(best - step)], cost[tuple(best + step)]
                expected = d + (low - high) / (2 * (low + high - 2 * cost[best]))
            assert found[n, axis] == pytest.approx(expected, abs=1e-9)


def test_fractions_are_linear_and_follow_the_axis(backend, rng):
    frame = rng.random((2, 3, 4, 6))
    by = np.array([[[0.25, -1.5], [0.0, 2.0]], [[-9.0, 0.0], [1.0, 0.5]]])
    got = to_numpy(shift(to_backend(frame, backend), to_backend(by, backend)))
    wide = np.pad(frame, ((0, 0), (0, 0), (9, 9), (9, 9)))
    for k, n in np.ndindex(2, 2):
        expected = np.zeros((3, 4, 6))
        whole = np.floor(by[k, n]).astype(int)
        part = by[k, n] - whole
        for e in itertools.product((0, 1), repeat=2):
            weight = np.prod(np.where(e, part, 1 - part))
            y, x = 9 - (whole + e)
            expected += weight * wide[n, :, max(y, 0) : max(y, 0) + 4, x : x + 6]
        np.testing.assert_allclose(got[k, n], expected, atol=1e-12)


def test_still_and_blank_clips_stay(backend, rng):
    still = np.repeat(rng.random((1, 2, 1, 9, 8)), 2, axis=0)
    blank = np.zeros((2, 1, 1, 9, 8))
    past = to_backend(np.concatenate([still, blank], axis=1), backend)
    np.testing.assert_array_equal(to_numpy(translation(past[0], past[1]))[2], (0, 0))
    np.testing.assert_array_equal(to_numpy(constant_velocity(past, 2))[:, 2], 0)
    drift = to_numpy(translation(past[0], past[1]))
    assert abs(drift).max() < 0.2
    vector = to_backend(rng.random((3, 2, 5)), backend)  # no space: nothing to move
    np.testing.assert_array_equal(
        to_numpy(constant_velocity(vector, 2)), to_numpy(copy_last_frame(vector, 2))
    )


def test_on_moving_digits_the_order_is_as_expected():
    frames = MovingDigits("test", canvas=(48, 64), digits=1, digit_size=20).batch(0, 24)
    past, future = frames[:10], frames[10:]
    copied = ((copy_last_frame(past, 10) - future) ** 2).mean()
    moved = ((constant_velocity(past, 10) - future) ** 2).mean()
    assert moved < 0.8 * copied


def test_arguments_that_cannot_be(backend):
    past = to_backend(np.zeros((2, 1, 1, 4, 4)), backend)
    with pytest.raises(ValueError, match=r"past.shape is \(1, 1, 1, 4, 4\), .* T at least 2"):
        constant_velocity(past[:1], 3)
    with pytest.raises(ValueError, match=r"past.shape is \(0, 1, 1, 4, 4\), .* T at least 1"):
        copy_last_frame(past[:0], 3)
    with pytest.raises(ValueError, match="horizon is 0"):
        copy_last_frame(past, 0)
    with pytest.raises(ValueError, match="dtype is int64"):
        constant_velocity(past.astype(np.int64), 1)
    with pytest.raises(ValueError, match="radius 0"):
        constant_velocity(past, 1, radius=0)
    with pytest.raises(ValueError, match=r"after.shape \(1, 1, 4, 3\)"):
        translation(past[0], past[1][..., 1:])
