"""The encoder-forecaster: published counts, its unrolling, feeding, patches and refusals."""

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.bptt import scan
from tinyconvlstm.models import SHI_2015, Forecaster, shi_2015
from tinyconvlstm.models.objective import forecast_loss_backward, forecast_loss_forward
from tinyconvlstm.models.storage import parameter_count
from tinyconvlstm.ops.activations import sigmoid

F64 = {"dtype": np.float64}
COUNTS = {  # Shi et al. 2015, table 1
    "FC-LSTM-2048-2048": 142_667_776,
    "ConvLSTM-5x5-5x5-256": 13_524_496,
    "ConvLSTM-5x5-5x5-128-128": 10_042_896,
    "ConvLSTM-5x5-5x5-128-64-64": 7_585_296,
    "ConvLSTM-9x9-1x1-128-128": 11_550_224,
    "ConvLSTM-9x9-1x1-128-64-64": 8_830_480,
}


def small(features=(3, 2), **settings):
    model = Forecaster(features, **{"size": (4, 6), "patch": 2, "kernel": 3, **F64, **settings})
    rng = np.random.default_rng(5)
    return model.bind({n: a + 0.3 * rng.standard_normal(a.shape) for n, a in model.params.items()})


@pytest.fixture
def frames(rng):
    return rng.random((7, 2, 1, 4, 6))


def test_published_counts_are_all_named():
    assert COUNTS.keys() == SHI_2015.keys()
    assert {name: parameter_count(**{"patch": 4, **SHI_2015[name]}) for name in COUNTS} == COUNTS


@pytest.mark.parametrize("name", [name for name in COUNTS if "128-64-64" in name])
def test_published_counts_of_built_models(name):
    assert shi_2015(name).count == COUNTS[name]


def test_counts_by_arithmetic_equal_built_models():
    for settings in (
        {"features": (3, 2), "size": (4, 6), "patch": 2},
        {"features": (3,), "size": (4, 6), "kernel": None},
        {"features": (3, 2), "size": (8,), "kernel": 3, "state_kernel": 1, "peephole": "map", "feed": True},
        {
            "features": (2, 2),
            "size": (4, 6),
            "kernel": (3, 5),
            "peephole": None,
            "head": "last",
            "channels": 2,
        },
    ):
        assert parameter_count(**settings) == Forecaster(**settings).count


def test_unknown_preset():
    with pytest.raises(ValueError, match="name is 'ConvLSTM-1x1'"):
        shi_2015("ConvLSTM-1x1")


def test_first_forecaster_layer_has_no_input():
    names = set(small().params)
    assert "forecaster.0.w_x" not in names
    assert {"encoder.0.w_x", "forecaster.1.w_x", "forecaster.0.w_h", "forecaster.0.b"} <= names
    assert "forecaster.0.w_x" in small(feed=True).params


@pytest.mark.parametrize("feed", [False, True])
def test_logits_equal_a_roll_out_by_hand(feed, frames):
    """Layer by layer and step by step, with project and step, from the encoder's final states."""
    model, past = small(feed=feed), frames[:4]
    sequence, states = model.to_patches(past)[0], []
    patches = sequence
    for k in range(2):
        sequence, state, _ = scan(model.parts[f"encoder.{k}"], sequence)
        states.append(state)
    fed, by_hand = patches[-1], []
    for _ in range(3):
        x = fed if feed else np.empty((2, 0, 2, 3))
        for k in range(2):
            cell = model.parts[f"forecaster.{k}"]
            zs, _ = cell.project(x[None])
            states[k], _ = cell.step(zs[0], states[k])
            x = states[k].h
        z, _ = model.parts["head"].forward(np.concatenate([s.h for s in states], axis=1))
        fed = sigmoid(z)
        by_hand.append(z)
    logits, _ = model.forward(past, horizon=3)
    np.testing.assert_allclose(logits, model.to_frames(np.stack(by_hand))[0], atol=1e-12)


def test_patches_are_space_to_depth_and_back(frames):
    model = small()
    patches, _ = model.to_patches(frames)
    assert patches.shape == (7, 2, 4, 2, 3)
    np.testing.assert_array_equal(model.to_frames(patches)[0], frames)
    np.testing.assert_array_equal(patches[3, 1, :, 1, 2], frames[3, 1, 0, 2:4, 4:6].ravel())


def test_feeding_the_truth_the_forecast_or_a_mixture(frames):
    model, past, truth = small(feed=True), frames[:4], frames[4:]
    closed = model.forward(past, horizon=3)[0]
    np.testing.assert_array_equal(model.forward(past, horizon=3, truth=truth, truth_rate=0.0)[0], closed)
    teacher = model.forward(past, horizon=3, truth=truth, truth_rate=1.0)[0]
    np.testing.assert_array_equal(teacher[0], closed[0])  # both begin with the last observed frame
    assert np.abs(teacher[1:] - closed[1:]).max() > 1e-6
    itself = model.forward(past, horizon=3, truth=sigmoid(closed), truth_rate=1.0)[0]
    np.testing.assert_allclose(itself, closed, atol=1e-13)  # teaching it its own forecast is the closed loop
    mixed = [
        model.forward(past, horizon=3, truth=truth, truth_rate=0.5, rng=np.random.default_rng(s))[0]
        for s in range(8)
    ]
    again = model.forward(past, horizon=3, truth=truth, truth_rate=0.5, rng=np.random.default_rng(2))[0]
    np.testing.assert_array_equal(again, mixed[2])
    second = np.stack([m[1] for m in mixed])  # step 1 has seen one coin: each clip is one of two
    for n in range(2):
        is_truth = [np.allclose(s[n], teacher[1, n]) for s in second]
        is_closed = [np.allclose(s[n], closed[1, n]) for s in second]
        assert all(a != b for a, b in zip(is_truth, is_closed, strict=True))
        assert 0 < sum(is_truth) < 8
    with pytest.raises(ValueError, match="rng is None"):
        model.forward(past, horizon=3, truth=truth, truth_rate=0.5)


def test_horizon_is_free_and_forecasts_agree_where_they_overlap(frames):
    for feed in (False, True):
        model = small(feed=feed)
        longer = model.forward(frames[:3], horizon=6)[0]
        np.testing.assert_allclose(model.forward(frames[:3], horizon=2)[0], longer[:2], atol=1e-13)


def test_predict_is_the_sigmoid_of_the_logits_in_any_batches(frames):
    model = small()
    whole = model.predict(frames, 3)
    np.testing.assert_allclose(model.predict(frames, 3, clips=1), whole, atol=1e-14)
    np.testing.assert_allclose(whole, sigmoid(model.forward(frames, horizon=3)[0]))


@pytest.mark.parametrize("size", [(6,), (4, 2, 2)])
def test_one_and_three_spatial_axes(size, rng):
    model = small((2,), size=size)
    assert model.forward(rng.random((2, 3, 1, *size)), horizon=2)[0].shape == (2, 3, 1, *size)


def test_prior_is_the_first_forecast_s_mean():
    model = Forecaster((4,), size=(8, 8), kernel=3, prior=0.05)
    assert np.mean(model.predict(np.zeros((2, 1, 1, 8, 8), np.float32), 3)) == pytest.approx(0.05, rel=1e-4)


def test_fc_lstm_flattens_frames(rng):
    model = small((5,), kernel=None)
    assert model.params["encoder.0.w_x"].shape == (20, 24)
    assert model.forward(rng.random((2, 3, 1, 4, 6)), horizon=2)[0].shape == (2, 3, 1, 4, 6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": ()}, "features is"),
        ({"features": (0,)}, "features is 0"),
        ({"patch": 3}, "patch is 3, expected a divisor"),
        ({"head": "first"}, "head is 'first'"),
        ({"prior": 1.0}, "prior is 1.0"),
        ({"kernel": (3, 3, 3)}, "kernel is"),
        ({"peephole": "matrix"}, "peephole is 'matrix'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Forecaster(**{"features": (2,), "size": (4, 4), **settings})


def test_arguments_are_checked(frames):
    model, fed = small(), small(feed=True)
    with pytest.raises(ValueError, match=r"x has shape .*, expected \(T, N, 1, 4, 6\)"):
        model.forward(frames[..., :5])
    with pytest.raises(ValueError, match="horizon is 0"):
        model.forward(frames, horizon=0)
    with pytest.raises(ValueError, match="truth_rate is 2"):
        fed.forward(frames, truth=frames, truth_rate=2)
    with pytest.raises(ValueError, match="needs truth"):
        fed.forward(frames, truth_rate=0.5)
    with pytest.raises(ValueError, match="needs truth"):
        model.forward(frames, truth=frames, truth_rate=0.5)
    with pytest.raises(ValueError, match="truth has"):
        fed.forward(frames, horizon=3, truth=frames, truth_rate=1)
    with pytest.raises(ValueError, match="observed is 7"):
        forecast_loss_forward(model, frames, observed=7)


def test_the_loss_runs_on_every_backend(backend, frames):
    model = small(feed=True)
    there = model.to_backend(backend)
    moved = to_backend(frames, backend)
    expected, saved = forecast_loss_forward(model, frames, observed=4, train=True, truth_rate=1.0)
    loss, saved_there = forecast_loss_forward(there, moved, observed=4, train=True, truth_rate=1.0)
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)
    grads, found = forecast_loss_backward(model, saved), forecast_loss_backward(there, saved_there)
    assert grads.keys() == found.keys() == model.params.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(to_numpy(found[name]), grad, atol=1e-13, err_msg=name)


def test_float32_stays_float32(frames):
    model = small().astype(np.float32)
    logits, saved = model.forward(frames.astype(np.float32), horizon=2)
    dx, grads = model.backward(logits, saved)
    assert {logits.dtype, dx.dtype, *(g.dtype for g in grads.values())} == {np.dtype("float32")}
