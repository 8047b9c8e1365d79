"""The checker itself is checked: what it must catch, what it must not cry over, and what it says."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tinyconvlstm import gradcheck as package
from tinyconvlstm.backend import to_backend
from tinyconvlstm.bptt import scan_backward
from tinyconvlstm.cells import ConvLSTMCell, GRUCell, LSTMCell
from tinyconvlstm.gradcheck import (
    Case,
    Report,
    cell_case,
    check,
    command,
    gradcheck,
    layer_case,
    loss_case,
    pair_case,
    zoo,
)
from tinyconvlstm.gradcheck.zoo_cells import randomised
from tinyconvlstm.layers import (
    Activation,
    BatchNorm,
    Bidirectional,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Recurrent,
    Sequential,
    TimeDistributed,
)
from tinyconvlstm.ops import (
    conv_backward,
    conv_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    linear_backward,
    linear_forward,
    mae_backward,
    mae_forward,
    relu_backward,
    relu_forward,
    softmax_backward,
    softmax_forward,
)
from tinyconvlstm.ops.gates import LSTMState


def culprit(report: Report) -> str:
    assert not report, "the planted mistake was not found"
    return report.culprits[0].argument


# --- what must be caught ---


def test_a_softmax_whose_backward_returns_zeros_fails(rng):
    """With an all-ones upstream gradient it would pass: softmax sums to one, so that gradient is zero."""
    x = rng.standard_normal((3, 5))
    y, saved = softmax_forward(x)
    np.testing.assert_allclose(softmax_backward(np.ones_like(y), saved), 0, atol=1e-15)
    report = gradcheck(pair_case("softmax", softmax_forward, lambda dy, saved: 0 * dy, {"x": x}))
    assert culprit(report) == "x"


PLANTED: dict[str, Any] = {
    "factor": lambda dw: 2.001 * dw,
    "small factor": lambda dw: dw * (1 + 1e-5),
    "transposed": lambda dw: dw.T.copy(),
    "rolled": lambda dw: np.roll(dw, 1, axis=0),
    "sign": lambda dw: -dw,
    "zero": lambda dw: 0 * dw,
    "one element": lambda dw: dw + np.eye(1, dw.size, 7).reshape(dw.shape),
    "offset": lambda dw: dw + 1e-4,
    "nan": lambda dw: np.where(np.arange(dw.size).reshape(dw.shape) == 7, np.nan, dw),
    "infinite": lambda dw: np.where(dw == dw.max(), np.inf, dw),
}


@pytest.mark.parametrize("analytic", [True, False])
@pytest.mark.parametrize("bug", PLANTED.values(), ids=PLANTED)
def test_a_planted_mistake_is_found_and_its_argument_named(bug, analytic, rng):
    arrays = {"x": rng.standard_normal((2, 4)), "w": rng.standard_normal((4, 4)), "b": rng.standard_normal(4)}

    def backward(dy, saved):
        dx, dw, db = linear_backward(dy, saved)
        return dx, bug(dw), db

    good = pair_case("linear", linear_forward, linear_backward, arrays, analytic=analytic)
    assert gradcheck(good)
    report = gradcheck(good._replace(backward=pair_case("", linear_forward, backward, arrays).backward))
    assert culprit(report) == "w"
    assert [row.argument for row in report.rows if row.passed][:1] == ["x"]


def test_a_gradient_rolled_along_the_batch_is_found(rng):
    """Summed over the batch it is right: only a random upstream gradient tells the samples apart."""
    arrays = {"x": rng.standard_normal((3, 2, 5)), "w": rng.standard_normal((4, 2, 3))}

    def backward(dy, saved):
        dx, dw, _ = conv_backward(dy, saved)
        return np.roll(dx, 1, axis=0), dw

    assert culprit(gradcheck(pair_case("conv", conv_forward, backward, arrays))) == "x"


def test_the_culprit_is_named_with_index_time_step_and_numbers(rng):
    cell = randomised(LSTMCell(2, 3), rng)
    case = cell_case("lstm", cell, rng.standard_normal((4, 2, 2)))

    def backward(upstream, saved):
        grads = case.backward(upstream, saved)
        grads["xs"] = grads["xs"].copy()
        grads["xs"][2, 1, 0] += 0.5
        return grads

    report = gradcheck(case._replace(backward=backward))
    assert {row.argument for row in report.culprits} == {"xs"}
    row = report.culprits[0]
    assert row.at == (2, 1, 0)
    assert row.step == 2
    assert row.analytic - row.numeric == pytest.approx(0.5, abs=1e-6)
    text = str(report)
    assert re.search(
        r"culprit: xs\[2, 1, 0\], time step 2: backward says \S+, (central|complex) difference", text
    )
    assert text.startswith("FAIL  lstm")


def test_a_mistake_outside_the_drawn_elements_is_still_found_and_named(rng):
    """The direction sees it; then every element is compared, not twenty."""
    x = rng.standard_normal(1500)

    def backward(dy, saved):
        return dy * np.where(np.arange(1500) == 1234, 2.0, 3.0)

    report = gradcheck(pair_case("triple", lambda x: (3 * x, None), backward, {"x": x}))
    assert report.culprits[0].at == (1234,)
    assert report.rows[0].checked == 1500


def test_an_output_whose_gradient_is_mishandled_when_another_is_absent_is_found(rng):
    def forward(x):
        return (2 * x, 3 * x), None

    def backward(dys, saved):
        a, b = dys
        if b is None:
            return a * 5  # wrong, and never seen while both are present
        return 3 * b if a is None else 2 * a + 3 * b

    case = pair_case("two", forward, backward, {"x": rng.standard_normal(4)}, outputs=("a", "b"))
    report = gradcheck(case)
    assert not report
    assert [d.upstream for d in report.directions if not d.passed] == ["all but db"] * 2


# --- recurrence ---


def forgetful(cell: LSTMCell) -> LSTMCell:
    """The LSTM with the classic mistake: the gradient that arrives on c is dropped at every step."""

    class Forgetful(LSTMCell):
        def step_backward(self, dstate, saved):
            return super().step_backward(LSTMState(dstate.h, 0 * dstate.c), saved)

    new = object.__new__(Forgetful)
    new.__dict__.update(cell.__dict__)
    return new


def test_one_step_from_zero_hides_a_dropped_dc_and_three_steps_show_it(rng):
    cell = randomised(LSTMCell(2, 3), rng)
    xs = rng.standard_normal((3, 2, 2))
    zero = cell.initial_state(xs[0])

    def weak(cell):
        """One step, zero state, a gradient on the sequence alone."""
        case = cell_case("weak", cell, xs[:1], zero)
        only = lambda y: {"ys": y["ys"]}  # noqa: E731

        def backward(upstream, saved):
            grads = case.backward({**upstream, "h_last": None, "c_last": None}, saved)
            return {name: grads[name] for name in ("xs", "w_x", "b", "w_h")}

        fixed = {"h0": zero.h, "c0": zero.c}

        def forward(arrays):
            return (lambda found: (only(found[0]), found[1]))(case.forward({**arrays, **fixed}))

        return Case("weak", {n: case.arrays[n] for n in ("xs", "w_x", "b", "w_h")}, forward, backward)

    assert gradcheck(weak(cell))
    assert gradcheck(weak(forgetful(cell)))  # the mistake passes
    assert gradcheck(cell_case("strong", cell, xs))
    assert not gradcheck(cell_case("strong", forgetful(cell), xs))


def test_truncated_backpropagation_is_not_the_gradient_of_the_unfrozen_scan(rng):
    """Against plain differences it must fail, and pass against those with frozen boundary states."""
    cell = randomised(LSTMCell(2, 3, peephole="channel"), rng)
    xs = rng.standard_normal((5, 2, 2))
    frozen = cell_case("frozen", cell, xs, mode="truncated", k1=2, k2=3)
    plain = cell_case("plain", cell, xs)
    assert gradcheck(frozen)
    report = gradcheck(plain._replace(backward=frozen.backward))
    assert not report
    exact = gradcheck(frozen._replace(backward=plain.backward))
    assert not exact


def test_default_states_are_random_because_zero_hides_mistakes(rng):
    case = cell_case("lstm", randomised(LSTMCell(2, 3), rng), rng.standard_normal((3, 2, 2)))
    assert np.abs(case.arrays["h0"]).min() > 0
    assert np.abs(case.arrays["c0"]).min() > 0


# --- kinks ---


def test_a_kink_at_an_element_is_left_out_and_counted(rng):
    x = rng.uniform(0.5, 1, (3, 4)) * np.sign(rng.standard_normal((3, 4)))
    x[1, 2] = 0.0
    report = gradcheck(pair_case("relu", relu_forward, relu_backward, {"x": x}, analytic=False))
    assert report
    assert (report.rows[0].kinks, report.rows[0].checked) == (1, 11)
    assert all(d.kink for d in report.directions)  # no direction avoids it: the elements decide
    assert "11 (1 kinks left out)" in str(report)
    assert "kink" in str(report).partition("upstream")[2]


def test_a_kink_does_not_hide_a_mistake_elsewhere(rng):
    x = rng.uniform(0.5, 1, (3, 4))
    x[1, 2] = 0.0

    def backward(dy, saved):
        return relu_backward(dy, saved) * np.where(np.arange(12).reshape(3, 4) == 3, 1.1, 1.0)

    report = gradcheck(pair_case("relu", relu_forward, backward, {"x": x}, analytic=False))
    assert culprit(report) == "x"
    assert report.culprits[0].at == (0, 3)


def test_a_kink_beside_the_point_is_stepped_around():
    """Half a step away: the first difference straddles it, the smaller one does not."""
    x = np.array([4e-6, -3e-6, 0.7])
    report = gradcheck(pair_case("relu", relu_forward, relu_backward, {"x": x}, analytic=False))
    assert report
    assert report.rows[0].checked == 3


def test_nothing_but_kinks_is_no_pass():
    report = gradcheck(pair_case("relu", relu_forward, relu_backward, {"x": np.zeros(4)}, analytic=False))
    assert not report
    assert report.rows[0].checked == 0


def test_a_smooth_function_at_its_minimum_has_no_kink():
    """The slope is zero there, so the one-sided slopes differ by more than any share of it."""

    def forward(x):
        return x * x, x

    for right, factor in ((True, 2.0), (False, 2.5)):
        x = np.array([0.0, 0.0, 1.5])
        case = pair_case("square", forward, lambda dy, x: factor * dy * x, {"x": x}, analytic=False)  # noqa: B023
        report = gradcheck(case)
        assert bool(report) is right
        assert report.rows[0].kinks == 0


# --- refusals and impurities ---


def test_float32_is_refused_with_the_reason(rng):
    x = rng.standard_normal((2, 3)).astype(np.float32)
    with pytest.raises(TypeError, match=r"x is float32, a gradient check needs float64.*1e-2.*astype"):
        gradcheck(pair_case("relu", relu_forward, relu_backward, {"x": x}))
    with pytest.raises(TypeError, match="w is float32"):
        check(Dense(3, 2), x.astype(float))
    with pytest.raises(TypeError, match="w_x is float32"):
        check(LSTMCell(3, 2), rng.standard_normal((3, 2, 3)))
    with pytest.raises(TypeError, match="y is int64, a gradient check needs float64"):
        gradcheck(pair_case("double", lambda y: (2 * y, None), lambda dy, _: 2 * dy, {"y": np.arange(3)}))


def test_arrays_on_the_other_backend_are_refused(rng, cupy_standin):
    x = to_backend(rng.standard_normal((2, 3)), "cupy")
    with pytest.raises(TypeError, match=r"x is a cupy\.ndarray, a gradient check runs on NumPy arrays"):
        gradcheck(pair_case("relu", relu_forward, relu_backward, {"x": x}))


def faults(case: Case) -> str:
    report = gradcheck(case)
    assert not report
    assert report.faults
    assert f"impure: {report.faults[0]}" in str(report)
    return report.faults[0]


def test_impure_functions_are_found_out(rng):
    x = {"x": rng.standard_normal((2, 3))}
    calls = []

    def double(x):
        return 2 * x, None

    def counting(dy, saved):
        calls.append(1)
        return 2.0 * dy * len(calls)

    def writes_input(x):
        x += 1
        return x.copy(), None

    def writes_upstream(dy, saved):
        dy *= 2
        return dy.copy()

    generator = np.random.default_rng(1)

    def noisy(x):
        return 2 * x + generator.standard_normal(x.shape), None

    buffer = np.empty((2, 3))

    def reuses(dy, saved):
        buffer[...] = 2 * dy if not calls else 3 * dy
        calls.append(1)
        return buffer

    def plain(dy, saved):
        return 2 * dy

    assert "backward is not repeatable: dx changed" in faults(pair_case("a", double, counting, dict(x)))
    assert "forward is not repeatable: y changed" in faults(pair_case("b", noisy, plain, dict(x)))
    assert "seed its random numbers" in faults(pair_case("b", noisy, plain, dict(x)))
    assert faults(pair_case("c", double, writes_upstream, dict(x))) == "backward changed its argument dy"
    calls.clear()
    assert "backward is not repeatable" in faults(pair_case("d", double, reuses, dict(x)))
    copy = {"x": x["x"].copy()}
    report = gradcheck(pair_case("e", writes_input, lambda dy, _: dy, copy))
    assert "the call changed its argument x" in report.faults


def test_gradients_of_wrong_names_or_shapes_are_named(rng):
    arrays = {"x": rng.standard_normal((2, 3))}
    case = pair_case("double", lambda x: (2 * x, None), lambda dy, _: 2 * dy, arrays)
    assert "backward returned gradients of ['y'], expected ['x']" in faults(
        case._replace(backward=lambda upstream, _: {"y": upstream["y"]})
    )
    assert "dx has shape (3, 2), x has (2, 3)" in faults(
        case._replace(backward=lambda upstream, _: {"x": 2 * upstream["y"].T})
    )
    assert faults(case._replace(backward=lambda upstream, _: {"x": None})) == "dx is None"
    with pytest.raises(ValueError, match="zip"):
        gradcheck(pair_case("two", lambda x: (2 * x, None), lambda dy, _: (dy, dy), arrays))


def test_a_sum_of_huge_terms_is_not_blamed_for_rounding(rng):
    """A central difference of a large number carries its rounding; the check knows how much."""
    x = rng.standard_normal(5)
    assert gradcheck(pair_case("far", lambda x: (1e9 + x, None), lambda dy, _: dy, {"x": x}, analytic=False))


# --- the report ---


def good_and_bad(rng: np.random.Generator) -> tuple[Report, Report]:
    cell = randomised(ConvLSTMCell(1, 2, (2, 3), peephole="channel"), rng)
    case = cell_case("ConvLSTM", cell, rng.standard_normal((3, 2, 1, 3, 4)))

    def backward(upstream, saved):
        grads = case.backward(upstream, saved)
        return {**grads, "w_h": -grads["w_h"], "b": 1.5 * grads["b"]}

    return gradcheck(case), gradcheck(case._replace(backward=backward))


def test_the_report_is_a_table(rng):
    good, bad = good_and_bad(rng)
    assert good.passed
    assert not bad.passed
    lines = str(good).splitlines()
    assert re.fullmatch(r"pass  ConvLSTM +central \d\.\de-\d\d   complex \d\.\de[-+]\d\d", lines[0])
    head = "argument shape method error at index step analytic numeric checked"
    assert lines[2].split() == head.split()
    rows = [line.split() for line in lines[3:17]]
    assert [row[0] for row in rows[::2]] == ["xs", "h0", "c0", "w_x", "b", "w_h", "w_c"]
    assert rows[0][1:3] == ["3x2x1x3x4", "central"]
    assert rows[1][2] == "complex"
    assert float(rows[0][3]) < 1e-6
    assert float(rows[1][3]) < 1e-12
    assert rows[0][5] == rows[0][4].split(",")[0]  # the time step is xs's first index
    for row in rows:
        analytic, numeric, checked = row[-3:]
        assert float(analytic) == pytest.approx(float(numeric), rel=2e-6)
        assert 1 <= int(checked) <= 20
    upstream = [line.strip().partition("  ")[0] for line in lines[19:27:2]]
    assert upstream == ["all", "all but dys", "all but dh_last", "all but dc_last"]
    assert lines[-1].strip() == "passes when every relative error is at most: central 1e-06, complex 1e-12"
    marked = [line.split()[0] for line in str(bad).partition("upstream")[0].splitlines() if " ! " in line]
    assert marked == ["b", "b", "w_h", "w_h"]
    assert [row.argument for row in bad.culprits] == ["w_h", "w_h", "b", "b"]
    assert bad.culprits[0].error == pytest.approx(2)
    assert bad.worst("complex") == pytest.approx(2, rel=1e-6)
    assert good.line(20).index("central") == 27


def test_functions_with_kinks_are_compared_with_central_differences_alone(rng):
    report = gradcheck(
        pair_case("relu", relu_forward, relu_backward, {"x": 1 + rng.random(4)}, analytic=False)
    )
    assert {row.method for row in report.rows} == {"central"}
    assert report.worst("complex") is None
    assert "complex" not in str(report)


def test_the_picture_shows_every_element_every_argument_and_both_limits(rng, tmp_path):
    from matplotlib import pyplot as plt

    for report in good_and_bad(rng):
        figure = report.draw()
        left, right = figure.axes
        assert [text.get_text() for text in left.get_legend().get_texts()] == [
            "xs", "h0", "c0", "w_x", "b", "w_h", "w_c",
        ]  # fmt: skip
        assert [tick.get_text() for tick in right.get_yticklabels()] == [
            "xs",
            "h0",
            "c0",
            "w_x",
            "b",
            "w_h",
            "w_c",
        ]
        drawn = sum(len(dots.get_offsets()) for dots in left.collections)
        assert drawn == len(report.points) == sum(row.checked for row in report.rows)
        assert left.get_xscale() == left.get_yscale() == right.get_xscale() == "log"
        limits = sorted(line.get_xdata()[0] for line in right.lines)
        assert limits == [1e-12, 1e-6]
        assert ("passed" if report else "FAILED") in figure.get_suptitle()
        figure.savefig(tmp_path / "report.png")
        plt.close(figure)
    figure, axes = plt.subplots(1, 2)
    assert report.draw(axes) is figure
    plt.close(figure)


def test_a_report_without_rows_can_be_drawn_and_printed(rng):
    from matplotlib import pyplot as plt

    report = gradcheck(Case("odd", {"x": np.ones(2)}, lambda a: ({"y": a["x"]}, None), lambda u, s: {}))
    assert "impure" in str(report)
    plt.close(report.draw())


# --- layers, losses, one call for all ---


def sequence_layers() -> dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]]:
    f64: dict[str, Any] = {"dtype": np.float64}
    return {
        "recurrent": (Recurrent(LSTMCell(2, 3, **f64)), (4, 2, 2), {"lengths": [3, 4]}),
        "last": (Recurrent(GRUCell(2, 3, **f64), return_sequences=False), (4, 2, 2), {}),
        "state": (Recurrent(LSTMCell(2, 3, **f64), return_state=True), (4, 2, 2), {}),
        "dropout": (
            Recurrent(LSTMCell(2, 3, **f64), dropout=0.3, recurrent_dropout=0.4), (4, 2, 2), {"train": True},
        ),
        "bidirectional": (
            Bidirectional(LSTMCell(2, 3, **f64), GRUCell(2, 2, **f64)), (4, 2, 2), {"lengths": [4, 2]},
        ),
        "distributed": (TimeDistributed(Conv(2, 3, (3,), **f64)), (4, 2, 2, 5), {}),
        "chain": (
            Sequential(TimeDistributed(Dense(2, 3, **f64)), Recurrent(LSTMCell(3, 2, **f64))), (4, 2, 2), {},
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", sequence_layers())
def test_layers_over_time_pass_and_report_the_step(kind, rng):
    layer, shape, settings = sequence_layers()[kind]
    report = gradcheck(layer_case(kind, layer, rng.standard_normal(shape), **settings))
    assert report, str(report)
    assert all((row.step == row.at[0]) if row.argument == "x" else row.step is None for row in report.rows)
    assert {row.argument for row in report.rows} == {"x", *layer.params}


def test_layers_with_dropout_and_batch_statistics_pass_in_training(rng):
    layer = Sequential(
        Conv(2, 4, (3, 2), dtype=np.float64),
        BatchNorm(4, dtype=np.float64),
        Activation("tanh"),
        Dropout(0.4),
        Flatten(),
        Dense(4 * 12, 2, dtype=np.float64),
    )
    before = {name: a.copy() for name, a in layer.buffers.items()}
    x = rng.standard_normal((3, 2, 3, 4))
    report = check(layer, x, train=True, seed=3)
    assert report, str(report)
    assert report.rows[0].step is None
    assert all(np.array_equal(layer.buffers[name], before[name]) for name in before)
    assert check(layer, x)


def test_a_wrong_layer_is_found(rng):
    class Wrong(Dense):
        def backward(self, dy, saved):
            dx, grads = super().backward(dy, saved)
            return dx, {**grads, "b": grads["b"] / len(dy)}

    report = check(Wrong(4, 3, dtype=np.float64), rng.standard_normal((5, 4)))
    assert culprit(report) == "b"
    assert report.name == "Wrong"


def test_whole_numbers_are_data_and_have_no_gradient(rng):
    report = check(Embedding(6, 3, dtype=np.float64), np.array([[0, 3, 3], [5, 0, 3]]))
    assert report
    assert [row.argument for row in report.rows] == ["w", "w"]


def test_a_parameter_named_x_is_refused(rng):
    layer = Dense(2, 2, dtype=np.float64)
    layer.params["x"] = np.ones(2)
    with pytest.raises(ValueError, match="parameter named 'x'"):
        check(layer, rng.standard_normal((3, 2)))


def test_losses_are_checked_on_their_prediction(rng):
    logits, labels = rng.standard_normal((4, 3)), np.array([2, 0, 1, 1])
    pair = (cross_entropy_forward, cross_entropy_backward)
    report = gradcheck(loss_case("ce", *pair, logits, labels, label_smoothing=0.1))
    assert report
    assert [row.argument for row in report.rows] == ["prediction", "prediction"]
    target = logits + np.where(rng.random((4, 3)) > 0.5, 0.5, -0.5)
    assert gradcheck(loss_case("mae", mae_forward, mae_backward, logits, target, analytic=False))
    wrong = loss_case("ce", pair[0], lambda d, saved: 4 * pair[1](d, saved), logits, labels)
    assert culprit(gradcheck(wrong)) == "prediction"


def test_check_takes_pairs_cells_layers_and_cases(rng):
    x, w, b = rng.standard_normal((2, 3, 5)), rng.standard_normal((4, 3, 3)), rng.standard_normal(4)
    report = check((conv_forward, conv_backward), x, w, b, elements=5)
    assert report.name == "conv"
    assert [row.argument for row in report.rows[::2]] == ["x", "w", "b"]
    assert {row.checked for row in report.rows} == {4, 5}
    assert check((relu_forward, relu_backward), 1 + rng.random(4), analytic=False)
    cell = randomised(LSTMCell(2, 3), rng)
    report = check(cell, rng.standard_normal((5, 2, 2)), mode="truncated", k1=2, k2=2, name="mine")
    assert report
    assert report.name == "mine"
    assert check(zoo("conv/1d")[0], tolerance=1e-7)
    assert not check(zoo("conv/1d")[0], complex_tolerance=1e-20)

    def two(x):
        return LSTMState(2 * x, 3 * x), None

    def two_backward(dys, saved):
        return sum(k * d for k, d in zip((2, 3), dys, strict=True) if d is not None)

    report = check((two, two_backward), rng.standard_normal(3))
    assert report
    assert [d.upstream for d in report.directions[::2]] == ["all", "all but dh", "all but dc"]


def test_check_says_what_it_cannot_take(rng):
    x = rng.standard_normal((2, 3))
    with pytest.raises(TypeError, match="subject is a str, expected a Case, a Cell, a Layer or a pair"):
        check("conv", x)
    with pytest.raises(TypeError, match="subject is a function"):
        check(relu_forward, x)
    with pytest.raises(ValueError, match="0 arrays were given with the Dense, expected x"):
        check(Dense(3, 2))
    with pytest.raises(ValueError, match="2 arrays were given with the LSTMCell, expected xs"):
        check(LSTMCell(3, 2), x, x)
    with pytest.raises(ValueError, match=r"1 arrays were given with a Case, .* expected none"):
        check(zoo("conv/1d")[0], x)
    with pytest.raises(TypeError, match=r"settings \['train'\] do not apply to a Case"):
        check(zoo("conv/1d")[0], train=True)
    with pytest.raises(ValueError, match="2 arrays were given, relu takes 1 to 1: x"):
        check((relu_forward, relu_backward), x, x)
    with pytest.raises(TypeError, match=r"forward returned a ndarray, expected a tuple \(y, saved\)"):
        check((lambda x: 2 * x, lambda dy, s: 2 * dy), x)


def test_the_package_exports_what_it_documents():
    for name in package.__all__:
        assert callable(getattr(package, name))
        assert getattr(package, name).__doc__


# --- the command ---


def test_the_command_checks_what_is_named_and_prints_tables_of_few(capsys):
    assert command.run("conv/1d", False) == 0
    out = capsys.readouterr().out
    assert out.startswith("pass  conv/1d")
    assert "argument" in out
    assert out.endswith("1 passed, 0 failed\n")


def test_the_command_prints_a_line_a_case(capsys):
    assert command.run("pool") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(zoo("pool")) + 1 > 6
    assert all(line.startswith("pass  ") for line in lines[:-1])
    assert len({line.index("central") for line in lines[:-1]}) == 1  # aligned
    assert lines[-1] == f"{len(lines) - 1} passed, 0 failed"
    assert command.run("pool", verbose=True) == 0
    assert capsys.readouterr().out.count("argument") == len(lines) - 1


def test_the_command_fails_with_the_table_of_the_failure(capsys, monkeypatch):
    good = zoo("pool")
    bad = good[1]._replace(
        backward=lambda upstream, saved: {"x": 1.01 * good[1].backward(upstream, saved)["x"]}
    )
    monkeypatch.setattr(command, "zoo", lambda pattern: [good[0], bad, *good[2:]])
    assert command.run(None) == 1
    out = capsys.readouterr().out
    assert out.count("argument") == 1
    assert f"FAIL  {bad.name}" in out
    assert "culprit: x[" in out
    assert out.endswith(f"{len(good) - 1} passed, 1 failed\n")


def test_the_command_lists_and_refuses_unknown_names(capsys):
    assert command.run("lstm channel", listing=True) == 0
    names = capsys.readouterr().out.splitlines()
    assert "cell/ConvLSTM 2d peephole channel" in names
    assert all("channel" in name for name in names)
    assert command.run("sofmax") == 2
    error = capsys.readouterr().err
    assert error.startswith("gradcheck: no gradient check is named 'sofmax'; close names: ")
    assert "softmax" in error
    assert error.count("\n") == 1


def test_scan_backward_is_what_cell_cases_check(rng):
    """The case's gradients are those of the scan, by name."""
    cell = randomised(GRUCell(2, 3), rng)
    xs = rng.standard_normal((3, 2, 2))
    case = cell_case("gru", cell, xs, seed=4)
    outputs, saved = case.forward(case.arrays)
    upstream = {name: rng.standard_normal(y.shape) for name, y in outputs.items()}
    grads = case.backward(upstream, saved)
    state = type(cell.initial_state(xs[0]))
    dxs, dstate, expected = scan_backward(saved[0], upstream["ys"], state(upstream["h_last"]), saved[1])
    for name, value in {"xs": dxs, "h0": dstate.h, **expected}.items():
        np.testing.assert_array_equal(grads[name], value)
