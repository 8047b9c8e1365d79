"""data/moving_digits.py, glyphs.py and digits.py: exactness, repeatability, the walls, the partition."""

import dataclasses
import hashlib
import pickle
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from tinyconvlstm.data.digits import load_digits
from tinyconvlstm.data.glyphs import levels, packaged_levels, partition
from tinyconvlstm.data.moving_digits import MovingDigits, velocity_ring

MNIST = Path(__file__).parents[1].parent / "shared/data/mnist"
SMALL = {"canvas": (24, 33), "digit_size": 11, "frames": 13, "speed": (1.0, 4.0)}


def sha(array, kind="<f4"):
    return hashlib.sha256(array.astype(kind).tobytes()).hexdigest()


# ---- the packaged digits


def test_packaged_file_is_the_published_one():
    folder = files("tinyconvlstm.data")
    data = (folder / "digits.npz").read_bytes()
    images, labels = load_digits()
    found = [hashlib.sha256(b).hexdigest() for b in (data, images.tobytes(), labels.tobytes())]
    attribution = (folder / "DIGITS.md").read_text(encoding="utf-8")
    assert found[0] == "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"
    assert all(f"`{digest}`" in attribution for digest in found)
    assert all(word in attribution for word in ("Alpaydin", "Kaynak", "CC BY 4.0", "10.24432/C50P49"))
    assert len(data) < 100_000


def test_packaged_counts():
    images, labels = load_digits()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == labels.dtype == np.uint8
    assert (images.min(), images.max(), images.sum()) == (0, 16, 561718)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797  # no duplicates
    with pytest.raises(ValueError, match="read-only"):
        images[0, 0, 0] = 1


# ---- glyphs


@pytest.mark.parametrize(("old", "new"), [(5, 9), (4, 4), (7, 3), (8, 28), (9, 1)])
def test_levels_follow_their_convention_exactly(old, new):
    glyphs = np.random.default_rng(old * new).integers(0, 18, (2, old, old))
    got = levels(glyphs, 17, new)

    def weight(o, i):
        if new >= old:
            return max(Fraction(0), 1 - abs((o + Fraction(1, 2)) * old / new - (i + Fraction(1, 2))))
        return max(
            Fraction(0), min(Fraction((o + 1) * old, new), i + 1) - max(Fraction(o * old, new), i)
        ) * Fraction(new, old)

    w = np.array([[weight(o, i) for i in range(old)] for o in range(new)])
    for g, out in zip(glyphs, got, strict=True):
        exact = w.dot(g.astype(object)).dot(w.T) * Fraction(256, 17)
        rounded = [[(2 * v + 1) // 2 for v in row] for row in exact]
        assert out.tolist() == rounded


def test_levels_at_full_size_keep_the_glyph():
    glyphs = np.random.default_rng(0).integers(0, 256, (3, 6, 6), dtype=np.uint8)
    got = levels(glyphs, 255, 6)
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got, np.rint(glyphs / 255 * 256))
    assert levels(np.full((1, 4, 4), 255, np.uint8), 255, 2).tolist() == [[[256, 256], [256, 256]]]


def test_packaged_levels_have_contrast_and_a_margin():
    images, _ = load_digits()
    ink = packaged_levels(images, 28)
    assert (ink.min(), ink.max()) == (0, 256)
    assert ink.max(axis=(1, 2)).min() > 128  # every digit is seen
    assert 0.1 < (ink > 128).mean() < 0.3  # strokes, not blots
    border = np.ones((28, 28), bool)
    border[1:-1, 1:-1] = False
    assert not ink[:, border].any()
    upright = images.mean(axis=0)[:, :4].sum() - images.mean(axis=0)[:, 4:].sum()
    drawn = ink.mean(axis=0)[:, :14].sum() - ink.mean(axis=0)[:, 14:].sum()
    assert upright * drawn > 0


def test_partition_of_the_packaged_digits():
    images, labels = load_digits()
    parts = {split: partition(images, labels, split) for split in ("train", "validation", "test")}
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 1197,
        "validation": 300,
        "test": 300,
    }
    assert sorted(np.concatenate(list(parts.values()))) == list(range(1797))
    for part in parts.values():
        share = np.bincount(labels[part]) / len(part)
        assert abs(share - 0.1).max() < 0.01
        assert (np.diff(part) > 0).all()
    assert MovingDigits("validation").glyph_indices.tolist() == parts["validation"].tolist()
    np.testing.assert_array_equal(partition(images, labels, "all"), np.arange(1797))
    # a fixed partition: these lists never change
    assert sha(np.concatenate(list(parts.values())), "<i8") == GOLDEN_PARTITION


def test_equal_bitmaps_are_never_on_two_sides():
    rng = np.random.default_rng(8)
    pool = rng.integers(0, 256, (9, 3, 3), dtype=np.uint8)
    glyphs = pool[rng.permutation(np.repeat(np.arange(9), 5))]
    sides = [
        {glyphs[i].tobytes() for i in partition(glyphs, None, split)}
        for split in ("train", "validation", "test")
    ]
    assert [len(side) for side in sides] == [5, 2, 2]
    assert len(set.union(*sides)) == 9


# ---- clips


def test_shape_type_and_range():
    data = MovingDigits(**SMALL, digits=3)
    batch = data.batch(2, 5)
    assert batch.shape == (13, 5, 1, 24, 33)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    assert batch.min() == 0
    assert 0.9 < batch.max() <= 1
    double = MovingDigits(**SMALL, digits=3, dtype=np.float64).batch(2, 5)
    assert double.dtype == np.float64
    np.testing.assert_array_equal(double, batch)  # exact in float32
    np.testing.assert_array_equal(double * 2**14, np.rint(double * 2**14))


def test_frames_are_the_glyphs_at_their_positions():
    data = MovingDigits("test", **SMALL, digits=3, seed=4)
    frames, labels = data.batch_with_labels(3, 2)
    np.testing.assert_array_equal(frames, data.batch(3, 2))
    positions = data.trajectories(3, 2).positions
    glyph, _, _ = data._draw(3, 2)
    images, truth = load_digits()
    np.testing.assert_array_equal(labels, truth[data.glyph_indices[glyph]])
    ink = packaged_levels(images[data.glyph_indices], 11) / 256
    y, x = np.arange(24)[:, None], np.arange(33)[None]
    for t in (0, 5, 12):
        for n in range(2):
            seen = np.zeros((24, 33))
            for d in range(3):
                row, column = positions[t, n, d]
                alone = np.zeros((24, 33))
                for r in range(11):
                    for c in range(11):
                        tent = np.maximum(1 - abs(y - row - r), 0) * np.maximum(1 - abs(x - column - c), 0)
                        alone += tent * ink[glyph[n, d], r, c]
                seen = np.maximum(seen, alone)
            np.testing.assert_array_equal(frames[t, n, 0], seen)


def test_motion_is_straight_elastic_and_inside():
    data = MovingDigits(canvas=(31, 47), digit_size=12, digits=2, frames=60, speed=(2.0, 5.0), seed=1)
    positions, velocities = data.trajectories(0, 64)
    room = np.array([31 - 12, 47 - 12])
    assert (positions >= 0).all()
    assert (positions <= room).all()
    assert (positions.min(axis=(0, 1, 2)) < 1).all()  # both walls of both axes are reached
    assert (positions.max(axis=(0, 1, 2)) > room - 1).all()
    speed = np.sqrt((velocities**2).sum(axis=-1))
    assert speed.min() >= 2
    assert speed.max() <= 5
    np.testing.assert_array_equal(abs(velocities), np.broadcast_to(abs(velocities[0]), velocities.shape))
    straight = positions[:-1] + velocities[:-1]  # an independent oracle: step, then mirror at the wall
    mirrored = np.where(straight < 0, -straight, np.where(straight > room, 2 * room - straight, straight))
    np.testing.assert_array_equal(positions[1:], mirrored)
    free = (straight > 0) & (straight < room)
    np.testing.assert_array_equal(velocities[1:][free], velocities[:-1][free])
    turned = (straight < 0) | (straight > room)
    np.testing.assert_array_equal(velocities[1:][turned], -velocities[:-1][turned])
    assert turned.any()


def test_directions_and_speeds_are_evenly_spread():
    ring = velocity_ring(2.0, 5.0)
    pace = np.sqrt((ring**2).sum(axis=1)) / 8
    assert pace.min() >= 2
    assert pace.max() == 5
    assert len(ring) == len(np.unique(ring, axis=0))
    assert abs(len(ring) - np.pi * (40**2 - 16**2)) < 40  # every lattice point of the ring
    drawn = MovingDigits(frames=1).trajectories(0, 4000).velocities.reshape(-1, 2)
    octant = np.bincount(((np.arctan2(drawn[:, 0], drawn[:, 1]) / np.pi + 1.03125) * 4).astype(int) % 8)
    assert abs(octant / 1000 - 1).max() < 0.15
    start = MovingDigits(frames=1).trajectories(0, 4000).positions.reshape(-1, 2) / 36
    assert abs(start.mean(axis=0) - 0.5).max() < 0.02
    assert abs(np.corrcoef(start.T)[0, 1]) < 0.05


# ---- repeatability


def test_part_of_a_batch():
    clips = MovingDigits("train", frames=4)
    np.testing.assert_array_equal(clips.batch(3, 5, slice(1, 4)), clips.batch(3, 5)[:, 1:4])


def test_random_access_and_any_batch_size():
    data = MovingDigits(**SMALL)
    whole = data.batch(0, 12)
    np.testing.assert_array_equal(np.concatenate([data.batch(i, 4) for i in (0, 1, 2)], axis=1), whole)
    np.testing.assert_array_equal(MovingDigits(**SMALL).batch(2, 4), whole[:, 8:])  # no batch made before
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data)).batch(1, 6), whole[:, 6:])
    assert len({whole[:, n].tobytes() for n in range(12)}) == 12
    longer = MovingDigits(**{**SMALL, "frames": 20}).batch(0, 12)
    np.testing.assert_array_equal(longer[:13], whole)


def test_seed_and_split_change_the_clips():
    clips = [
        MovingDigits(split, **SMALL, seed=seed)
        for split in ("train", "validation", "test")
        for seed in (0, 1)
    ]
    starts = [clip.trajectories(0, 3).positions.tobytes() for clip in clips]
    assert len(set(starts)) == 6
    big = MovingDigits(**SMALL, seed=2**40).trajectories(10**12, 3)
    assert big.positions.tobytes() not in starts


@pytest.mark.parametrize("case", range(3))
def test_the_same_pixels_on_every_machine(case):
    settings, index, digest = GOLDEN[case]
    assert sha(MovingDigits(**settings).batch(index, 4)) == digest


GOLDEN_PARTITION = "cfaaa87303a39352c0c38660f4dbddd6eb269cbfe2ceadd1c899e1609bf86028"
GOLDEN = [
    ({}, 0, "db687d1f9cd65d02766af161b69985724f2dbeb2bd7f77ac00175fb923b4ac0b"),
    (
        {"split": "test", **SMALL, "seed": 7, "digits": 3},
        5,
        "32ba8397b094ce0f90f153dd11b8535fcc452ded69bab6ea26a9fb8e05e3c224",
    ),
    (
        {"split": "validation", "canvas": (32, 32), "digit_size": 14, "speed": (1.0, 3.0)},
        10**6,
        "093740059caca7e06ec30d5b5ab6358f823fefed907824ea97b963bb7893d51d",
    ),
]


# ---- glyphs of one's own


def test_glyphs_from_an_array():
    rng = np.random.default_rng(2)
    glyphs = rng.integers(0, 256, (18, 5, 5), dtype=np.uint8)
    labels = np.repeat([3, 5, 8], 6)
    data = MovingDigits(canvas=(12, 15), digit_size=5, digits=1, glyphs=glyphs, labels=labels)
    _, found = data.batch_with_labels(0, 40)
    assert found.shape == (40, 1)
    assert set(found[:, 0]) == {3, 5, 8}
    assert data.glyph_indices.tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15]
    floats = MovingDigits(canvas=(12, 15), digit_size=5, digits=1, glyphs=glyphs / 255.0)
    np.testing.assert_array_equal(floats.glyph_indices, np.arange(12))
    with pytest.raises(ValueError, match="came without labels"):
        floats.batch_with_labels(0, 1)
    still = MovingDigits("all", canvas=(5, 5), digit_size=5, digits=1, glyphs=glyphs, speed=(0, 0), frames=2)
    shown = still.batch(0, 60)[1, :, 0]
    assert {x.tobytes() for x in shown} <= {
        (np.rint(g / 255 * 256) / 256).astype(np.float32).tobytes() for g in glyphs
    }
    assert len({x.tobytes() for x in shown}) > 10


@pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST files beside the checkout")
def test_glyphs_from_mnist_files():
    images, labels = (MNIST / f"t10k-even-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
    train, test = (MovingDigits(split, glyphs=images, labels=labels) for split in ("train", "test"))
    assert not set(train.glyph_indices) & set(test.glyph_indices)
    assert len(train.glyph_indices) + 2 * len(test.glyph_indices) == 5000
    frames, digits = test.batch_with_labels(0, 2)
    assert frames.shape == (20, 2, 1, 64, 64)
    assert frames.max() == 1
    assert digits.max() <= 9


# ---- errors

ERRORS = [
    ({"split": "dev"}, "split is 'dev', expected one of 'train', 'validation', 'test', 'all'"),
    ({"digits": 0}, "digits is 0, expected a whole number of at least 1"),
    ({"frames": 2.5}, "frames is 2.5"),
    ({"digit_size": 0}, "digit_size is 0"),
    ({"seed": -1}, "seed is -1"),
    ({"canvas": (64,)}, r"canvas is \(64,\)"),
    ({"canvas": (64, 20.0)}, r"canvas is \(64, 20.0\)"),
    ({"canvas": (64, 27)}, r"canvas is \(64, 27\), expected at least digit_size 28"),
    ({"speed": (5.0, 2.0)}, r"speed is \(5.0, 2.0\), expected \(slowest, fastest\)"),
    ({"speed": (-1.0, 2.0)}, "0 <= slowest"),
    ({"speed": (float("nan"), 2.0)}, "0 <= slowest"),
    ({"speed": (1.0, 99.0), "canvas": (200, 200)}, "fastest <= 64"),
    (
        {"canvas": (32, 64)},
        r"speed is \(2.0, 5.0\), too fast for a canvas of \(32, 64\): .* only 4 to move in",
    ),
    ({"speed": (3.0, 3.0)}, r"speed is \(3.0, 3.0\), too narrow"),
    ({"dtype": np.int32}, "dtype is int32"),
]


@pytest.mark.parametrize(("settings", "message"), ERRORS)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        MovingDigits(**settings)
    assert "\n" not in str(caught.value)


GLYPHS = np.zeros((4, 5, 5), np.uint8)
GLYPH_ERRORS = [
    (GLYPHS[0], None, r"glyphs.shape is \(5, 5\), expected \(n, h, h\)"),
    (GLYPHS[:, 1:], None, r"glyphs.shape is \(4, 4, 5\)"),
    (GLYPHS.astype(int), None, "glyphs.dtype is int64"),
    (GLYPHS + 1.5, None, "glyphs span 1.5 to 1.5, expected 0 to 1"),
    (GLYPHS + np.nan, None, "glyphs span nan"),
    (GLYPHS, np.zeros(3, int), r"labels are int64 of shape \(3,\), expected \(4,\)"),
    (None, np.zeros(3, int), "the packaged digits bring their own"),
    (GLYPHS, None, "split 'validation' holds none of the 1 different glyphs"),
    ("nowhere.gz", None, "nowhere.gz: No such file"),
]


@pytest.mark.parametrize(("glyphs", "labels", "message"), GLYPH_ERRORS)
def test_glyphs_that_cannot_be(glyphs, labels, message):
    with pytest.raises(ValueError, match=message):
        MovingDigits("validation", glyphs=glyphs, labels=labels).batch(0, 1)


def test_a_split_that_cannot_be():
    with pytest.raises(ValueError, match="split is 'dev', expected one of 'train'"):
        partition(GLYPHS, None, "dev")


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (0, 0)])
def test_batches_that_cannot_be(index, size):
    with pytest.raises(ValueError, match=f"index is {index} and size {size}"):
        MovingDigits().batch(index, size)


def test_settings_are_frozen():
    data = MovingDigits()
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.seed = 3
