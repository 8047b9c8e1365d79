"""Training until solved: when a race stops, and that it is one training and not several."""

import numpy as np
import pytest

from tinyconvlstm.data.algorithmic import temporal_order
from tinyconvlstm.optim import Adam
from tinyconvlstm.tasks.learn import classification
from tinyconvlstm.tasks.race import Look, every_step, lstm, race
from tinyconvlstm.train import train

PLACES = {"length": (9, 9), "first": (1, 2), "second": (4, 5)}


def model():
    return lstm(8, 3, 4, seed=0, forget_bias=1.0, last=True)


def batch(step):
    data = temporal_order(np.random.default_rng([0, step]), 5, **PLACES)
    return data.xs, data.labels


def settings(**more):
    return {"size": 5, "limit": 60, "every": 15, "lr": 0.01, "seed": 7, "name": "x", "progress": False} | more


@pytest.mark.parametrize("lr", [0.01, lambda step: 0.01 / (1 + step)])
def test_a_race_is_one_training(lr):
    looks = []

    def look(net):
        looks.append({name: value.copy() for name, value in net.params.items()})
        return Look(len(looks), False)

    raced = race(model(), classification(), batch, look, **settings(lr=lr))
    whole = model()
    schedule = lr if callable(lr) else None
    train(whole, *classification(), batch, steps=12, optimizer=Adam(0.01), schedule=schedule, clip_norm=1.0,
          progress=False)  # fmt: skip
    for name, value in whole.params.items():
        np.testing.assert_array_equal(raced.model.params[name], value)
    assert raced.curve == [(0, 1), (15, 2), (30, 3), (45, 4), (60, 5)]
    assert raced.solved is None
    assert not np.array_equal(looks[0]["1.w"], looks[1]["1.w"])


def test_a_race_stops_when_solved():
    scores = iter([Look(0, True, True), Look(1, False, True), Look(2, True, True), Look(3, True)])
    raced = race(model(), classification(), batch, lambda net: next(scores), **settings())
    assert (raced.seed, raced.solved, raced.milder) == (7, 30, 15)  # an untrained model wins nothing
    assert next(scores).score == 3


def test_the_objective_of_every_step():
    net = lstm(8, 3, 4, seed=1, forget_bias=1.0, last=False)
    xs = batch(0)[0]
    labels = np.random.default_rng(2).integers(4, size=xs.shape[:2])
    loss, saved = every_step()[0](net, (xs, labels), train=True, rng=None)
    logits = net(xs).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    slow = [-np.log(p[t, n, labels[t, n]]) for t in range(9) for n in range(5)]
    assert float(loss) == pytest.approx(np.mean(slow), rel=1e-6)
    grads = every_step()[1](net, saved)
    db = (p - np.eye(4)[labels]).sum(axis=(0, 1)) / len(slow)
    np.testing.assert_allclose(grads["1.b"], db, rtol=1e-4, atol=1e-6)
