"""metrics.py: scikit-image's numbers, definitions in plain loops, conventions, both backends."""

import math

import numpy as np
import pytest

from tinyconvlstm import metrics
from tinyconvlstm.backend import BackendError, to_backend

SHAPE = (3, 2, 2, 5, 4)  # (T, N, C, H, W)
ALL = [metrics.mse, metrics.mae, metrics.frame_mse, metrics.frame_mae, metrics.psnr]


def grey(shape):
    """Two like images of whole-number arithmetic: the same on every machine."""
    i = np.arange(math.prod(shape), dtype=np.int64)
    y = ((i * i * 7 + i * 131) % 1009) / 1008
    q = ((i * i * i * 3 + i * 17) % 2003) / 2002
    return (0.7 * y + 0.3 * q).reshape(shape), y.reshape(shape)


@pytest.fixture
def pair(rng):
    return rng.uniform(-0.3, 1.4, SHAPE), rng.random(SHAPE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_errors_follow_their_conventions(backend, pair, dtype):
    p, y = (x.astype(dtype) for x in pair)
    d = (p.astype(float) - y).reshape(6, 40)  # frames, pixels with channels
    clipped = np.clip(p.astype(float), 0, 1).reshape(6, 40) - y.reshape(6, 40)
    expected = [
        np.mean([v * v for v in d.flat]),
        np.mean([abs(v) for v in d.flat]),
        np.mean([(row**2).sum() for row in d]),
        np.mean([abs(row).sum() for row in d]),
        np.mean([10 * math.log10(1 / (row**2).mean()) for row in clipped]),
    ]
    found = [metric(to_backend(p, backend), to_backend(y, backend)) for metric in ALL]
    assert all(type(value) is float for value in found)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_psnr_of_an_exact_frame_is_100(pair):
    p, y = pair
    assert metrics.psnr(y, y) == 100
    assert metrics.psnr(np.where(y > 0.5, 2.0, -1.0), np.where(y > 0.5, 1.0, 0.0)) == 100  # clipped
    one = np.concatenate([y[:1], p[1:2]])
    assert metrics.psnr(one, y[:2]) == pytest.approx((100 + metrics.psnr(p[1:2], y[1:2])) / 2)


# structural_similarity(p, y, data_range=1) and peak_signal_noise_ratio of scikit-image 0.26.0, a frame and
# (ssim) a channel at a time, then the mean
GOLDEN = {
    (2, 3, 2, 9, 12): (0.8935543264589417, 18.4987462019712),
    (1, 2, 1, 7, 16): (0.9076553223238456, 18.619964677285065),
    (3, 1, 1, 8, 9, 10): (0.8962493445132121, 18.4375381739161),
}


@pytest.mark.parametrize("shape", GOLDEN)
def test_ssim_and_psnr_equal_scikit_image(backend, shape):
    p, y = (to_backend(x, backend) for x in grey(shape))
    assert metrics.ssim(p, y) == pytest.approx(GOLDEN[shape][0], rel=1e-12)
    assert metrics.psnr(p, y) == pytest.approx(GOLDEN[shape][1], rel=1e-12)
    assert metrics.ssim(y, y) == pytest.approx(1, abs=1e-12)
    assert metrics.ssim(p.astype(np.float32), y.astype(np.float32)) == pytest.approx(
        GOLDEN[shape][0], abs=1e-6
    )


def test_ssim_follows_its_equation(rng):
    p, y = rng.random((2, 2, 1, 2, 8, 11))
    values = []
    for n, c, i, j in np.ndindex(1, 2, 2, 5):
        for t in range(2):
            a, b = (x[t, n, c, i : i + 7, j : j + 7].ravel() for x in (p, y))
            v = np.cov(a, b)  # divided by n - 1
            values.append(
                (2 * a.mean() * b.mean() + 1e-4)
                * (2 * v[0, 1] + 9e-4)
                / ((a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (v[0, 0] + v[1, 1] + 9e-4))
            )
    assert metrics.ssim(p, y) == pytest.approx(np.mean(values), rel=1e-10)


def test_nats(backend, rng):
    z, y = 4 * rng.standard_normal(SHAPE), rng.random(SHAPE)
    q = 1 / (1 + np.exp(-z))
    expected = np.mean(
        [-t * math.log(a) - (1 - t) * math.log(1 - a) for a, t in zip(q.flat, y.flat, strict=True)]
    )
    logits, probabilities, target = (to_backend(x, backend) for x in (z, q, y))
    assert metrics.nats_per_pixel(logits, target, logits=True) == pytest.approx(expected, rel=1e-12)
    assert metrics.nats_per_pixel(probabilities, target, logits=False) == pytest.approx(expected, rel=1e-12)
    clip = 3 * 2 * 5 * 4
    assert metrics.nats_per_sequence(logits, target, logits=True) == pytest.approx(clip * expected, rel=1e-12)
    assert metrics.nats_per_sequence(probabilities, target, logits=False) == pytest.approx(
        clip * expected, rel=1e-12
    )


def test_nats_far_out_are_finite(pair):
    _, y = pair
    hard = (y > 0.5).astype(float)
    sure = np.where(y > 0.5, 900.0, -900.0)
    assert metrics.nats_per_pixel(sure, hard, logits=True) == 0
    assert metrics.nats_per_pixel(-sure, hard, logits=True) == 900
    assert metrics.nats_per_pixel(1 - hard, hard, logits=False) == pytest.approx(-math.log(1e-7))
    half = np.full(SHAPE, 0.5)
    assert metrics.nats_per_sequence(half, y, logits=False) == pytest.approx(120 * math.log(2))


def test_published_conversions():
    y = np.zeros((10, 1, 1, 64, 64))
    assert metrics.frame_mse(y + math.sqrt(0.00728), y) == pytest.approx(29.8, abs=0.02)
    p = y + 1 - math.exp(-0.0896)
    assert metrics.nats_per_sequence(p, y, logits=False) == pytest.approx(3670.85, abs=1)


@pytest.mark.parametrize("metric", [*ALL, metrics.ssim])
def test_arguments_that_cannot_be(metric, pair):
    p, y = pair
    with pytest.raises(
        ValueError, match=r"prediction.shape is \(3, 2, 2, 5, 4\), target.shape is \(3, 2, 2, 5, 3\)"
    ):
        metric(p, y[..., 1:])
    with pytest.raises(ValueError, match=r"prediction.shape is \(3, 0, 2, 5, 4\), expected \(T, N, C, \*S\)"):
        metric(p[:, :0], y[:, :0])
    with pytest.raises(ValueError, match=r"prediction.shape is \(3, 2\)"):
        metric(p[:, :, 0, 0, 0], y[:, :, 0, 0, 0])


def test_more_arguments_that_cannot_be(pair, cupy_standin):
    p, y = pair
    with pytest.raises(ValueError, match=r"spatial shape \(5, 4\), ssim expects at least 7"):
        metrics.ssim(p, y)
    with pytest.raises(ValueError, match=r"prediction spans -0.\d+ to 1.\d+, expected probabilities"):
        metrics.nats_per_pixel(p, y, logits=False)
    with pytest.raises(BackendError, match="prediction is a numpy array"):
        metrics.mse(p, to_backend(y, "cupy"))


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_how_often_a_positive_is_ranked_above_a_negative(backend, rng, ties):
    scores = rng.integers(0, 6, 41).astype(float) if ties else rng.standard_normal(41)
    positive = rng.random(41) < 0.3
    wins = [
        (p > n) + (p == n) / 2
        for p, label in zip(scores, positive, strict=True)
        for n, other in zip(scores, positive, strict=True)
        if label and not other
    ]
    found = metrics.auc(to_backend(scores, backend), to_backend(positive, backend))
    assert type(found) is float
    assert found == pytest.approx(np.mean(wins), abs=1e-15)
    counted = to_backend(positive.astype(np.int64), backend)
    assert metrics.auc(to_backend(-scores, backend), counted) == pytest.approx(1 - found)
    ranks = np.array(
        [((scores < s).sum() + (scores <= s).sum() + 1) / 2 for s in scores]
    )  # mean ranks, from 1
    n = positive.sum()
    assert found == pytest.approx((ranks[positive].sum() - n * (n + 1) / 2) / (n * (41 - n)))


def test_auc_of_what_cannot_be_ranked():
    with pytest.raises(ValueError, match=r"scores.shape is \(3,\), positive.shape is \(2,\)"):
        metrics.auc(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="0 of 3 are positive"):
        metrics.auc(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="3 of 3 are positive"):
        metrics.auc(np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match="scores hold NaN"):
        metrics.auc(np.array([0, np.nan]), np.array([0, 1]))
