"""Fusion of streams, streams, and the three-stream network."""

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.layers import FUSIONS
from tinyconvlstm.models import Stream, three_stream
from tinyconvlstm.models.three_stream import NAMES, ThreeStream, dropped
from tinyconvlstm.ops.activations import softmax_forward
from tinyconvlstm.ops.mean_score import mean_score_forward


def softmax(x):
    return softmax_forward(x)[0]


def random(layer, rng):
    return layer.bind({n: a + 0.3 * rng.standard_normal(a.shape) for n, a in layer.params.items()})


def oracle(name, p, hs, present):
    """Fusion sample by sample, from the equations."""
    out = []
    for n in range(present.shape[1]):
        there = [s for s in range(len(hs)) if present[s, n]]
        h = [hs[s][n] if s in there else np.zeros_like(hs[s][n]) for s in range(len(hs))]
        if name == "concat":
            out.append(p["head.w"] @ np.concatenate(h) + p["head.b"])
        elif name == "sum":
            u = sum(p[f"into.{s}.w"] @ h[s] + p[f"into.{s}.b"] for s in there)
            out.append(p["head.w"] @ (len(hs) / len(there) * u) + p["head.b"])
        elif name == "gated":
            score = p["gate.w"] @ np.concatenate(h) + p["gate.b"]
            e = np.exp(score[there])
            u = sum(
                a * np.tanh(p[f"into.{s}.w"] @ h[s] + p[f"into.{s}.b"])
                for a, s in zip(e / e.sum(), there, strict=True)
            )
            out.append(p["head.w"] @ u + p["head.b"])
        else:
            scores = [softmax((p[f"head.{s}.w"] @ h[s] + p[f"head.{s}.b"])[None])[0] for s in there]
            out.append(np.log(np.mean(scores, axis=0)))
    return np.stack(out)


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion_against_its_equation(rng, backend, name):
    layer = random(FUSIONS[name]((2, 4, 3), 5, dtype=np.float64), rng)
    hs = [rng.standard_normal((4, f)) for f in (2, 4, 3)]
    present = np.array([[1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 1]])
    y, _ = layer.to_backend(backend).forward(
        [to_backend(h, backend) for h in hs], to_backend(present, backend)
    )
    assert np.allclose(to_numpy(y), oracle(name, layer.params, hs, present), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_missing_stream_changes_nothing_whatever_stands_in_its_place(rng, name):
    layer = random(FUSIONS[name]((2, 3), 4, dtype=np.float64), rng)
    hs = [rng.standard_normal((3, f)) for f in (2, 3)]
    present = np.array([[1, 1, 0], [1, 0, 1]])
    y, saved = layer.forward(hs, present)
    dhs, _ = layer.backward(rng.standard_normal(y.shape), saved)
    assert not dhs[0][2].any()
    assert not dhs[1][1].any()
    assert dhs[0][:2].any()
    hs[0][2], hs[1][1] = np.inf, 1e30
    assert np.array_equal(layer.forward(hs, present)[0], y)


def test_mean_score_survives_extreme_logits():
    x = np.array([[[1000.0, 0.0, -1000.0]], [[-1000.0, 0.0, 1000.0]]])
    y, _ = mean_score_forward(x, np.ones((2, 1)))
    assert np.allclose(y, np.log(0.5) + np.array([[0.0, -1000.0, 0.0]]) + [[0, np.log(2), 0]], rtol=1e-12)
    y, _ = mean_score_forward(x, np.array([[1], [0]]))
    assert np.allclose(y, [[0, -1000, -2000]])
    with pytest.raises(ValueError, match="without any source"):
        mean_score_forward(x, np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"expected \(S, N, K\) and \(S, N\)"):
        mean_score_forward(x, np.zeros(2))


@pytest.fixture
def clips(rng):
    return {
        "rgb": rng.standard_normal((5, 3, 3, 8, 9)),
        "flow": rng.standard_normal((4, 3, 2, 8, 9)),
        "audio": rng.standard_normal((22, 3, 4)),
    }


def model_of(fusion, rng, **settings):
    model = three_stream(
        5, bands=4, steps=4, features=(2, 3), hidden=3, fusion=fusion, dtype=np.float64, **settings
    )
    return random(model, rng)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_streams_of_different_rates_fuse_and_all_three_get_gradients(rng, clips, fusion):
    model = model_of(fusion, rng)
    y, saved = model.forward(clips)
    dx, grads = model.backward(rng.standard_normal(y.shape), saved)
    assert y.shape == (3, 5)
    assert {name: dx[name].shape for name in NAMES} == {name: clips[name].shape for name in NAMES}
    assert all(dx[name].any() for name in NAMES)
    assert list(grads) == list(model.params)
    assert model.cost({name: x.shape for name, x in clips.items()}).rows


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("missing", NAMES)
def test_a_stream_missing_at_prediction_is_a_mask_and_a_key_alike(rng, clips, fusion, missing):
    model = model_of(fusion, rng)
    left = {name: x for name, x in clips.items() if name != missing}
    y, saved = model.forward(left)
    assert np.array_equal(y, model.forward({**left, missing: None})[0])
    masked = model.forward(clips, present={missing: np.zeros(3)})[0]
    assert np.allclose(y, masked, rtol=0, atol=1e-13)
    assert not np.allclose(y, model.forward(clips)[0])
    dx, grads = model.backward(rng.standard_normal(y.shape), saved)
    assert set(dx) == set(left)
    assert not any(g.any() for name, g in grads.items() if name.startswith(f"{missing}."))


def test_a_sample_that_lacks_a_stream_leaves_its_neighbours_alone(rng, clips):
    model = model_of("gated", rng)
    whole = model.forward(clips)[0]
    part = model.forward(clips, present={"audio": [1, 0, 1]})[0]
    assert np.allclose(part[[0, 2]], whole[[0, 2]], rtol=0, atol=1e-13)
    assert not np.allclose(part[1], whole[1])


def test_dropping_streams_in_training_never_drops_all_of_a_sample(rng):
    mask = np.ones((3, 200), bool)
    mask[0, :50] = False
    kept = dropped(mask, 0.8, rng)
    assert kept.any(axis=0).all()
    assert not (kept & ~mask).any()
    assert kept.sum() < 0.6 * mask.sum()


def test_dropping_is_seeded_and_off_outside_training(rng, clips):
    model = model_of("concat", rng, drop=0.5)
    first = model.forward(clips, train=True, rng=np.random.default_rng(1))[0]
    again = model.forward(clips, train=True, rng=np.random.default_rng(1))[0]
    assert np.array_equal(first, again)
    assert not np.allclose(first, model.forward(clips)[0])
    with pytest.raises(ValueError, match="rng is None"):
        model.forward(clips, train=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: {"sound": x["audio"]}, "expected one or more of"),
        (lambda x: {}, "expected one or more of"),
        (lambda x: {**x, "flow": x["flow"][:, :2]}, "batches of different sizes"),
    ],
)
def test_streams_that_do_not_fit_are_refused(rng, clips, change, words):
    with pytest.raises(ValueError, match=words):
        model_of("sum", rng).forward(change(clips))


def test_a_sample_without_any_stream_is_refused(rng, clips):
    for wrong in ({"flow": [1, 0]}, {"sound": [1, 1, 1]}):
        with pytest.raises(ValueError, match=r"entries, expected 3, for one of"):
            model_of("sum", rng).forward(clips, present=wrong)
    none = {name: [0, 1, 1] for name in NAMES}
    with pytest.raises(ValueError, match="without any stream"):
        model_of("sum", rng).forward(clips, present=none)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="fusion is 'mean'"):
        three_stream(3, bands=4, steps=2, fusion="mean")
    with pytest.raises(ValueError, match="drop is 1"):
        three_stream(3, bands=4, steps=2, drop=1.0)
    with pytest.raises(ValueError, match="skip is 'add'"):
        Stream(3, skip="add")
    with pytest.raises(ValueError, match="expected equal ones"):
        Stream(3, features=(4,), hidden=5, skip="sum")


def test_features_that_pass_the_lstm_by(rng):
    x = rng.standard_normal((7, 2, 4))
    plain = Stream(4, features=(3,), kernel=(3,), pool=(2,), hidden=3, dtype=np.float64)
    mean = plain.parts["conv"](x).mean(axis=0)
    h = plain(x)
    for skip, expected in (("concat", np.concatenate([h, mean], axis=1)), ("sum", h + mean)):
        stream = Stream(4, features=(3,), kernel=(3,), pool=(2,), hidden=3, skip=skip, dtype=np.float64)
        assert np.allclose(stream(x), expected, rtol=0, atol=1e-13)
        assert stream.cost(x.shape).out == expected.shape


def test_three_streams_by_hand_equal_the_named_network(rng, clips):
    named = three_stream(5, bands=4, steps=3, features=(2,), hidden=3)
    made = ThreeStream(
        Stream(3, features=(2,), hidden=3),
        Stream(2, features=(2,), hidden=3),
        Stream(4, features=(2,), hidden=3, kernel=(3,), pool=(2,)),
        classes=5,
        steps=3,
    )
    assert {n: a.shape for n, a in named.params.items()} == {n: a.shape for n, a in made.params.items()}


def test_the_clock_counts():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((8, 2, 4))
    stream = Stream(4, features=(3,), kernel=(3,), pool=(1,), hidden=3, dtype=np.float64)
    fine, conv = stream(x), stream.parts["conv"](x)
    pairs = conv.reshape(4, 2, 2, 3).mean(axis=1)
    h = stream.parts["lstm"](pairs)
    assert np.allclose(stream.forward(x, steps=4)[0], h, rtol=0, atol=1e-13)
    assert not np.allclose(fine, h)
