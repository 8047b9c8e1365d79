"""Clip classifiers, frame labellers, and small networks by name."""

import numpy as np
import pytest

from tinyconvlstm.backend import to_backend, to_numpy
from tinyconvlstm.cells import ConvLSTMCell, LSTMCell
from tinyconvlstm.layers import (
    Bidirectional,
    Dense,
    GlobalPool,
    Recurrent,
    Sequential,
    TemporalAttention,
    TimeDistributed,
)
from tinyconvlstm.models import (
    FrameLabeller,
    VideoClassifier,
    cnn_lstm,
    conv3d_network,
    convlstm_classifier,
    factorised_network,
    frame_network,
    lstm_classifier,
    lstm_labeller,
)


def moved(model, rng):
    """The model with random biases too, so that nothing is symmetric."""
    return model.bind({n: a + 0.2 * rng.standard_normal(a.shape) for n, a in model.params.items()})


MODELS = {
    "cnn_lstm": lambda: cnn_lstm(2, 3, features=(2, 3), hidden=4, dtype=np.float64),
    "convlstm": lambda: convlstm_classifier(2, 3, features=(3, 2), stride=2, dtype=np.float64),
    "attention": lambda: VideoClassifier(
        [Recurrent(ConvLSTMCell(2, 3, (3, 3), dtype=np.float64))],
        Sequential(GlobalPool("avg"), Dense(3, 3, dtype=np.float64)),
        pool=TemporalAttention(3, 4, dtype=np.float64),
    ),
    "bidirectional": lambda: convlstm_classifier(2, 3, features=(3, 2), bidirectional=True, dtype=np.float64),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_padded_batch_gives_what_its_clips_give_alone(rng, backend, name):
    model = moved(MODELS[name](), rng).to_backend(backend)
    x, lengths = rng.standard_normal((5, 3, 2, 9, 8)), [5, 2, 4]
    whole, saved = model.forward(to_backend(x, backend), lengths=lengths)
    dy = rng.standard_normal((3, 3))
    dx, grads = model.backward(to_backend(dy, backend), saved)
    total = dict.fromkeys(grads, 0)
    for n, length in enumerate(lengths):
        alone, saved = model.forward(to_backend(x[:length, n : n + 1], backend))
        assert np.allclose(to_numpy(whole)[n], to_numpy(alone)[0], rtol=0, atol=1e-12)
        dx_alone, own = model.backward(to_backend(dy[n : n + 1], backend), saved)
        assert np.allclose(to_numpy(dx)[:length, n], to_numpy(dx_alone)[:, 0], rtol=0, atol=1e-12)
        assert not to_numpy(dx)[length:, n].any()
        total = {key: total[key] + to_numpy(own[key]) for key in own}
    assert all(np.allclose(to_numpy(grads[key]), total[key], rtol=0, atol=1e-11) for key in grads)


@pytest.mark.parametrize("network", [conv3d_network, factorised_network])
def test_networks_over_volumes(rng, network):
    model = network(2, 3, features=(2, 4), rng=1)
    x = rng.standard_normal((6, 2, 2, 12, 9)).astype(np.float32)
    y, saved = model.forward(x)
    dx, grads = model.backward(y, saved)
    assert y.shape == (2, 3)
    assert dx.shape == x.shape
    assert list(grads) == list(model.params)
    assert y.dtype == dx.dtype == np.float32
    assert model.cost(x.shape).out == (2, 3)
    assert not np.allclose(y, model(x[::-1]))  # order in time matters


def test_the_last_valid_step_is_read_and_not_the_last():
    model = lstm_classifier(3, 4, (5,), dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((6, 2, 3))
    cut = model.forward(x, lengths=[2, 6])[0]
    x[2:, 0] = 1e3
    assert np.array_equal(model.forward(x, lengths=[2, 6])[0], cut)
    assert not np.allclose(model(x)[0], cut[0])


def test_logits_are_not_probabilities_and_probabilities_sum_to_one(rng):
    model = moved(lstm_classifier(3, 4, (5, 6), dtype=np.float64), rng)
    x = rng.standard_normal((6, 2, 3))
    p = model.probabilities(x)
    assert np.allclose(p.sum(axis=1), 1, rtol=0, atol=1e-14)
    assert not np.allclose(model(x).sum(axis=1), 1)
    logits = model(x)
    assert np.allclose(p, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("name", ["cnn_lstm", "convlstm"])
def test_probabilities_over_time_are_those_of_the_clip_so_far(rng, name):
    model = moved(MODELS[name](), rng)
    x = rng.standard_normal((4, 2, 2, 9, 8))
    over = model.over_time(x)
    assert over.shape == (4, 2, 3)
    for t in range(4):
        assert np.allclose(over[t], model.probabilities(x[: t + 1]), rtol=0, atol=1e-12)


def test_probabilities_over_time_need_a_model_that_reads_forwards(rng):
    for name in ("bidirectional", "attention"):
        with pytest.raises(ValueError, match="needs the whole clip"):
            MODELS[name]().over_time(rng.standard_normal((3, 1, 2, 8, 8)))


def test_both_forms_of_the_labeller(rng):
    per_frame, per_clip = lstm_labeller(3, 5), lstm_classifier(3, 5, (128, 64))
    assert [a.shape for a in per_frame.params.values()] == [a.shape for a in per_clip.params.values()]
    x = rng.standard_normal((7, 2, 3)).astype(np.float32)
    assert per_frame(x).shape == (7, 2, 5)
    assert per_clip(x).shape == (2, 5)
    same = per_frame.bind(dict(zip(per_frame.params, per_clip.params.values(), strict=True)))
    assert np.allclose(same(x)[-1], per_clip(x), rtol=0, atol=1e-6)


def test_time_distributed_on_a_last_step_names_the_cause_and_both_ways_out(rng):
    wrong = Sequential(
        Recurrent(LSTMCell(3, 128)),
        Recurrent(LSTMCell(128, 64), return_sequences=False),
        TimeDistributed(Dense(64, 5)),
    )
    with pytest.raises(ValueError, match=r"Drop TimeDistributed .* return_sequences=True"):
        wrong.forward(rng.standard_normal((7, 2, 3)).astype(np.float32))


@pytest.mark.parametrize(
    ("recurrent", "words"),
    [
        ([], "recurrent is empty"),
        ([Recurrent(LSTMCell(2, 3))], r"recurrent\[0\] has return_sequences=True, expected False"),
        (
            [
                Recurrent(LSTMCell(2, 3), return_sequences=False),
                Recurrent(LSTMCell(3, 3), return_sequences=False),
            ],
            r"recurrent\[0\] has return_sequences=False, expected True",
        ),
        ([Recurrent(LSTMCell(2, 3), return_sequences=False, return_state=True)], "return_state=True"),
    ],
)
def test_layers_that_do_not_fit_are_refused(recurrent, words):
    with pytest.raises(ValueError, match=words):
        VideoClassifier(recurrent, Dense(3, 2))


def test_a_labeller_refuses_a_layer_that_gives_one_step():
    with pytest.raises(ValueError, match="a sequence is needed"):
        FrameLabeller([Recurrent(LSTMCell(2, 3), return_sequences=False)], Dense(3, 2))


def test_lengths_reach_every_layer_over_time_within_a_chain(rng):
    chain = Sequential(
        Recurrent(ConvLSTMCell(1, 2, (3, 3), dtype=np.float64)),
        Bidirectional(
            ConvLSTMCell(2, 2, (3, 3), dtype=np.float64),
            ConvLSTMCell(2, 2, (3, 3), dtype=np.float64),
            return_sequences=False,
        ),
        GlobalPool("avg"),
    )
    x = rng.standard_normal((4, 2, 1, 5, 4))
    y = chain.forward(x, lengths=[3, 4])[0]
    assert np.allclose(y[0], chain(x[:3, :1])[0], rtol=0, atol=1e-12)


def test_summary_counts_every_part():
    model = cnn_lstm(1, 3, features=(4, 8), hidden=16)
    summary = model.summary((10, 2, 1, 32, 32))
    assert summary.params == model.count == 4 * 9 + 4 + 8 * 4 * 9 + 8 + 4 * 16 * (8 + 16 + 1) + 16 * 3 + 3
    macs = 20 * (1024 * 4 * 9 + 256 * 8 * 4 * 9) + 20 * 4 * 16 * 24 + 2 * 16 * 3
    assert summary.macs == macs


def test_a_frame_network_that_keeps_places_knows_where_things_are():
    shifted = np.zeros((2, 1, 16, 16), np.float32)
    shifted[0, 0, 5:8, 5:8] = shifted[1, 0, 9:12, 9:12] = 1
    blind, seeing = frame_network(1, (2, 3)), frame_network(1, (2, 3), keep_places=True)
    assert blind(shifted).shape == (2, 3)
    assert np.allclose(*blind(shifted), atol=1e-6)
    assert seeing(shifted).shape == (2, 3 * 4 * 4)
    assert not np.allclose(*seeing(shifted))
    model = cnn_lstm(1, 3, features=(2, 3), hidden=4, size=(16, 18))
    assert model(np.zeros((5, 2, 1, 16, 18), np.float32)).shape == (2, 3)
