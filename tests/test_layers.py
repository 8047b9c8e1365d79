"""Layers: what they mean, beyond their gradients, which the zoo checks."""

import threading

import numpy as np
import pytest

from tinyconvlstm.backend import BackendError, to_backend, to_numpy
from tinyconvlstm.bptt import scan, scan_backward
from tinyconvlstm.cells import ConvLSTMCell, GRUCell, LSTMCell, RNNCell
from tinyconvlstm.layers import (
    Activation,
    BatchNorm,
    Bidirectional,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalPool,
    GroupNorm,
    Pool,
    Recurrent,
    Sequential,
    TimeDistributed,
)
from tinyconvlstm.ops.gates import LSTMState

F64 = {"dtype": np.float64}


def small_net():
    return Sequential(Conv(2, 3, 3, rng=1, **F64), Activation("tanh"), Flatten(), Dense(60, 4, rng=2, **F64))


def test_parameters_are_named_by_place_and_are_references(rng):
    net = small_net()
    assert list(net.params) == ["0.w", "0.b", "3.w", "3.b"]
    assert net.count == 3 * 2 * 9 + 3 + 60 * 4 + 4
    x = rng.standard_normal((2, 2, 5, 4))
    before = net(x)
    net.params["3.b"] += 1.0  # in place, as optimisers do
    np.testing.assert_allclose(net(x), before + 1)
    named = Sequential({"front": Dense(2, 3), "back": Dense(3, 1)})
    assert list(named.params) == ["front.w", "front.b", "back.w", "back.b"]


def test_sequential_is_the_chain_of_its_layers(rng):
    net, x = small_net(), rng.standard_normal((2, 2, 5, 4))
    y, saved = net.forward(x)
    by_hand = x
    for layer in net.parts.values():
        by_hand = layer(by_hand)
    np.testing.assert_array_equal(y, by_hand)
    dx, grads = net.backward(rng.standard_normal(y.shape), saved)
    assert dx.shape == x.shape
    assert list(grads) == list(net.params)


def test_bind_astype_and_backends_copy(rng, backend):
    net = small_net()
    moved = net.astype(np.float32).to_backend(backend)
    assert all(a.dtype == np.float32 for a in moved.params.values())
    x = rng.standard_normal((2, 2, 5, 4))
    y = moved(to_backend(x.astype(np.float32), backend))
    np.testing.assert_allclose(to_numpy(y), net(x), atol=1e-5)
    moved.params["3.b"] += 1
    assert not np.any(net.params["3.b"])  # the original has its own arrays


def test_arrays_that_do_not_fit_are_refused():
    net = small_net()
    good = dict(net.params)
    with pytest.raises(ValueError, match=r"missing \['3.b'\], unknown \['bias'\]"):
        net.bind({("bias" if n == "3.b" else n): a for n, a in good.items()})
    with pytest.raises(ValueError, match=r"3.b has shape \(5,\), expected \(4,\)"):
        net.bind({**good, "3.b": np.zeros(5)})


def test_mixed_backends_name_both_sides(cupy_standin):
    layer = Dense(3, 2)
    with pytest.raises(BackendError, match=r"numpy.*cupy|cupy.*numpy"):
        layer(to_backend(np.ones((2, 3), np.float32), "cupy"))


def test_mixed_dtypes_and_channels_are_refused(rng):
    x = rng.standard_normal((2, 2, 5, 4))
    with pytest.raises(TypeError, match="x is float64 and w is float32"):
        Conv(2, 3, 3)(x)
    with pytest.raises(ValueError, match="x has 2 channels, w expects 4"):
        Conv(4, 3, 3, **F64)(x)
    with pytest.raises(ValueError, match="groups is 3"):
        Conv(4, 6, 3, groups=3)
    with pytest.raises(ValueError, match="expected one of"):
        Activation("swish")
    with pytest.raises(ValueError, match="'max' or 'avg'"):
        Pool("median", 2)
    with pytest.raises(ValueError, match="'max' or 'avg'"):
        GlobalPool("median")
    with pytest.raises(ValueError, match="rate is 1"):
        Dropout(1)
    with pytest.raises(ValueError, match="groups is 3"):
        GroupNorm(4, 3)


def test_batch_norm_moves_its_statistics_only_when_told(rng):
    layer, x = BatchNorm(3, momentum=0.2, **F64), 2 + 3 * rng.standard_normal((4, 3, 5))
    _, saved = layer.forward(x, train=True)
    assert not layer.buffers["mean"].any()
    net = Sequential(TimeDistributed(layer))
    _, saved = net.forward(x[None], train=True)
    net.update_buffers(saved)
    np.testing.assert_allclose(layer.buffers["mean"], 0.2 * x.mean((0, 2)))
    np.testing.assert_allclose(layer.buffers["var"], 0.8 + 0.2 * x.var((0, 2), ddof=1))
    expected = (x - layer.buffers["mean"][:, None]) / np.sqrt(layer.buffers["var"][:, None] + layer.eps)
    np.testing.assert_allclose(layer(x), expected)
    _, inference = layer.forward(x)
    kept = layer.buffers["mean"].copy()
    layer.update_buffers(inference)  # prediction moves nothing
    np.testing.assert_array_equal(layer.buffers["mean"], kept)
    assert set(net.arrays) == {f"0.layer.{n}" for n in ("gamma", "beta", "mean", "var")}


def test_dropout_acts_in_training_only_and_replays(rng):
    layer, x = Dropout(0.5), rng.standard_normal((50, 40))
    np.testing.assert_array_equal(layer(x), x)
    y, saved = layer.forward(x, train=True, rng=np.random.default_rng(3))
    again, _ = layer.forward(x, train=True, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(y, again)
    dropped = y == 0
    assert 0.4 < dropped.mean() < 0.6
    np.testing.assert_allclose(y[~dropped], 2 * x[~dropped])
    np.testing.assert_array_equal(layer.backward(x, saved)[0] == 0, dropped)
    np.testing.assert_array_equal(layer.backward(x, None)[0], x)
    with pytest.raises(ValueError, match="rng is None"):
        layer.forward(x, train=True)
    with pytest.raises(ValueError, match="rng is None"):
        Recurrent(RNNCell(40, 2, **F64), recurrent_dropout=0.1).forward(x[None], train=True)


@pytest.mark.parametrize("layer", [TimeDistributed(Dense(3, 2)), Recurrent(LSTMCell(3, 2))])
def test_a_lost_time_axis_says_how_to_get_it_back(layer):
    with pytest.raises(ValueError, match="return_sequences=True") as caught:
        layer.forward(np.zeros((5, 3), np.float32)) if isinstance(layer, TimeDistributed) else layer.cost(
            (5, 3)
        )
    assert "Drop" in str(caught.value)
    assert "no time axis" in str(caught.value)


def test_both_correct_forms_of_a_labelled_sequence(rng):
    xs = rng.standard_normal((6, 2, 3))
    last = Sequential(Recurrent(LSTMCell(3, 4, **F64), return_sequences=False), Dense(4, 5, **F64))
    every = Sequential(Recurrent(LSTMCell(3, 4, **F64)), TimeDistributed(Dense(4, 5, **F64)))
    assert last(xs).shape == (2, 5)
    assert every(xs).shape == (6, 2, 5)
    np.testing.assert_allclose(every(xs)[-1], last(xs))


def test_all_four_returns_and_gradients_at_once(rng):
    cell, xs = LSTMCell(3, 2, rng=4, **F64), rng.standard_normal((5, 2, 3))
    ys, state, tape = scan(cell, xs, lengths=[5, 3])
    dys, dh, dc = (rng.standard_normal(a.shape) for a in (ys, state.h, state.c))
    for sequences in (True, False):
        for with_state in (True, False):
            layer = Recurrent(cell, return_sequences=sequences, return_state=with_state)
            y, saved = layer.forward(xs, lengths=[5, 3])
            shown = y[0] if with_state else y
            np.testing.assert_array_equal(shown, ys if sequences else state.h)
            if with_state:
                np.testing.assert_array_equal(y[1].c, state.c)
            d = dys if sequences else dh
            dstate = LSTMState(dh, dc) if with_state else LSTMState(None, None)
            dxs, d0, grads = layer.backward_with_state((d, dstate) if with_state else d, saved)
            total = dstate if sequences else LSTMState(2 * dh if with_state else dh, dstate.c)
            expected = scan_backward(cell, dys if sequences else None, total, tape)
            np.testing.assert_allclose(dxs, expected[0], atol=1e-14)
            assert d0 is None  # the scan began at rest: zero is a constant
            assert expected[1] is None
            np.testing.assert_allclose(grads["w_h"], expected[2]["w_h"], atol=1e-14)


def test_bidirectional_equals_two_runs(rng):
    one, two = LSTMCell(3, 2, rng=1, **F64), GRUCell(3, 4, rng=2, **F64)
    xs, lengths = rng.standard_normal((5, 3, 3)), [5, 2, 4]
    both = Bidirectional(one, two)
    y, saved = both.forward(xs, lengths=lengths)
    ahead, _, tape_a = scan(one, xs, lengths=lengths)
    back, _, tape_b = scan(two, xs, lengths=lengths, reverse=True)
    np.testing.assert_array_equal(y, np.concatenate([ahead, back], axis=2))
    dy = rng.standard_normal(y.shape)
    dx, grads = both.backward(dy, saved)
    dxa, _, ga = scan_backward(one, dy[:, :, :2], None, tape_a)
    dxb, _, gb = scan_backward(two, dy[:, :, 2:], None, tape_b)
    np.testing.assert_allclose(dx, dxa + dxb)
    np.testing.assert_array_equal(grads["forward.w_x"], ga["w_x"])
    np.testing.assert_array_equal(grads["backward.w_x"], gb["w_x"])
    for n, length in enumerate(lengths):  # each clip alone, turned around by hand
        alone, _, _ = scan(two, xs[:length, n : n + 1][::-1])
        np.testing.assert_allclose(back[:length, n : n + 1], alone[::-1], atol=1e-14)
    with pytest.raises(ValueError, match="merge is 'mean'"):
        Bidirectional(one, two, merge="mean")


def test_one_layer_twice_and_backward_twice(rng):
    layer, x = Dense(3, 3, **F64), rng.standard_normal((2, 3))
    y1, s1 = layer.forward(x)
    y2, s2 = layer.forward(y1)
    d2, g2 = layer.backward(np.ones_like(y2) * x, s2)
    d1, g1 = layer.backward(d2, s1)
    again, _ = layer.backward(d2, s1)
    np.testing.assert_array_equal(d1, again)
    step = 1e-6
    bumped = layer.bind({"w": layer.params["w"] + step * np.eye(3), "b": layer.params["b"]})
    slope = ((bumped(bumped(x)) - y2) * x).sum() / step
    np.testing.assert_allclose(np.trace(g1["w"] + g2["w"]), slope, rtol=1e-5)


def test_two_threads_share_a_layer(rng):
    layer, xs = Recurrent(ConvLSTMCell(1, 2, (3, 3), **F64)), rng.standard_normal((2, 4, 3, 1, 5, 6))
    expected = [layer.forward(x) for x in xs]
    found = [None, None]

    def work(k):
        for _ in range(20):
            y, saved = layer.forward(xs[k])
            found[k] = (y, layer.backward(y, saved)[0])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, (y, saved) in enumerate(expected):
        np.testing.assert_array_equal(found[k][0], y)
        np.testing.assert_array_equal(found[k][1], layer.backward(y, saved)[0])


def test_a_batch_s_gradient_is_the_sum_of_its_halves(rng):
    net, x = small_net(), rng.standard_normal((4, 2, 5, 4))
    dy = rng.standard_normal((4, 4))
    whole = net.backward(dy, net.forward(x)[1])[1]
    halves = [net.backward(dy[s], net.forward(x[s])[1])[1] for s in (slice(0, 1), slice(1, 4))]
    for name, grad in whole.items():
        np.testing.assert_allclose(grad, halves[0][name] + halves[1][name], atol=1e-13)


def test_conv_transpose_and_embedding_shapes(rng):
    layer = ConvTranspose(2, 3, 4, stride=2, **F64)
    x = rng.standard_normal((1, 2, 5, 3))
    assert layer(x).shape == layer.cost(x.shape).out == (1, 3, 10, 6)
    ids = np.array([[0, 4], [2, 2]])
    words = Embedding(5, 3)
    y, saved = words.forward(ids)
    np.testing.assert_array_equal(y[1, 0], words.params["w"][2])
    assert words.backward(y, saved)[0] is None
    with pytest.raises(ValueError, match="5"):
        words(np.array([5]))
