"""Time warping and hidden Markov models beside the enumeration of all paths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tinyconvlstm.models.classic import (
    GaussianHMM,
    baum_welch_step,
    dtw,
    fit_hmm,
    log_likelihood,
    log_sum,
    nearest_by_dtw,
)


def all_paths(T, U):
    """Every path from (0, 0) to (T - 1, U - 1) by steps (1, 1), (1, 0), (0, 1)."""
    if (T, U) == (1, 1):
        yield ((0, 0),)
        return
    for t, u in ((T - 1, U - 1), (T - 1, U), (T, U - 1)):
        if t and u:
            for path in all_paths(t, u):
                yield (*path, (T - 1, U - 1))


def test_dtw_is_the_least_over_all_paths(rng):
    a, bs, lengths = rng.standard_normal((4, 2)), rng.standard_normal((5, 3, 2)), [5, 2, 3]
    found = dtw(a, bs, lengths)
    for n, U in enumerate(lengths):
        costs = [sum(np.linalg.norm(a[i] - bs[j, n]) for i, j in path) for path in all_paths(4, U)]
        np.testing.assert_allclose(found[n], min(costs), rtol=1e-12)


def test_dtw_by_hand():
    a = np.array([[0.0], [1], [2]])
    b = np.array([0.0, 0, 1, 1, 2, 2])[:, None, None]  # the same, half as fast
    np.testing.assert_array_equal(dtw(a, b), [0])
    np.testing.assert_array_equal(dtw(a, a[::-1, None]), [4])  # 2 + 0 or 1 + .. + 2
    np.testing.assert_array_equal(dtw(a[:1], b), [6])  # one frame beside all


def test_dtw_is_symmetric_and_ignores_what_follows_the_end(rng):
    a, b = rng.standard_normal((6, 2)), rng.standard_normal((4, 2))
    np.testing.assert_allclose(dtw(a, b[:, None]), dtw(b, a[:, None]))
    padded = np.concatenate([b, np.full((3, 2), 1e6)])
    np.testing.assert_array_equal(dtw(a, padded[:, None], [4]), dtw(a, b[:, None]))


def test_the_nearest_neighbour():
    wave = np.sin(np.linspace(0, 6, 20))[:, None]
    line = np.linspace(0, 1, 20)[:, None]
    train = np.stack([wave, line], axis=1)
    x = np.stack([np.repeat(line[::2], 2, axis=0), np.repeat(wave[::2], 2, axis=0)], axis=1)
    np.testing.assert_array_equal(nearest_by_dtw(x, None, train, None, np.array([7, 3])), [3, 7])


def model(rng, K=3, D=2):
    start, move = rng.random(K), rng.random((K, K))
    return GaussianHMM(
        np.log(start / start.sum()),
        np.log(move / move.sum(axis=1, keepdims=True)),
        rng.standard_normal((K, D)),
        0.3 + rng.random((K, D)),
    )


def joint(hmm, x):
    """{path: log p(path, x)} of one sequence, written from the definition."""
    found = {}
    for path in itertools.product(range(len(hmm.mean)), repeat=len(x)):
        score = hmm.log_start[path[0]]
        for t, k in enumerate(path):
            density = np.exp(-0.5 * (x[t] - hmm.mean[k]) ** 2 / hmm.var[k]) / np.sqrt(2 * np.pi * hmm.var[k])
            score += np.log(density).sum() + (hmm.log_move[path[t - 1], k] if t else 0)
        found[path] = score
    return found


def test_the_forward_algorithm_sums_over_all_paths(rng):
    hmm, x, lengths = model(rng), rng.standard_normal((5, 3, 2)), [5, 1, 3]
    found = log_likelihood(hmm, x, lengths)
    for n, T in enumerate(lengths):
        np.testing.assert_allclose(
            found[n], np.logaddexp.reduce(list(joint(hmm, x[:T, n]).values())), rtol=1e-12
        )


def test_baum_welch_is_the_weighted_average_over_all_paths(rng):
    """Expected counts by enumeration, then the maximum likelihood of them."""
    hmm, x, lengths = model(rng), rng.standard_normal((4, 3, 2)), [4, 2, 3]
    new, log_p = baum_welch_step(hmm, x, lengths)
    K = 3
    start, move, weight = np.full(K, 1e-3), np.full((K, K), 1e-3), np.zeros(K)
    total, frames, whole = np.zeros((K, 2)), [], 0
    for n, T in enumerate(lengths):
        paths = joint(hmm, x[:T, n])
        evidence = np.logaddexp.reduce(list(paths.values()))
        whole += evidence
        for path, score in paths.items():
            p = np.exp(score - evidence)
            start[path[0]] += p
            for t, k in enumerate(path):
                weight[k] += p
                total[k] += p * x[t, n]
                frames.append((k, p, x[t, n]))
                if t:
                    move[path[t - 1], k] += p
    mean = total / weight[:, None]
    var = np.zeros((K, 2))
    for k, p, frame in frames:
        var[k] += p * (frame - mean[k]) ** 2 / weight[k]
    np.testing.assert_allclose(log_p, whole, rtol=1e-12)
    np.testing.assert_allclose(new.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(new.var, var, rtol=1e-9)
    np.testing.assert_allclose(np.exp(new.log_start), start / start.sum(), rtol=1e-9)
    np.testing.assert_allclose(np.exp(new.log_move), move / move.sum(axis=1, keepdims=True), rtol=1e-9)


def drawn(hmm, T, N, rng):
    """Sequences (T, N, D) from the model."""
    K, D = hmm.mean.shape
    x = np.zeros((T, N, D))
    for n in range(N):
        k = rng.choice(K, p=np.exp(hmm.log_start))
        for t in range(T):
            x[t, n] = hmm.mean[k] + np.sqrt(hmm.var[k]) * rng.standard_normal(D)
            k = rng.choice(K, p=np.exp(hmm.log_move[k]))
    return x


def test_training_raises_the_likelihood_and_finds_the_model(rng):
    true = GaussianHMM(
        np.log([0.8, 0.2]),
        np.log([[0.9, 0.1], [0.3, 0.7]]),
        np.array([[-2.0], [2.0]]),
        np.array([[1.0], [0.25]]),
    )
    x, lengths = drawn(true, 30, 40, rng), rng.integers(10, 31, 40)
    hmm, likelihoods = fit_hmm(x, lengths, states=2, iterations=0, rng=1), []
    for _ in range(25):
        hmm, log_p = baum_welch_step(hmm, x, lengths)
        likelihoods.append(log_p)
    assert (np.diff(likelihoods) > -1e-3 * abs(likelihoods[0])).all()
    assert likelihoods[-1] > likelihoods[0] + 50
    order = np.argsort(hmm.mean[:, 0])
    np.testing.assert_allclose(hmm.mean[order], true.mean, atol=0.15)
    np.testing.assert_allclose(hmm.var[order], true.var, atol=0.15)
    np.testing.assert_allclose(np.exp(hmm.log_move)[order][:, order], np.exp(true.log_move), atol=0.07)
    assert log_likelihood(true, x, lengths).sum() <= likelihoods[-1]  # fitted is likelier than true


def test_long_sequences_do_not_underflow(rng):
    hmm = model(rng)
    x = rng.standard_normal((3000, 2, 2))
    found = log_likelihood(hmm, x)
    assert np.isfinite(found).all()
    assert (found < -3000).all()  # exp of it is 0
    new, _ = baum_welch_step(hmm, x)
    assert all(np.isfinite(a).all() for a in new)


def test_log_sum_of_nothing():
    np.testing.assert_array_equal(
        log_sum(np.array([[-np.inf, -np.inf], [-np.inf, 3.0]]), axis=1), [-np.inf, 3]
    )


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"a.shape is \(3, 2\), bs.shape is \(4, 1, 3\)"):
        dtw(np.zeros((3, 2)), np.zeros((4, 1, 3)))
    with pytest.raises(ValueError, match=r"lengths is \[0\], expected 1 numbers from 1 to 4"):
        dtw(np.zeros((3, 2)), np.zeros((4, 1, 2)), [0])
    with pytest.raises(ValueError, match=r"states is 9, expected 1\.\.8"):
        fit_hmm(np.zeros((4, 2, 1)), states=9)
