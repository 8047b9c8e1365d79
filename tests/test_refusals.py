"""What does not fit is refused by name, at the edge, and nothing is dropped in silence."""

import numpy as np
import pytest

from tinyconvlstm import ConvLSTMCell, GRUCell, LSTMCell, RNNCell, scan, scan_backward
from tinyconvlstm.bptt import scan_checkpointed, scan_checkpointed_backward, scan_truncated_backward
from tinyconvlstm.data.augment import Augment, flip_clips
from tinyconvlstm.interop import classifier_from_pytorch, classifier_to_pytorch
from tinyconvlstm.layers import FUSIONS, ClockStack, Dense, GlobalPool, Recurrent, Sequential, TimeDistributed
from tinyconvlstm.models import (
    CaptionDecoder,
    Stream,
    cnn_lstm,
    conv3d_network,
    convlstm_classifier,
    lstm_classifier,
    three_stream,
)
from tinyconvlstm.tasks import task


@pytest.fixture
def xs(rng):
    return rng.standard_normal((3, 2, 2, 5, 4))


@pytest.mark.parametrize(
    "shape", [(3, 2, 1, 5, 4), (3, 1, 4, 5, 4), (5, 2, 4, 5, 4), (2, 2, 4, 5, 4), (3, 2, 4, 5)]
)
@pytest.mark.parametrize("way", ["full", "truncated", "checkpointed"])
def test_a_gradient_of_another_shape_is_no_gradient_of_the_sequence(xs, shape, way):
    cell = ConvLSTMCell(2, 4, (3, 3), dtype=np.float64)
    tape, kept = scan(cell, xs)[2], scan_checkpointed(cell, xs, every=2)[2]
    back = {
        "full": lambda dys: scan_backward(cell, dys, None, tape),
        "truncated": lambda dys: scan_truncated_backward(cell, dys, None, tape, k1=1, k2=2),
        "checkpointed": lambda dys: scan_checkpointed_backward(cell, dys, None, kept),
    }
    with pytest.raises(ValueError, match=r"dys\.shape is .*, expected \(3, 2, 4, 5, 4\)"):
        back[way](np.ones(shape))


def test_a_gradient_of_the_state_fits_it_too(xs):
    cell = ConvLSTMCell(2, 4, (3, 3), dtype=np.float64)
    ys, state, tape = scan(cell, xs)
    with pytest.raises(ValueError, match=r"dstate\.c\.shape is \(1, 4, 5, 4\), expected \(2, 4, 5, 4\)"):
        scan_backward(cell, ys, state._replace(c=state.c[:1]), tape)
    with pytest.raises(ValueError, match="dstate has fields None"):
        scan_backward(cell, ys, tuple(state), tape)
    last = Recurrent(cell, return_sequences=False)
    with pytest.raises(ValueError, match=r"dstate\.h\.shape"):
        last.backward(np.ones((1, 4, 5, 4)), last.forward(xs)[1])


def test_a_state_of_another_cell_is_refused(xs):
    flat = xs[:, :, :, 0, 0]
    lstm, gru, rnn = (kind(2, 3, dtype=np.float64) for kind in (LSTMCell, GRUCell, RNNCell))
    for cell, other in ((gru, lstm), (rnn, lstm), (lstm, gru)):
        with pytest.raises(ValueError, match="expected the fields"):
            scan(cell, flat, other.initial_state(flat[0]))
    with pytest.raises(ValueError, match="state is a tuple"):
        scan(lstm, flat, tuple(lstm.initial_state(flat[0])))


def test_lengths_that_nobody_reads_are_refused(rng):
    x = rng.standard_normal((4, 2, 1, 9, 9)).astype(np.float32)
    with pytest.raises(ValueError, match="none of the layers reads them"):
        conv3d_network(1, 3).forward(x, lengths=[1, 4])
    with pytest.raises(ValueError, match="none of the layers reads them"):
        Sequential(TimeDistributed(GlobalPool())).forward(x, lengths=[1, 4])
    nested = Sequential(
        Sequential(Recurrent(ConvLSTMCell(1, 2, (3, 3)), return_sequences=False)), GlobalPool()
    )
    assert nested.forward(x, lengths=[1, 4])[0].shape == (2, 2)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("stored", [True, False])
def test_padding_that_is_no_number_spoils_nothing(rng, reverse, stored):
    cell = ConvLSTMCell(2, 3, (3, 3), dtype=np.float64)
    x = rng.standard_normal((4, 2, 2, 5, 4))
    dys = rng.standard_normal((4, 2, 3, 5, 4))
    found = []
    for fill in (0.0, np.nan, np.inf):
        x[2:, 0] = fill
        if stored:
            ys, _, tape = scan(cell, x, lengths=[2, 4], reverse=reverse)
            dxs, _, grads = scan_backward(cell, dys, None, tape)
        else:
            ys, _, kept = scan_checkpointed(cell, x, lengths=[2, 4], reverse=reverse)
            dxs, _, grads = scan_checkpointed_backward(cell, dys, None, kept)
        found.append({"ys": ys, "dxs": dxs, **grads})
    for other in found[1:]:
        assert all(np.array_equal(found[0][name], other[name]) for name in other)


def test_a_missing_stream_may_hold_anything(rng):
    x = {
        "rgb": rng.standard_normal((4, 2, 3, 8, 8)),
        "flow": rng.standard_normal((4, 2, 2, 8, 8)),
        "audio": rng.standard_normal((8, 2, 4)),
    }
    for fusion in FUSIONS:
        settings = {"features": (2,), "hidden": 2, "dtype": np.float64}
        model = three_stream(3, bands=4, steps=3, fusion=fusion, **settings)
        found = []
        for fill in (0.0, np.nan):
            x["flow"][:, 1] = fill
            y, saved = model.forward(x, present={"flow": [1, 0]})
            dx, grads = model.backward(np.ones_like(y), saved)
            found.append({"y": y, **dx, **grads})
        assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("name", FUSIONS)
def test_streams_that_do_not_fit_a_fusion_are_refused(rng, name):
    layer = FUSIONS[name]((3, 4), 5)
    three, four = rng.standard_normal((2, 3)), rng.standard_normal((2, 4))
    both = [three, four]
    for hs, present in (([three], (2, 2)), (both[::-1], (2, 2)), (both, (3, 2)), ([*both, four], (3, 2))):
        with pytest.raises(ValueError, match="hs have shapes"):
            layer.forward(hs, np.ones(present))
    with pytest.raises(ValueError, match="without any stream"):
        layer.forward(both, np.zeros((2, 2)))


def test_weights_that_do_not_fit_each_other_are_refused(rng):
    state = classifier_to_pytorch(lstm_classifier(5, 3, (6, 6)))
    assert classifier_from_pytorch(state).count
    for key, value, words in (
        ("fc.weight", np.ones((3, 7), np.float32), r"fc\.weight has shape"),
        ("lstm.weight_ih_l1", np.ones((24, 9), np.float32), "expected 6 and 6"),
    ):
        with pytest.raises(ValueError, match=words):
            classifier_from_pytorch({**state, key: value})
    wide = {k: a.astype(np.float64) if k.startswith("fc") else a for k, a in state.items()}
    with pytest.raises(ValueError, match="dtype float64"):
        classifier_from_pytorch(wide)
    with pytest.raises(ValueError, match="expected float32 or float64"):
        classifier_from_pytorch({k: a.astype(np.float16) for k, a in state.items()})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kernel": 3}, r"kernel is 3, expected one int a spatial axis, as \(3, 3\)"),
        ({"kernel": (3, 3), "dtype": int}, "dtype is int64, expected a floating one"),
        ({"kernel": (3, 3), "features": 4.0}, "features is 4.0, expected an integer"),
        ({"kernel": (3, 3), "features": 0}, "features is 0, expected at least 1"),
    ],
)
def test_settings_of_cells(settings, words):
    with pytest.raises(ValueError, match=words):
        ConvLSTMCell(**{"channels": 2, "features": 4, **settings})


@pytest.mark.parametrize("features", [(), 8, (4.0,), (0,)])
def test_features_of_models(features):
    makers = (
        lambda: lstm_classifier(2, 3, features),
        lambda: cnn_lstm(2, 3, features=features),
        lambda: conv3d_network(2, 3, features=features),
        lambda: convlstm_classifier(2, 3, features=features),
        lambda: Stream(2, features=features),
    )
    for make in makers:
        with pytest.raises(ValueError, match="expected at least one whole number"):
            make()


def test_augmentation_of_what_cannot_be(rng):
    with pytest.raises(ValueError, match="expected a tuple of names"):
        Augment(flow="optical_flow")
    with pytest.raises(ValueError, match="crop is 4"):
        Augment(crop=4)
    with pytest.raises(ValueError, match="flow names"):
        Augment(flow=("flo",))({"rgb": rng.random((2, 1, 3, 4, 4)), "flow": rng.random((2, 1, 2, 4, 4))}, 0)
    with pytest.raises(ValueError, match="expected one with a sign"):
        flip_clips(np.ones((2, 1, 2, 4, 4), np.uint8), np.array([True]), axis=4, flow_order="rows, columns")


def test_a_task_that_is_like_none_is_answered_with_all_of_them():
    with pytest.raises(ValueError, match="expected one of classify, label"):
        task("qqqq")


def test_the_summary_of_three_streams():
    model = three_stream(8, bands=4, steps=3)
    shapes = {"rgb": (4, 2, 3, 8, 8), "flow": (4, 2, 2, 8, 8), "audio": (8, 2, 4)}
    text = str(model.summary(shapes))
    assert "4x2x3x8x8 and 4x2x2x8x8 and 8x2x4" in text
    assert f"{model.count:,}" in text
    flow_less = {name: shape for name, shape in shapes.items() if name != "flow"}
    assert "flow" not in str(model.summary(flow_less))
    assert model.summary({"rgb": shapes["rgb"]}).macs < model.summary(shapes).macs


def test_dense_layers_know_nothing_of_lengths():
    with pytest.raises(ValueError, match="lengths are given"):
        Sequential(Dense(2, 3)).forward(np.ones((2, 2), np.float32), lengths=[1, 1])


@pytest.mark.parametrize("lengths", [[99, 6], [0, 6], [2.5, 3.0], [3]])
def test_lengths_that_do_not_fit_the_captioners_frames(rng, lengths):
    decoder = CaptionDecoder(5, 3, 4, dtype=np.float64)
    with pytest.raises(ValueError, match="lengths"):
        decoder.forward(rng.standard_normal((6, 2, 3)), rng.integers(0, 5, (4, 2)), lengths=np.array(lengths))


def test_the_captioner_does_not_read_padding(rng):
    decoder, words = CaptionDecoder(5, 3, 4, dtype=np.float64), rng.integers(0, 5, (4, 2))
    v, dy, found = rng.standard_normal((6, 2, 3)), rng.standard_normal((4, 2, 5)), []
    for fill in (0.0, np.nan):
        v[3:, 0] = fill
        logits, saved = decoder.forward(v, words, lengths=[3, 6])
        dx, grads = decoder.backward(dy, saved)
        found.append({"logits": logits, "dx": dx, **grads})
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    assert not found[1]["dx"][3:, 0].any()


def test_stacks_of_clocks_that_cannot_be():
    cells = [ConvLSTMCell(1, 3, (3, 3)), ConvLSTMCell(3, 2, (3, 3))]
    with pytest.raises(ValueError, match="cells has 2 levels and show is 5"):
        ClockStack(cells, (1, 2), show=5)
    with pytest.raises(ValueError, match="cells has 0 levels"):
        ClockStack([], ())
    with pytest.raises(ValueError, match=r"cells\[0\] has 1 channels, expected at least 2"):
        ClockStack(cells, (1, 2), top_down=True)
    with pytest.raises(ValueError, match=r"recurrent_dropout is 0\.5, expected 0"):
        ClockStack(cells, (1, 2), recurrent_dropout=0.5)
