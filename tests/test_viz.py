"""Pictures and the report: they show the arrays they are given."""

import itertools
import re

import numpy as np
import pytest

from tinyconvlstm.bptt import scan
from tinyconvlstm.cells import ConvLSTMCell, GRUCell, LSTMCell
from tinyconvlstm.ops.columns import im2col
from tinyconvlstm.ops.windows import Window
from tinyconvlstm.report import write_report
from tinyconvlstm.viz.gates import gate_arrays, gates_over_time, gradient_norms
from tinyconvlstm.viz.loss import loss_curves, smooth
from tinyconvlstm.viz.patches import patches_as_columns
from tinyconvlstm.viz.strips import forecast_gif, forecast_strip

F64 = {"dtype": np.float64}


@pytest.fixture
def clips(rng):
    past, truth = rng.random((3, 2, 1, 6, 5)), rng.random((2, 2, 1, 6, 5))
    return past, truth, {"model": rng.random((2, 2, 1, 6, 5)), "copy": rng.random((2, 2, 1, 6, 5))}


def images(figure):
    return [np.asarray(im.get_array()) for ax in figure.axes for im in ax.get_images()]


def texts(figure):
    return [t.get_text() for ax in figure.axes for t in [*ax.texts, ax.title]] + [
        t.get_text() for t in figure.texts
    ]


def test_strip_shows_every_frame_and_its_error(clips):
    past, truth, forecasts = clips
    figure = forecast_strip(past, truth, forecasts, clip=1)
    expected = [*past[:, 1, 0], *truth[:, 1, 0], *forecasts["model"][:, 1, 0], *forecasts["copy"][:, 1, 0]]
    for shown, frame in zip(images(figure), expected, strict=True):
        np.testing.assert_array_equal(shown, frame)
    labels = texts(figure)
    assert {"observed", "what came", "model", "copy", "1", "5"} <= set(labels)
    assert f"{np.mean((forecasts['model'][1, 1] - truth[1, 1]) ** 2):.3f}" in labels


def test_strip_refuses_what_it_cannot_show(clips):
    past, truth, forecasts = clips
    with pytest.raises(ValueError, match=r"clip is 2, expected 0\.\.1"):
        forecast_strip(past, truth, forecasts, clip=2)
    with pytest.raises(ValueError, match=r"observed has shape .* expected \(T, N, C, H, W\)"):
        forecast_strip(past[:, 0], truth, forecasts)


def test_gif_has_a_page_a_frame_and_they_move(clips, tmp_path):
    from PIL import Image

    past, truth, forecasts = clips
    forecast_gif(tmp_path / "a.gif", past, truth, forecasts, clips=(0, 1), scale=3)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 5
        pages = []
        for t in range(5):
            film.seek(t)
            pages.append(np.asarray(film.convert("RGB")))
        assert all((a != b).any() for a, b in itertools.pairwise(pages))
    forecast_gif(tmp_path / "b.gif", past, None, {"model": forecasts["model"]}, clips=(1,))
    with Image.open(tmp_path / "b.gif") as film:
        assert film.n_frames == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "b.gif"]


def test_gates_are_those_of_the_tape(rng):
    cell = ConvLSTMCell(1, 3, (3, 3), **F64)
    ys, _, tape = scan(cell, rng.standard_normal((4, 2, 1, 5, 6)))
    arrays = gate_arrays(tape, clip=1)
    np.testing.assert_allclose(arrays["h"], ys[:, 1])
    figure = gates_over_time(tape, clip=1, feature=2)
    shown = [im for im in images(figure) if im.shape == (5, 6)]
    assert len(shown) == 6 * 4
    for k, name in enumerate("ifgoch"):
        for t in range(4):
            np.testing.assert_allclose(shown[4 * k + t], arrays[name][t, 2])
    most = int(ys[:, 0].reshape(4, 3, -1).std(axis=(0, 2)).argmax())
    np.testing.assert_allclose(images(gates_over_time(tape))[20], ys[0, 0, most])
    with pytest.raises(ValueError, match="feature is 3"):
        gates_over_time(tape, feature=3)


def test_gates_of_a_dense_lstm_are_curves(rng):
    _, _, tape = scan(LSTMCell(2, 3, **F64), rng.standard_normal((6, 1, 2)))
    figure = gates_over_time(tape, feature=0)
    lines = [line.get_ydata() for ax in figure.axes for line in ax.get_lines() if len(line.get_ydata()) == 6]
    np.testing.assert_allclose(lines[0], gate_arrays(tape)["i"][:, 0])
    assert len(lines) == 6


def test_gates_refuse_other_tapes(rng):
    _, _, gru = scan(GRUCell(2, 3, **F64), rng.standard_normal((2, 1, 2)))
    with pytest.raises(ValueError, match="no LSTM steps"):
        gates_over_time(gru)
    _, _, line = scan(LSTMCell(2, 3, (3,), **F64), rng.standard_normal((2, 1, 2, 5)))
    with pytest.raises(ValueError, match="1 spatial axes, expected 0 or 2"):
        gates_over_time(line)


def test_gradient_norms_on_a_logarithmic_axis():
    figure = gradient_norms({"LSTM": np.array([0.1, 1.0]), "RNN": np.array([1e-4, 1.0])})
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    np.testing.assert_array_equal(axes.get_lines()[1].get_ydata(), [1e-4, 1.0])
    assert gradient_norms({"GRU": np.array([1.0])}, axes) is figure


def test_loss_curves_from_rows_and_from_a_log(tmp_path):
    rows = [{"step": k, "loss": 1 / (k + 1), "lr": 0.1, "valid": 0.5 if k == 9 else None} for k in range(20)]
    figure = loss_curves(rows)
    top, bottom = figure.axes
    np.testing.assert_allclose(top.get_lines()[0].get_ydata(), [row["loss"] for row in rows])
    np.testing.assert_array_equal(top.get_lines()[2].get_xdata(), [10])
    assert bottom.get_ylabel() == "learning rate"
    path = tmp_path / "log.csv"
    path.write_text("step,loss,lr,valid\n0,0.5,,\n1,0.25,,0.3\n")
    (only,) = loss_curves(path).axes
    np.testing.assert_array_equal(only.get_lines()[0].get_ydata(), [0.5, 0.25])
    with pytest.raises(ValueError, match="no rows"):
        loss_curves([])


def test_smoothing_keeps_straight_lines():
    np.testing.assert_allclose(smooth(np.arange(100.0)), np.arange(100.0))


def test_patches_and_their_columns_have_one_colour():
    x = np.arange(20.0).reshape(4, 5)
    window = Window((2, 3), padding=((1, 0), (0, 1)))
    figure = patches_as_columns(x, window, marked=(0, 7))
    left, right = figure.axes
    np.testing.assert_array_equal(
        right.get_images()[0].get_array(), im2col(x[None, None], window.over((4, 5)))[0]
    )
    colours = [patch.get_edgecolor() for patch in left.patches]
    assert [patch.get_edgecolor() for patch in right.patches] == [colours[0], colours[6]]
    assert len(left.patches) == 2 * 6 + 1  # taps of two windows, and the image's edge in its padding
    with pytest.raises(ValueError, match="marked is"):
        patches_as_columns(x, window, marked=(99,))
    with pytest.raises(ValueError, match="expected"):
        patches_as_columns(x[0], window)


def test_report_is_one_offline_file(tmp_path, clips):
    past, truth, forecasts = clips
    forecast_strip(past, truth, forecasts).savefig(tmp_path / "a.png")
    forecast_gif(tmp_path / "a.gif", past, truth, forecasts, clips=(0,))
    path = tmp_path / "report.html"
    write_report(
        path,
        title="A <b>title</b>",
        facts={"seed & more": "0 < 1"},
        tables=[("Scores", ("name", "mse"), [("<script>alert(1)</script>", "0.1")])],
        pictures=[("Strip", tmp_path / "a.png"), ("Film", tmp_path / "a.gif")],
        text=['A "paragraph"'],
    )
    page = path.read_text()
    assert page.count("data:image/png;base64,") == 1
    assert page.count("data:image/gif;base64,") == 1
    assert not re.search(r"https?://|<script|src=\"(?!data:)|href", page)
    assert "&lt;script&gt;" in page
    assert "A &lt;b&gt;title&lt;/b&gt;" in page


def test_report_refuses_crooked_tables_and_unknown_pictures(tmp_path):
    common = {"title": "t", "facts": {}, "pictures": []}
    with pytest.raises(ValueError, match="has 1 cells, its head has 2"):
        write_report(tmp_path / "r.html", tables=[("T", ("a", "b"), [("1",)])], **common)
    with pytest.raises(ValueError, match="must end in one of"):
        write_report(tmp_path / "r.html", tables=[], **{**common, "pictures": [("P", tmp_path / "p.bmp")]})
    assert not (tmp_path / "r.html").exists()
