"""OpenSTL's ConvLSTM: published counts and operations, its forecasts by hand, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.bptt import scan
from tinyconvlstm.cells import ConvLSTMCell
from tinyconvlstm.models import OPENSTL_2023, OpenSTLForecaster, openstl_2023
from tinyconvlstm.models.openstl import openstl_counts
from tinyconvlstm.ops.losses import mse_backward, mse_forward
from tinyconvlstm.optim import Adam

F64 = {"dtype": np.float64}
# Exact counts, all and live; what is published in millions; frames read and forecast; published GMACs.
PUBLISHED = {
    "ConvLSTM-S-mmnist": (15_083_520, 11_675_648, "15.0", 10, 10, "56.8"),
    "ConvLSTM-L-mmnist": (33_782_784, 26_115_072, "33.8", 10, 10, "127.0"),
    "ConvLSTM-S-mfmnist": (15_083_520, 11_675_648, "15.0", 10, 10, "56.8"),
    "ConvLSTM-L-mfmnist": (33_782_784, 26_115_072, "33.8", 10, 10, "127.0"),
    "ConvLSTM-S-mmnist-cifar": (15_497_216, 12_089_344, "15.5", 10, 10, "58.8"),
    "ConvLSTM-L-mmnist-cifar": (34_403_328, 26_735_616, "34.4", 10, 10, "130.0"),
    "ConvLSTM-S-taxibj": (14_980_096, 11_572_224, "14.98", 4, 4, "20.74"),
    "ConvLSTM-S-kth": (14_928_384, 11_520_512, "14.9", 10, 20, "1368.0"),
    "ConvLSTM-S-kitticaltech": (15_031_808, 11_623_936, "15.0", 10, 1, "595.0"),
    "ConvLSTM-S-human": (15_497_216, 12_089_344, "15.5", 4, 4, "347.0"),
    "ConvLSTM-S-weather-uv10": (14_980_096, 11_572_224, "14.98", 12, 12, "136"),
    "ConvLSTM-S-weather-mv": (15_497_216, 12_089_344, "15.50", 4, 4, "43.33"),
    "ConvLSTM-S-weather-1.40625": (15_083_520, 11_675_648, "15.08", 12, 12, "550"),
}


def settings_of(name):
    return {k: v for k, v in OPENSTL_2023[name].items() if k != "features"}


def near(number, printed):
    """Whether a number is a printed one, rounded or cut to its digits."""
    return abs(number - float(printed)) <= 10.0 ** -len(printed.partition(".")[2])


def test_published_presets_are_all_named():
    assert PUBLISHED.keys() == OPENSTL_2023.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_and_operations_are_the_published_ones(name):
    total, live, millions, observed, horizon, gmacs = PUBLISHED[name]
    features, settings = OPENSTL_2023[name]["features"], settings_of(name)
    assert openstl_counts(features, **settings) == (total, live)
    assert near(total / 1e6, millions)
    positions = np.prod([n // settings["patch"] for n in settings["size"]])
    np.testing.assert_allclose(live * positions * (observed + horizon - 1) / 1e9, float(gmacs), rtol=2.5e-3)


def test_dead_weights_of_the_published_models():
    assert PUBLISHED["ConvLSTM-S-mmnist"][0] - PUBLISHED["ConvLSTM-S-mmnist"][1] == 3_407_872
    assert {total - live for name, (total, live, *_) in PUBLISHED.items() if "-S-" in name} == {3_407_872}
    assert {total - live for name, (total, live, *_) in PUBLISHED.items() if "-L-" in name} == {7_667_712}


@pytest.mark.parametrize("name", ["ConvLSTM-S-mmnist", "ConvLSTM-L-mmnist"])
def test_built_models_have_the_counts(name):
    model = openstl_2023(name)
    total, live, *_ = PUBLISHED[name]
    assert model.count == total
    assert sum(a.size for n, a in model.params.items() if not n.startswith("unused.")) == live
    shape = (10, 1, 1, 64, 64)
    assert model.cost(shape, horizon=10).macs == live * 256 * 19
    assert model.cost(shape, horizon=10).out == (19, 1, 1, 64, 64)


def test_counts_by_arithmetic_equal_built_models():
    for settings in (
        {"size": (6,), "channels": 3, "patch": 3, "kernel": 1},
        {"size": (4, 6), "patch": 2, "kernel": 3},
    ):
        for features in ((3,), (2, 5, 3)):
            model = OpenSTLForecaster(features, **settings)
            live = sum(a.size for n, a in model.params.items() if not n.startswith("unused."))
            assert openstl_counts(features, **settings) == (model.count, live)


def small(features=(3, 2), **settings):
    model = OpenSTLForecaster(
        features, **{"channels": 2, "size": (4, 6), "patch": 2, "kernel": 3, **F64, **settings}
    )
    rng = np.random.default_rng(5)
    return model.bind({n: a + 0.3 * rng.standard_normal(a.shape) for n, a in model.params.items()})


def by_hand(model, x, horizon, truth=None):
    """Frame by frame, with cells that have a bias of zero."""
    frames = [model.to_patches(frame[None])[0][0] for frame in x]
    known = [] if truth is None else [model.to_patches(frame[None])[0][0] for frame in truth]
    cells, states, ys, y = [], [], [], None
    for k in range(model.cells):
        own = model.parts[str(k)]
        cell = ConvLSTMCell(own.channels, own.features, own.kernel, **F64)
        cells.append(cell.bind({**own.params, "b": np.zeros(4 * own.features)}))
        states.append(None)
    for t in range(len(x) + horizon - 1):
        if t < len(x):
            h = frames[t]
        else:
            h = known[t - len(x)] if known else y
        for k, cell in enumerate(cells):
            _, states[k], _ = scan(cell, h[None], states[k])
            h = states[k].h
        y = model.parts["head"](h)
        ys.append(model.to_frames(y[None])[0][0])
    return np.stack(ys)


@pytest.mark.parametrize("horizon", [1, 3])
def test_forecasts_equal_a_roll_out_by_hand(horizon, backend, rng):
    model, x = small(), rng.random((3, 2, 2, 4, 6))
    y, _ = model.to_backend(backend).forward(to_backend(x, backend), horizon=horizon)
    expected = by_hand(model, x, horizon)
    assert y.shape == expected.shape == (2 + horizon, 2, 2, 4, 6)
    np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(model.predict(x, horizon), model.forward(x, horizon=horizon)[0][2:])


def test_truth_takes_the_place_of_forecasts(rng):
    model, x, truth = small(), rng.random((3, 2, 2, 4, 6)), rng.random((3, 2, 2, 4, 6))
    y, _ = model.forward(x, horizon=3, truth=truth, truth_rate=1.0)
    np.testing.assert_allclose(y, by_hand(model, x, 3, truth), rtol=1e-12, atol=1e-13)
    closed, _ = model.forward(x, horizon=3, truth=truth)  # a rate of 0: the truth is not read
    np.testing.assert_array_equal(closed, model.forward(x, horizon=3)[0])
    some, _ = model.forward(x, horizon=3, truth=truth, truth_rate=0.5, rng=np.random.default_rng(8))
    coins = np.random.default_rng(8).random((2, 2)) < 0.5
    assert coins[0].any()
    assert not coins[0].all()
    mixed = [y[3, n] if coins[0, n] else closed[3, n] for n in range(2)]
    np.testing.assert_array_equal(some[3], np.stack(mixed))


def test_what_is_unused_has_a_gradient_of_zero(rng):
    model, x = small(), rng.random((3, 2, 2, 4, 6))
    y, saved = model.forward(x, horizon=2)
    _, grads = model.backward(rng.standard_normal(y.shape), saved)
    assert grads.keys() == model.params.keys()
    assert all(grads[n].any() != n.startswith("unused.") for n in grads)
    assert all(grads[n].shape == a.shape for n, a in model.params.items())


def test_it_learns_a_moving_bar():
    """One bar that moves a pixel a frame: thirty steps of Adam more than halve the error."""
    model = OpenSTLForecaster((8, 8), size=(8,), patch=1, kernel=3, rng=3)
    eye = np.eye(8, dtype=np.float32)
    clips = np.stack([np.stack([eye[(s + t) % 8] for s in range(8)]) for t in range(8)])[
        :, :, None
    ]  # (T, N, 1, 8)
    optimizer, losses, params = Adam(lr=0.02), [], model.params
    for _ in range(30):
        y, saved = model.forward(clips[:4], horizon=4)
        loss, loss_saved = mse_forward(y, clips[1:])
        losses.append(float(loss))
        _, grads = model.backward(mse_backward(np.float32(1), loss_saved), saved)
        optimizer.update(params, grads)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": (2, 3)}, r"kernel is \(2, 3\), expected odd sizes"),
        ({"patch": 4}, "patch is 4, expected a divisor"),
        ({"size": ()}, r"kernel is \(\), expected odd sizes"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"horizon": 0}, "horizon is 0"),
        ({"truth_rate": 0.5}, "above 0 only with truth"),
        (
            {"truth": np.zeros((2, 2, 2, 4, 6)), "truth_rate": 0.5},
            r"truth has \(2, 2\) frames and clips, expected \(3, 2\)",
        ),
        (
            {"truth": np.zeros((3, 2, 1, 4, 6))},
            r"truth has shape \(3, 2, 1, 4, 6\), expected \(T, N, 2, 4, 6\)",
        ),
        ({"truth": np.zeros((3, 2, 2, 4, 6)), "truth_rate": 0.5}, "rng is None"),
    ],
)
def test_arguments_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message):
        small().forward(np.zeros((3, 2, 2, 4, 6)), **{"horizon": 3, **given})


def test_unknown_preset():
    with pytest.raises(ValueError, match="name is 'ConvLSTM-XL', expected one of"):
        openstl_2023("ConvLSTM-XL")
