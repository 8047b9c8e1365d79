"""Augmentation: a clip's frames are treated alike, and a mirror turns motion round."""

import numpy as np
import pytest

from tinyconvlstm.data.augment import FLOW_ORDERS, Augment, crop_clips, flip_clips
from tinyconvlstm.data.shapes import draw_shape


def moving(velocity, frames=6, size=(15, 19)):
    """A disc that moves by `velocity` each frame, and its flow, rows first."""
    t = np.arange(frames)[:, None]
    path = np.array([7.0, 9.0]) + (t - frames / 2) * np.asarray(velocity)
    ink = draw_shape("disc", path, canvas=size, radius=3, dtype=np.float64)
    flow = ink[:-1, None] * np.asarray(velocity)[:, None, None]
    return ink[:, None, None], flow[:, None]


def speed_seen(frames):
    """Mean motion of the centre of mass, (rows, columns) per frame."""
    ink = frames[:, 0, 0]
    i, j = np.mgrid[0 : ink.shape[1], 0 : ink.shape[2]]
    mass = ink.sum(axis=(1, 2))
    centre = np.stack([(ink * i).sum(axis=(1, 2)) / mass, (ink * j).sum(axis=(1, 2)) / mass], axis=1)
    return np.diff(centre, axis=0).mean(axis=0)


def speed_told(flow, order):
    """The flow where it is strongest, (rows, columns) per frame."""
    pair = flow[0, 0].reshape(2, -1)
    at = np.abs(pair).sum(axis=0).argmax()
    return pair[:, at] if order == FLOW_ORDERS[0] else pair[::-1, at]


@pytest.mark.parametrize("order", FLOW_ORDERS)
@pytest.mark.parametrize("axis", [3, 4])
def test_a_flipped_flow_tells_what_the_flipped_frames_show(order, axis):
    frames, flow = moving((0.5, -1.0))
    flow = flow if order == FLOW_ORDERS[0] else flow[:, :, ::-1]
    assert np.allclose(speed_told(flow, order), speed_seen(frames), atol=0.02)
    one = np.array([True])
    mirrored, turned = flip_clips(frames, one, axis=axis), flip_clips(flow, one, axis=axis, flow_order=order)
    seen = speed_seen(mirrored)
    assert seen[axis - 3] == pytest.approx(-speed_seen(frames)[axis - 3], abs=1e-9)
    assert np.allclose(speed_told(turned, order), seen, atol=0.02)
    naive = flip_clips(flow, one, axis=axis)
    assert not np.allclose(speed_told(naive, order), seen, atol=0.5)


def test_flipping_stacked_flow_negates_every_other_channel(rng):
    x = rng.standard_normal((2, 3, 6, 4, 5))
    y = flip_clips(x, np.array([True, False, True]), axis=4, flow_order="columns, rows")
    assert np.array_equal(y[:, 0, 0::2], -x[:, 0, 0::2, :, ::-1])
    assert np.array_equal(y[:, 0, 1::2], x[:, 0, 1::2, :, ::-1])
    assert np.array_equal(y[:, 1], x[:, 1])


def test_all_frames_of_a_clip_are_treated_alike_and_pictures_and_flow_too(rng):
    row, column = np.mgrid[0:9, 0:11]
    x = np.broadcast_to(100 * row + column, (5, 40, 1, 9, 11)).astype(float)
    flow = np.concatenate([x, x], axis=2)
    out = Augment(flip=0.5, flip_rows=0.5, crop=(6, 7))(
        {"rgb": x, "flow": flow, "audio": rng.random((15, 40, 3))}, 3
    )
    rgb = out["rgb"]
    assert rgb.shape == (5, 40, 1, 6, 7)
    assert (rgb == rgb[:1]).all()  # every frame as the first
    assert (abs(out["flow"]) == rgb).all()
    signs = {(np.sign(f[0].max() + f[0].min()), np.sign(f[1].max() + f[1].min())) for f in out["flow"][0]}
    assert len(signs) == 4  # every mirror occurs, alone and together
    corners = {int(min(clip.ravel())) for clip in rgb[0]}
    assert len(corners) > 5
    assert out["audio"].shape == (15, 40, 3)


def test_half_of_the_clips_are_flipped_and_the_same_ones_again():
    x = np.arange(2 * 400 * 4, dtype=float).reshape(2, 400, 1, 1, 4)
    augment = Augment(flip=0.3)
    y = augment(x, 0)
    flipped = (y[0, :, 0, 0, 0] != x[0, :, 0, 0, 0]).mean()
    assert 0.22 < flipped < 0.38
    assert np.array_equal(y, augment(x, 0))
    assert not np.array_equal(y, augment(x, 1))
    assert not np.array_equal(y, Augment(flip=0.3, seed=1)(x, 0))


def test_the_originals_stay_and_doing_nothing_changes_nothing(rng):
    x = rng.standard_normal((4, 3, 2, 6, 5)).astype(np.float32)
    before = x.copy()
    same = Augment(flip=0.0)(x, 0)
    assert np.array_equal(same, x)
    assert same.dtype == np.float32
    Augment(flip=1.0, crop=(3, 3))(x, 0)
    assert np.array_equal(x, before)


def test_a_start_in_time_keeps_frames_in_order():
    x = np.broadcast_to(np.arange(10.0).reshape(10, 1, 1, 1, 1), (10, 60, 1, 2, 2))
    y = Augment(flip=0.0, frames=7)(x, 0)[:, :, 0, 0, 0]
    assert (np.diff(y, axis=0) == 1).all()
    assert set(y[0]) == {0, 1, 2, 3}


def test_crop_cuts_where_it_is_told(rng):
    x = rng.standard_normal((3, 2, 1, 7, 8))
    y = crop_clips(x, np.array([[0, 3], [2, 1]]), (4, 5))
    assert np.array_equal(y[:, 0], x[:, 0, :, 0:4, 3:8])
    assert np.array_equal(y[:, 1], x[:, 1, :, 2:6, 1:6])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"flip": 1.5}, "flip is 1.5, expected a probability"),
        ({"crop": (9, 4)}, r"crop is \(9, 4\), expected at most the clips' \(6, 5\)"),
        ({"frames": 9}, "frames is 9"),
        ({"flow_order": "dx"}, "flow_order is 'dx'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(rng, settings, words):
    with pytest.raises(ValueError, match=words):
        Augment(**settings)(rng.random((4, 2, 1, 6, 5)), 0)


def test_streams_that_do_not_fit_are_refused(rng):
    with pytest.raises(ValueError, match="expected equal ones"):
        Augment()({"rgb": rng.random((4, 2, 1, 6, 5)), "flow": rng.random((4, 2, 2, 5, 5))}, 0)
    with pytest.raises(ValueError, match="expected pairs"):
        Augment(flip=1.0)({"flow": rng.random((4, 2, 3, 5, 5))}, 0)
    with pytest.raises(ValueError, match="axis is 2"):
        flip_clips(rng.random((4, 2, 1, 6, 5)), np.array([True, False]), axis=2)
