"""Tasks about moving pictures: exact labels, splits that share nothing, outcomes that are finite, goals reached."""

import numpy as np
import pytest

from tinyconvlstm.data.drawing import draw_digits, split_digits
from tinyconvlstm.data.moving_digits import MovingDigits
from tinyconvlstm.data.shapes import draw_shape
from tinyconvlstm.tasks import (
    TASKS,
    anomaly,
    films,
    interpolate,
    retrieve,
    summarise,
    task,
)

MINE = ["anomaly", "count", "distil", "forecast", "generalise", "interpolate", "retrieve", "summarise"]


def digest(frames):
    """A set of the frames, byte for byte, empty ones apart."""
    return {f.tobytes() for f in frames.reshape(-1, *frames.shape[-2:]) if f.any()}


@pytest.mark.parametrize("name", MINE)
def test_a_quick_run_measures_and_draws(name):
    outcome = task(name).run(seed=3, quick=True, progress=False)
    assert outcome.task == name
    assert name in TASKS
    assert len(outcome.scores) >= 2
    assert all(np.isfinite(value) for value in outcome.scores.values())
    assert str(outcome).count("\n") >= 3
    figure = outcome.figure()
    figure.canvas.draw()


def test_a_seed_fixes_the_outcome():
    first, same, other = (interpolate.run(seed=k, quick=True, progress=False).to_dict() for k in (5, 5, 6))
    assert first == same
    assert first["scores"] != other["scores"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", MINE)
def test_the_goal_is_reached(name, seed):
    outcome = task(name).run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)


# ---- digits drawn along paths


def test_draw_digits_agrees_with_moving_digits():
    """At eighths of a pixel both draw the same frames."""
    data = MovingDigits("test", canvas=(20, 26), digits=2, frames=5, digit_size=11, speed=(1, 3), seed=5)
    ink, labels = split_digits("test", 11)
    glyph, _, _ = data._draw(2, 3)
    path = data.trajectories(2, 3).positions
    frames = draw_digits(ink[glyph], path, canvas=(20, 26))
    np.testing.assert_allclose(frames[:, :, None], data.batch(2, 3), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(labels[glyph], data.batch_with_labels(2, 3)[1])


def test_draw_digits_says_which_corner_does_not_fit():
    ink = np.ones((1, 4, 4))
    with pytest.raises(ValueError, match=r"corners span 0 to 7, expected from 0 to \(6, 3\)"):
        draw_digits(ink, np.array([[0.0, 7.0]]), canvas=(10, 7))


def test_split_digits_share_no_bitmap():
    sets = [set(map(bytes, split_digits(split, 8)[0])) for split in ("train", "validation", "test")]
    assert [len(s) > 250 for s in sets] == [True] * 3
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]


# ---- what the tasks share


def test_a_frame_predictor_looks_at_no_later_frame():
    model, rng = films.frame_predictor(4, kernel=3, seed=1), np.random.default_rng(3)
    x = rng.random((5, 3, 1, 8, 10)).astype(np.float32)
    other = x.copy()
    other[3:] = 0
    y, z = model(x), model(other)
    assert y.shape == x.shape
    np.testing.assert_array_equal(y[:3], z[:3])
    assert abs(y[3] - z[3]).max() > 1e-5
    np.testing.assert_allclose(films.in_parts(model, x, clips=2), y, rtol=1e-5, atol=1e-6)
    states = films.without_last(model)(x)
    assert states.shape == (5, 3, 4, 4, 5)
    np.testing.assert_allclose(model.parts["decode"](states), y, rtol=1e-5, atol=1e-6)


def test_headings_point_everywhere_at_the_speeds_asked_for():
    v = films.headings(films.rng_of(0, "test", 0), 4000, 1.0, 3.0)
    speed = np.linalg.norm(v, axis=1)
    assert 1 <= speed.min() < 1.01
    assert 2.99 < speed.max() <= 3
    quarter = np.histogram(np.arctan2(v[:, 0], v[:, 1]), 4, (-np.pi, np.pi))[0]
    assert abs(quarter - 1000).max() < 120


# ---- anomaly


def test_anomalies_are_where_the_labels_say():
    made = anomaly.clips("test", 0, 90, seed=1, kinds=(0, 1, 2))
    ordinary, speed, looks = (made.kind == k for k in (0, 1, 2))
    np.testing.assert_array_equal(made.since == anomaly.FRAMES, ordinary)
    pace = np.linalg.norm(np.diff(made.centres, axis=0), axis=2)  # (T - 1, N)
    for n in range(90):
        since = made.since[n]
        before = pace[: since - 1, n].max()  # a bounce can only shorten the way between two frames
        assert before <= 2 + 1e-9
        if speed[n]:
            after = pace[since - 1 :, n].max()
            assert after == 0 or after == pytest.approx(3 * before)
        np.testing.assert_array_equal(made.shape[:, n] >= 3, (np.arange(anomaly.FRAMES) >= since) & looks[n])
        changes = np.flatnonzero(np.diff(made.shape[:, n])) + 1
        np.testing.assert_array_equal(changes, [since] if looks[n] else [])


@pytest.mark.parametrize("kind", [1, 2])
def test_a_strange_clip_is_the_ordinary_one_until_its_change(kind):
    plain, strange = (anomaly.clips("test", 4, 30, seed=2, kinds=k) for k in ((0,), (kind,)))
    for n, since in enumerate(strange.since):
        assert np.array_equal(plain.frames[:since, n], strange.frames[:since, n])
        assert not np.array_equal(plain.frames[since, n], strange.frames[since, n])


def test_splits_and_batches_of_shapes_share_no_random_number():
    made = [
        anomaly.clips(split, k, 8, seed=0).centres
        for split in ("train", "validation", "test")
        for k in (0, 1)
    ]
    made += [anomaly.clips("train", 0, 8, seed=1).centres]
    assert len({place.tobytes() for centres in made for place in centres[0]}) == 7 * 8


def test_relative_errors_by_hand():
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 2, 1, 3, 4)), rng.random((5, 2, 1, 3, 4))
    e = anomaly.errors(y, x)
    assert e.shape == (6 - anomaly.FIRST, 2)
    t = anomaly.FIRST + 1
    by_hand = ((y[t - 1, 1] - x[t, 1]) ** 2).sum() / (x[t, 1] ** 2).sum()
    assert e[1, 1] == pytest.approx(by_hand)
    np.testing.assert_allclose(anomaly.score(np.array([[1.0, 5], [7, 2], [4, 8], [0, 3]])), [4, 16 / 3])
    still = np.repeat(x[:1], 6, axis=0)
    np.testing.assert_allclose(
        anomaly.errors(anomaly.moved_on(still), still), 0, atol=0.05
    )  # a parabola is no peak


# ---- retrieve


def test_motions_are_what_their_names_say():
    made = retrieve.clips("train", 3, 80, seed=0)
    step = np.diff(made.corners, axis=0)  # (T - 1, N, 2)
    turn = np.cross(np.dstack([step[:-1], 0 * step[:-1, :, :1]]), np.dstack([step[1:], 0 * step[1:, :, :1]]))[
        ..., 2
    ]
    for n, motion in enumerate(made.motion):
        rows, columns = step[:, n].T
        name = retrieve.MOTIONS[motion]
        if name in ("right", "left", "down", "up"):
            along, across = (columns, rows) if name in ("right", "left") else (rows, columns)
            assert (across == 0).all()
            assert (along * (1 if name in ("right", "down") else -1) > 0.69).all()
        elif name.startswith("along"):
            along, across = (columns, rows) if name.endswith("row") else (rows, columns)
            assert (across == 0).all()
            assert len(set(np.sign(along))) == 2 or abs(along.sum()) < 12
        else:  # with rows downwards, clockwise on the screen turns from +column to +row
            assert (turn[:, n] < 0).all() if name == "clockwise" else (turn[:, n] > 0).all()
    other = retrieve.clips("test", 3, 80, seed=0)
    assert not digest(made.frames) & digest(other.frames)
    np.testing.assert_array_equal(made.motion, other.motion)
    unique = retrieve.clips("test", 0, 288, seed=0, unique=True)
    assert len(set(unique.glyph)) == 288


def test_recall_by_going_through_all_pairs():
    rng = np.random.default_rng(1)
    features, labels = rng.standard_normal((23, 5)), rng.integers(0, 3, 23)
    hits = 0
    for n in range(23):
        best, found = -2.0, -1
        for m in range(23):
            cosine = (
                features[n] @ features[m] / np.sqrt((features[n] @ features[n]) * (features[m] @ features[m]))
            )
            if m != n and cosine > best:
                best, found = cosine, m
        hits += labels[found] == labels[n]
    assert retrieve.recall_at_1(features, labels) == hits / 23
    assert retrieve.recall_at_1(np.eye(3)[[0, 0, 1, 1]], np.array([0, 0, 1, 1])) == 1
    assert retrieve.neighbours(features).shape == (23, 22)


# ---- summarise


def test_cuts_are_where_the_kind_of_shape_changes():
    made = summarise.clips("test", 0, 40, seed=3)
    changes = made.kind[1:] != made.kind[:-1]
    for n in range(40):
        np.testing.assert_array_equal(np.flatnonzero(changes[:, n]) + 1, made.cuts[n])
        lengths = np.diff([0, *made.cuts[n], summarise.FRAMES])
        assert lengths.min() >= summarise.SHORTEST
    # the kind is what is seen: the best match among all shapes at the centre of gravity
    seen = made.frames[:, :6, 0].astype(np.float64)
    total = seen.sum((2, 3))
    axis = np.arange(summarise.CANVAS[0])
    centre = np.stack([(seen.sum(3) @ axis) / total, (seen.sum(2) @ axis) / total], axis=-1)
    match = []
    for name in summarise.KINDS:
        shape = draw_shape(name, centre, canvas=summarise.CANVAS, radius=summarise.RADIUS)
        dot = (shape * seen).sum((2, 3))
        match.append(dot / np.sqrt((shape**2).sum((2, 3)) * (seen**2).sum((2, 3))))
    np.testing.assert_array_equal(np.argmax(match, axis=0), made.kind[:, :6])


def test_key_frames_by_hand():
    scores = np.array([[9, 0, 5, 4, 0, 0, 3, 2, 1, 0]], float).T
    np.testing.assert_array_equal(summarise.peaks(scores, 3), [[0, 3, 6]])  # 2 is too near to frame 0
    np.testing.assert_array_equal(summarise.equally_spaced(10, 2, 2), [[2, 7], [2, 7]])
    keys, cuts = np.array([[0, 7, 14]]), np.array([[5, 11, 14]])
    np.testing.assert_array_equal(summarise.covered(keys, cuts), [[True, False, True]])
    x = np.array([[0.0, 0], [3, 4], [3, 4]])[:, None]
    np.testing.assert_array_equal(summarise.change(x), [[0], [5], [0]])


def test_the_loss_of_all_frames_is_the_mean_of_each():
    rng = np.random.default_rng(2)
    logits, labels = rng.standard_normal((4, 3, 6)), rng.integers(0, 6, (4, 3))
    loss, saved = summarise.frames_loss_forward(logits, labels)
    p = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    assert loss == pytest.approx(
        -np.mean([np.log(p[t, n, labels[t, n]]) for t in range(4) for n in range(3)])
    )
    np.testing.assert_allclose(
        summarise.frames_loss_backward(1.0, saved), (p - np.eye(6)[labels]) / 12, atol=1e-12
    )
