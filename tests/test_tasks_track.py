"""The task `track`: where the shape is, when it cannot be seen, and how a heat map is read."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.tasks import track


def test_the_centre_is_where_the_ink_is():
    """The centre of mass of the pixels, where nothing hides the shape; every kind of shape is symmetric."""
    made = track.clips("test", 0, 20)
    seen = 0
    for t in range(track.FRAMES):
        for n in range(20):
            frame, (row, column) = made.x[t, n, 0], made.centres[t, n]
            grey = abs(frame.mean(axis=0) - 0.5) < 0.1  # the band's columns
            low, high = max(int(column) - 3, 0), min(int(column) + 5, track.CANVAS)
            if not 2.5 < column < track.CANVAS - 3.5 or grey[low:high].any():
                continue
            ink = np.where(frame[:, low:high] > 0.25, frame[:, low:high], 0)
            y = (ink.sum(axis=1) * np.arange(track.CANVAS)).sum() / ink.sum()
            x = (ink.sum(axis=0) * np.arange(low, high)).sum() / ink.sum()
            assert abs(y - row) < 0.35
            assert abs(x - column) < 0.35
            seen += 1
    assert seen > 30


def test_hidden_frames_show_nothing_but_the_band():
    made = track.clips("test", 1, 20)
    assert 0.15 < made.hidden.mean() < 0.4
    assert made.hidden.any(axis=0).all()  # in every clip
    assert not made.hidden[0].any()
    for t, n in np.argwhere(made.hidden):
        columns = made.x[t, n, 0].mean(axis=0)
        assert (np.minimum(abs(columns), abs(columns - 0.5)) < 0.08).all()


def test_soft_labels_have_the_centre_as_their_mean():
    made = track.clips("train", 0, 9)
    maps = track.places(made.centres).reshape(track.FRAMES, 9, track.GRID, track.GRID)
    np.testing.assert_allclose(maps.sum(axis=(2, 3)), 1, rtol=1e-6)
    inside = np.clip(made.centres, track.OFFSET, track.OFFSET + track.PITCH * (track.GRID - 1))
    np.testing.assert_allclose(track.centre(maps), inside, atol=1e-4)


def test_heat_maps_sum_to_one_and_peak_where_the_logits_do():
    logits = np.zeros((1, 2, 1, track.GRID, track.GRID), np.float32)
    logits[0, 0, 0, 3, 11] = logits[0, 1, 0, 0, 0] = 40
    maps = track.heat(logits)
    np.testing.assert_allclose(maps.sum(axis=(2, 3)), 1, rtol=1e-6)
    np.testing.assert_allclose(track.centre(maps)[0], [[6.5, 22.5], [0.5, 0.5]], atol=1e-4)


def test_last_seen_stays_where_the_shape_vanished():
    made = track.clips("test", 0, 5)
    found = track.last_seen(made)
    np.testing.assert_array_equal(found[~made.hidden], made.centres[~made.hidden])
    for t, n in np.argwhere(made.hidden):
        gone = max(s for s in range(t) if not made.hidden[s, n])
        np.testing.assert_array_equal(found[t, n], made.centres[gone, n])


def test_splits_differ():
    a, b, c = (track.clips(split, 0, 3).centres for split in track.SPLITS)
    assert not np.intersect1d(a[0], b[0]).size
    assert not np.intersect1d(b[0], c[0]).size
    np.testing.assert_array_equal(a, track.clips("train", 0, 3).centres)


def test_a_short_run():
    outcome = track.run(quick=True, progress=False)
    assert all(np.isfinite(list(outcome.scores.values())))
    outcome.figure().canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_goal_is_reached(seed):
    outcome = track.run(seed=seed, progress=False)
    assert outcome.reached, str(outcome)
