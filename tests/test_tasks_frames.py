"""Tasks that fill in, count and forecast frames, and the light student: exact labels, nothing of the future seen."""

import numpy as np

from tinyconvlstm.data.moving_digits import MovingDigits
from tinyconvlstm.metrics import mse
from tinyconvlstm.models.objective import forecast_loss_forward
from tinyconvlstm.tasks import count, distil, forecast, interpolate

from .test_tasks_films import digest

# ---- interpolate


def test_the_lost_frame_cannot_be_seen():
    frames = MovingDigits("test", seed=0, **interpolate.CLIP).batch(0, 3)
    seen = interpolate.without_the_lost(frames)
    assert not seen[interpolate.LOST].any()
    others = [t for t in range(interpolate.FRAMES) if t != interpolate.LOST]
    np.testing.assert_array_equal(seen[others], frames[others])
    assert frames[interpolate.LOST].any()


def test_both_directions_reach_the_lost_frame():
    model, rng = interpolate.network(0), np.random.default_rng(0)
    seen = rng.random((interpolate.FRAMES, 2, 1, 28, 28)).astype(np.float32)
    y = model(seen)
    for t in (0, interpolate.FRAMES - 1):
        other = seen.copy()
        other[t] = 0
        assert abs(model(other)[interpolate.LOST] - y[interpolate.LOST]).max() > 1e-6


# ---- count


def test_the_density_sums_to_the_number_of_digits():
    made = count.clips("test", 1, 40, seed=2)
    assert set(made.count) == set(range(1, count.MOST + 1))
    np.testing.assert_allclose(made.density.sum((1, 2, 3)), made.count, rtol=1e-5)
    assert (made.density >= 0).all()
    for n in np.flatnonzero(made.count == 1):
        frame = made.frames[-1, n, 0]
        peak = np.array(np.unravel_index(made.density[n, 0].argmax(), made.density.shape[2:]))
        np.testing.assert_allclose(2 * peak + 0.5, made.centres[n, 0], atol=1.01)
        rows, columns = np.nonzero(frame)  # every pixel of ink lies within the digit's square
        assert abs(rows - made.centres[n, 0, 0]).max() <= count.SIDE / 2 + 0.5
        assert abs(columns - made.centres[n, 0, 1]).max() <= count.SIDE / 2 + 0.5


def test_each_digit_is_there_from_first_to_last():
    """Drawn one at a time, exactly `count` digits leave ink in every frame."""
    made = count.clips("train", 0, 30, seed=5)
    ink = made.frames.max(axis=(2, 3, 4))
    assert (ink > 0.1).all()
    lone = made.frames[:, made.count == 1]
    assert (
        np.ptp(lone.sum((2, 3, 4)), axis=0) < 1e-3 * lone.sum((2, 3, 4)).max()
    ).all()  # no ink comes or goes


def test_lines_on_ink_are_least_squares():
    made = [count.clips("train", k, 8, seed=1) for k in range(3)]
    found = count.ink_fit(made, made[1])["line on the last frame's ink"]
    x = np.concatenate([m.frames[-1].sum(axis=(1, 2, 3)) for m in made]).astype(float)
    y = np.concatenate([m.count for m in made])
    weights = np.linalg.lstsq(np.stack([x, np.ones(24)], axis=1), y, rcond=None)[0]
    np.testing.assert_allclose(found, weights[0] * x[8:16] + weights[1], rtol=1e-4)


# ---- forecast, generalise


def test_splits_of_moving_digits_share_no_frame():
    sets = [
        digest(forecast.digits(split, 0, n).batch(0, 4))
        for split in ("train", "validation", "test")
        for n in (1, 2)
    ]
    assert sum(map(len, sets)) == len(set().union(*sets)) == 6 * 4 * 12


def test_the_share_of_truth_falls_to_nought(monkeypatch):
    rates = []

    def noted(model, frames, *, observed, train, rng, truth_rate):
        rates.append(truth_rate)
        return forecast_loss_forward(
            model, frames, observed=observed, train=train, rng=rng, truth_rate=truth_rate
        )

    monkeypatch.setattr(forecast, "forecast_loss_forward", noted)
    forecast.trained(0, steps=3, progress=False, description="")
    np.testing.assert_allclose(rates, [1, 0.5, 0])


def test_closed_loop_uses_nothing_of_the_future():
    model = forecast.network(0)
    frames = forecast.digits("test", 0).batch(0, 2)
    found = forecast.forecasts(model, frames[: forecast.SEEN], 0)
    assert {name: y.shape for name, y in found.items()} == dict.fromkeys(
        found, (forecast.AHEAD, 2, 1, 32, 32)
    )
    np.testing.assert_array_equal(found["copy of the last frame"][3], frames[forecast.SEEN - 1])
    assert mse(found["copy of the last frame"], frames[forecast.SEEN :]) > 0


# ---- distil


def test_the_student_is_the_teacher_with_lighter_maps():
    teacher = distil.network(distil.LSTMCell, distil.TEACHER, 0)
    student = distil.network(distil.SeparableLSTMCell, distil.STUDENT, 0)
    shape = (distil.FRAMES, 1, 1, *distil.CANVAS)
    grid, T, C = (distil.CANVAS[0] // 2) ** 2, distil.FRAMES, 8
    encoder = T * grid * C * 16  # a strided convolution over 4x4 pixels
    F = distil.TEACHER
    assert teacher.cost(shape).macs == encoder + F * 8 + T * grid * 4 * F * (C + F) * 9
    F = distil.STUDENT
    assert student.cost(shape).macs == encoder + F * 8 + T * grid * ((C + F) * 9 + 4 * F * (C + F))
    assert 4 * student.cost(shape).macs <= teacher.cost(shape).macs


def test_softened_answers():
    x = np.array([[2.0, 0.0, -4.0]])
    wanted = np.exp(x / distil.TEMPERATURE)
    np.testing.assert_allclose(distil.softened(x), wanted / wanted.sum())
