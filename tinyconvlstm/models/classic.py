"""What named a sequence before networks did: dynamic time warping, and hidden Markov models.

Both take sequences (T, N, D) with lengths (N,), as the layers do. Neither has a gradient.

Sources: Sakoe & Chiba 1978, "Dynamic programming algorithm optimization for spoken word recognition"; Rabiner
1989, "A tutorial on hidden Markov models and selected applications in speech recognition".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..backend import Array

FLOOR = 1e-3  # the least variance of a state, and of moves and starts the least count added


def dtw(a: Array, bs: Array, lengths: Any = None) -> Array:
    """Distances under dynamic time warping between one sequence and many.

        d(i, j) = |a_i - b_j| + min(d(i-1, j-1), d(i-1, j), d(i, j-1));   d(0, 0) = |a_0 - b_0|

    Args:
        a: (T, D).
        bs: (U, N, D). lengths: (N,) steps of each; default all U.
    Returns:
        (N,): d at the ends of both, the least sum of distances along a path that goes forward in both.
    Raises:
        ValueError: shapes do not fit, or a length is out of range.
    Source: Sakoe & Chiba 1978, section III, with equal weights and without a slope constraint.
    """
    if a.ndim != 2 or bs.ndim != 3 or a.shape[1] != bs.shape[2] or not len(a):
        raise ValueError(f"a.shape is {a.shape}, bs.shape is {bs.shape}, expected (T, D) and (U, N, D)")
    lengths = checked(bs, lengths)
    cost = np.sqrt(((a[:, None, None] - bs) ** 2).sum(axis=-1))  # (T, U, N)
    above = np.cumsum(cost[0], axis=0)  # (U, N), the row before
    for row in cost[1:]:
        here = np.empty_like(above)
        here[0] = above[0] + row[0]
        diagonal = np.minimum(above[1:], above[:-1])
        for j in range(1, len(row)):
            here[j] = row[j] + np.minimum(diagonal[j - 1], here[j - 1])
        above = here
    found: Array = above[lengths - 1, np.arange(bs.shape[1])]
    return found


def nearest_by_dtw(x: Array, lengths: Any, train: Array, train_lengths: Any, labels: Array) -> Array:
    """Labels (N,) of sequences x (T, N, D): that of the nearest training sequence under `dtw`."""
    lengths = checked(x, lengths)
    nearest = [dtw(x[: lengths[n], n], train, train_lengths).argmin() for n in range(x.shape[1])]
    found: Array = np.asarray(labels)[nearest]
    return found


class GaussianHMM(NamedTuple):
    """A hidden Markov model of K states whose frames are normal with diagonal variances."""

    log_start: Array  # (K,)
    log_move: Array  # (K, K): from row to column
    mean: Array  # (K, D)
    var: Array  # (K, D)


def log_sum(x: Array, axis: int) -> Array:
    """log sum exp x along an axis; -inf where all are."""
    peak = x.max(axis=axis, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0)
    with np.errstate(divide="ignore"):  # the logarithm of nothing is -inf
        found: Array = np.log(np.exp(x - peak).sum(axis=axis)) + peak.squeeze(axis)
    return found


def emissions(hmm: GaussianHMM, x: Array) -> Array:
    """log p(x_t | state k), (T, N, K).

    log N = -1/2 sum_d (log(2 pi var_kd) + (x_d - mean_kd)^2 / var_kd)
    """
    square = (x[:, :, None] - hmm.mean) ** 2 / hmm.var
    found: Array = -0.5 * (np.log(2 * np.pi * hmm.var) + square).sum(axis=-1)
    return found


def log_likelihood(hmm: GaussianHMM, x: Array, lengths: Any = None) -> Array:
    """log p(x), (N,): the forward algorithm in log space.

        alpha_0 = log_start + e_0;   alpha_t = log sum_j exp(alpha_(t-1, j) + log_move_jk) + e_t
        log p = log sum_k exp(alpha at the last step)

    Args:
        hmm: the model. x: (T, N, D). lengths: (N,); default all T.
    Source: Rabiner 1989, equations 19 to 21.
    """
    lengths = checked(x, lengths)
    alpha = forward_pass(hmm, emissions(hmm, x))
    return log_sum(alpha[lengths - 1, np.arange(x.shape[1])], axis=1)


def forward_pass(hmm: GaussianHMM, e: Array) -> Array:
    """alpha (T, N, K): log p(x_0 .. x_t, state at t)."""
    alpha = [hmm.log_start + e[0]]
    for step in e[1:]:
        alpha.append(log_sum(alpha[-1][:, :, None] + hmm.log_move, axis=1) + step)
    return np.stack(alpha)


def backward_pass(hmm: GaussianHMM, e: Array, lengths: Array) -> Array:
    """beta (T, N, K): log p(x_(t+1) .. the last | state at t); 0 from a sequence's last step on."""
    beta = np.zeros_like(e)
    for t in range(len(e) - 2, -1, -1):
        before = log_sum(hmm.log_move + (e[t + 1] + beta[t + 1])[:, None, :], axis=2)
        beta[t] = np.where((t + 1 < lengths)[:, None], before, 0)
    return beta


def baum_welch_step(hmm: GaussianHMM, x: Array, lengths: Any = None) -> tuple[GaussianHMM, float]:
    """One step of expectation and maximisation on many sequences.

        gamma_t(k) = p(state k at t | x);   xi(j, k) = sum_t p(j at t, k at t + 1 | x)
        start ~ gamma_0;  move_jk ~ xi_jk;  mean = average of x under gamma;  var = of (x - mean)^2

    Returns:
        The new model, and log p of all sequences under the old one; without FLOOR it never falls.
    Source: Rabiner 1989, equations 40 and 52 to 54.
    """
    lengths = checked(x, lengths)
    e = emissions(hmm, x)
    alpha, beta = forward_pass(hmm, e), backward_pass(hmm, e, lengths)
    log_p = log_sum(alpha[lengths - 1, np.arange(x.shape[1])], axis=1)
    alive = np.arange(len(x))[:, None] < lengths  # (T, N)
    gamma = np.where(alive[..., None], np.exp(alpha + beta - log_p[:, None]), 0)
    moves = alpha[:-1, :, :, None] + hmm.log_move + (e[1:] + beta[1:])[:, :, None, :] - log_p[:, None, None]
    xi = np.where(alive[1:, :, None, None], np.exp(np.minimum(moves, 0)), 0).sum(axis=(0, 1))
    start = gamma[0].sum(axis=0) + FLOOR
    weight = gamma.sum(axis=(0, 1))[:, None] + 1e-12
    mean = np.einsum("tnk,tnd->kd", gamma, x) / weight
    var = np.einsum("tnk,tnkd->kd", gamma, (x[:, :, None] - mean) ** 2) / weight
    xi = xi + FLOOR
    new = GaussianHMM(
        np.log(start / start.sum()), np.log(xi / xi.sum(axis=1, keepdims=True)), mean, np.maximum(var, FLOOR)
    )
    return new, float(log_p.sum())


def fit_hmm(
    x: Array, lengths: Any = None, *, states: int, iterations: int = 20, rng: np.random.Generator | int = 0
) -> GaussianHMM:
    """A model of K states from sequences (T, N, D), by Baum-Welch from means drawn among the frames.

    Raises:
        ValueError: more states than frames.
    """
    rng, lengths = np.random.default_rng(rng), checked(x, lengths)
    frames = x[np.arange(len(x))[:, None] < lengths].astype(np.float64)
    if not 1 <= states <= len(frames):
        raise ValueError(f"states is {states}, expected 1..{len(frames)}, the number of frames")
    uniform = np.full((states, states), -np.log(states))
    sticky = np.log(0.5 * np.eye(states) + 0.5 * np.exp(uniform))
    mean = frames[rng.choice(len(frames), states, replace=False)]
    var = np.broadcast_to(frames.var(axis=0) + FLOOR, mean.shape)
    hmm = GaussianHMM(uniform[0], sticky, mean, var)
    for _ in range(iterations):
        hmm, _ = baum_welch_step(hmm, x.astype(np.float64), lengths)
    return hmm


def checked(x: Array, lengths: Any) -> Array:
    """lengths as an array, or ValueError where they do not fit x (T, N, D)."""
    if x.ndim != 3:
        raise ValueError(f"x.shape is {x.shape}, expected (T, N, D)")
    T, N = x.shape[:2]
    lengths = np.full(N, T) if lengths is None else np.asarray(lengths)
    if lengths.shape != (N,) or not ((lengths >= 1) & (lengths <= T)).all():
        raise ValueError(f"lengths is {lengths.tolist()}, expected {N} numbers from 1 to {T}")
    return lengths
