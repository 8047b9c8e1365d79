"""How good a forecast is: every number with the convention behind it, since tables mix several.

All but `auc` take a prediction and a target of shape (T, N, C, *S) with pixels in [0, 1], compute in float64
and return a Python float. For a curve over lead time, give one frame at a time: `mse(p[t:t+1], y[t:t+1])`.
"""

from __future__ import annotations

from math import prod

from .backend import Array, Module, array_module

SSIM_WINDOW = 7  # pixels a side
SSIM_K1, SSIM_K2 = 0.01, 0.03
PSNR_FLOOR = 1e-10  # the smallest squared error of a frame: 100 dB
TINY = 1e-7  # probabilities are kept this far from 0 and 1


def mse(prediction: Array, target: Array) -> float:
    """Mean squared error per pixel: the mean over everything of (prediction - target)**2.

    Args:
        prediction, target: (T, N, C, *S).
    Returns:
        The mean, in squared pixel values.
    Raises:
        ValueError: shapes that differ, are empty or lack an axis.
    """
    xp, p, y = _pair(prediction, target)
    return float(xp.mean((p - y) ** 2))


def mae(prediction: Array, target: Array) -> float:
    """Mean absolute error per pixel: the mean over everything of |prediction - target|.

    Args, Raises: as `mse`. Returns: the mean, in pixel values.
    """
    xp, p, y = _pair(prediction, target)
    return float(xp.mean(abs(p - y)))


def frame_mse(prediction: Array, target: Array) -> float:
    """Squared error summed over the pixels and channels of a frame, mean over frames and clips.

    It is `mse` times the pixels of a frame: 29.80 on 64x64 is 0.00728 a pixel.

    Args, Raises: as `mse`. Returns: squared pixel values a frame.
    Source: the "MSE" of the tables of Wang et al. 2017 (PredRNN) and of OpenSTL.
    """
    return mse(prediction, target) * pixels(target)


def frame_mae(prediction: Array, target: Array) -> float:
    """Absolute error summed over the pixels and channels of a frame, mean over frames and clips.

    Args, Raises: as `mse`. Returns: pixel values a frame.
    Source: the "MAE" of the tables of PredRNN and of OpenSTL.
    """
    return mae(prediction, target) * pixels(target)


def psnr(prediction: Array, target: Array) -> float:
    """Peak signal-to-noise ratio of each frame, mean over frames and clips.

    p = clip(prediction, 0, 1); psnr = mean over frames of -10 log10(max(mse of the frame, 1e-10)). It is
    not the psnr of the mean error, which is lower. The peak is 1. A frame met exactly counts 100 dB, where
    other libraries count infinity and so lose the mean of all the others.

    Args, Raises: as `mse`. Returns: decibels, at most 100.
    Source: OpenSTL's convention (a frame at a time, after clipping), but for the exact frames.
    """
    xp, p, y = _pair(prediction, target)
    error = ((xp.clip(p, 0, 1) - y) ** 2).mean(axis=tuple(range(2, p.ndim)))  # (T, N)
    return float(xp.mean(-10 * xp.log10(xp.maximum(error, PSNR_FLOOR))))


def ssim(prediction: Array, target: Array) -> float:
    """Structural similarity of each frame and channel, mean over all of them; 1 is equality.

    Over windows of 7 pixels along every spatial axis, wholly inside the frame, with means m and
    sample variances v (divided by n - 1), c1 = 0.01**2, c2 = 0.03**2:

        s = (2 m_p m_y + c1) (2 v_py + c2) / ((m_p**2 + m_y**2 + c1) (v_p + v_y + c2))

    Nothing is clipped; the range of the data is taken as 1.

    Args:
        prediction, target: (T, N, C, *S), at least one spatial axis, each of at least 7 pixels.
    Returns:
        The mean over windows, channels, clips and frames.
    Raises:
        ValueError: as `mse`, or a frame smaller than the window.
    Source: Wang, Bovik, Sheikh and Simoncelli 2004, equation 13; uniform windows as in the defaults of
        scikit-image's structural_similarity with data_range=1.
    """
    _, p, y = _pair(prediction, target)
    if p.ndim < 4 or min(p.shape[3:]) < SSIM_WINDOW:
        raise ValueError(
            f"frames have spatial shape {p.shape[3:]}, ssim expects at least {SSIM_WINDOW} a side"
        )
    count = SSIM_WINDOW ** (p.ndim - 3)
    sample = count / (count - 1)
    m_p, m_y = _window_mean(p), _window_mean(y)
    v_p = sample * (_window_mean(p * p) - m_p**2)
    v_y = sample * (_window_mean(y * y) - m_y**2)
    v_py = sample * (_window_mean(p * y) - m_p * m_y)
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    s = (2 * m_p * m_y + c1) * (2 * v_py + c2) / ((m_p**2 + m_y**2 + c1) * (v_p + v_y + c2))
    return float(s.mean())


def nats_per_pixel(prediction: Array, target: Array, *, logits: bool) -> float:
    """Binary cross-entropy, natural logarithm, mean over everything.

    With z = prediction:        max(z, 0) - z y + log(1 + exp(-|z|))
    or with p = prediction:     -y log p - (1 - y) log(1 - p),  p kept within [1e-7, 1 - 1e-7]

    Grey targets leave a floor above zero: their own entropy.

    Args:
        prediction: (T, N, C, *S), logits or probabilities. target: the same shape, in [0, 1].
        logits: which of the two the prediction is.
    Returns:
        Nats per pixel.
    Raises:
        ValueError: as `mse`, or probabilities outside [0, 1].
    """
    xp, z, y = _pair(prediction, target)
    if logits:
        loss = xp.maximum(z, 0) - z * y + xp.log1p(xp.exp(-abs(z)))
    else:
        if float(z.min()) < 0 or float(z.max()) > 1:
            raise ValueError(
                f"prediction spans {float(z.min()):g} to {float(z.max()):g}, expected probabilities in [0, 1]"
            )
        p = xp.clip(z, TINY, 1 - TINY)
        loss = -y * xp.log(p) - (1 - y) * xp.log(1 - p)
    return float(xp.mean(loss))


def nats_per_sequence(prediction: Array, target: Array, *, logits: bool) -> float:
    """Binary cross-entropy summed over the frames and pixels of a clip, mean over clips.

    It is `nats_per_pixel` times the pixels of a clip: 3670.85 over 10 frames of 64x64 is 0.0896 a pixel.

    Args, Raises: as `nats_per_pixel`. Returns: nats per clip.
    Source: Shi et al. 2015, table 1.
    """
    return nats_per_pixel(prediction, target, logits=logits) * pixels(target) * len(target)


def auc(scores: Array, positive: Array) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties counted half.

        auc = mean over all pairs (p, n) of  [s_p > s_n] + [s_p = s_n] / 2

    Counted by sorting the negatives' scores, not by going through the pairs. 1/2 is chance.

    Args:
        scores: (N,), higher is more positive. positive: (N,) booleans, or 0 and 1.
    Returns:
        From 0 to 1.
    Raises:
        ValueError: shapes that differ or are not (N,), a score that is no number, or a class without a member.
    Source: Hanley & McNeil 1982, "The meaning and use of the area under a receiver operating
        characteristic (ROC) curve": the area is the Wilcoxon statistic.
    """
    xp = array_module(scores=scores, positive=positive)
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(
            f"scores.shape is {scores.shape}, positive.shape is {positive.shape}: expected (N,) both"
        )
    s, chosen = scores.astype(xp.float64), positive != 0
    if bool(xp.isnan(s).any()):
        raise ValueError("scores hold NaN, expected numbers")
    above, below = s[chosen], xp.sort(s[~chosen])
    if not above.size or not below.size:
        raise ValueError(f"{above.size} of {s.size} are positive, expected some of either class")
    beaten = xp.searchsorted(below, above, side="left")
    equal = xp.searchsorted(below, above, side="right") - beaten
    return float((beaten + equal / 2).mean() / below.size)


def pixels(x: Array) -> int:
    """Pixels of a frame, channels counted: C * prod(S) of x (T, N, C, *S)."""
    return int(prod(x.shape[2:]))


def _pair(prediction: Array, target: Array) -> tuple[Module, Array, Array]:
    """The module and both arrays in float64, or a ValueError naming what does not fit."""
    xp = array_module(prediction=prediction, target=target)
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction.shape is {prediction.shape}, target.shape is {target.shape}: expected equal"
        )
    if prediction.ndim < 3 or not prediction.size:
        raise ValueError(f"prediction.shape is {prediction.shape}, expected (T, N, C, *S), none of them zero")
    return xp, prediction.astype(xp.float64), target.astype(xp.float64)


def _window_mean(x: Array) -> Array:
    """Means over all windows of SSIM_WINDOW pixels, wholly inside, along each axis from the fourth."""
    for axis in range(3, x.ndim):
        positions = x.shape[axis] - SSIM_WINDOW + 1
        before = (slice(None),) * axis
        x = sum(x[(*before, slice(k, k + positions))] for k in range(SSIM_WINDOW)) / SSIM_WINDOW
    return x
