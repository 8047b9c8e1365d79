"""The receptive field by arithmetic and by an impulse: where a gradient arrives."""

from __future__ import annotations

import numpy as np
import pytest

from tinyconvlstm.bptt import scan, scan_backward
from tinyconvlstm.cells import (
    ConvLSTMCell,
    FGRCell,
    GRUCell,
    LayerNormLSTMCell,
    LowRankLSTMCell,
    LSTMCell,
    ResetBeforeGRUCell,
    RNNCell,
    SeparableLSTMCell,
)
from tinyconvlstm.gradcheck.zoo_cells import randomised
from tinyconvlstm.receptive import receptive_field, stack_receptive_field


def seen(cells, rng, steps, sizes):
    """Widths, an axis each, of the pixels of every frame that one late pixel's gradient reaches."""
    cells = [randomised(cell, rng) for cell in cells]
    xs, tapes = rng.standard_normal((steps, 1, cells[0].channels, *sizes)), []
    for cell in cells:
        xs, _, tape = scan(cell, xs)
        tapes.append(tape)
    d = np.zeros(xs.shape)
    d[(-1, 0, 0, *(n // 2 for n in xs.shape[3:]))] = 1
    for cell, tape in zip(reversed(cells), reversed(tapes), strict=True):
        d, _, _ = scan_backward(cell, d, None, tape)
    widths = []
    for frame in d:
        where = np.nonzero(frame.any(axis=(0, 1)))
        widths.append(tuple(int(axis.max() - axis.min() + 1) for axis in where))
    return widths


@pytest.mark.parametrize(("kernel", "state_kernel"), [((3, 5), (5, 3)), ((1, 3), (3, 1)), ((2, 3), (4, 2))])
@pytest.mark.parametrize(("dilation", "state_dilation"), [((1, 1), (1, 1)), ((2, 1), (1, 3))])
def test_an_impulse_agrees_at_every_lag(kernel, state_kernel, dilation, state_dilation, rng):
    settings = {"state_kernel": state_kernel, "dilation": dilation, "state_dilation": state_dilation}
    cell = ConvLSTMCell(2, 2, kernel, **settings)
    found = seen([cell], rng, 4, (41, 43))
    for t, widths in enumerate(found):
        expected = tuple(
            receptive_field(
                kernel[a], state_kernel[a], 4 - t, dilation_x=dilation[a], dilation_h=state_dilation[a]
            )
            for a in (0, 1)
        )
        assert widths == expected == stack_receptive_field([cell], 4 - t)


@pytest.mark.parametrize("build", [RNNCell, GRUCell, FGRCell, SeparableLSTMCell, LowRankLSTMCell])
def test_it_holds_for_every_cell_that_reads_its_state_once_a_step(build, rng):
    more = {"rank": 2} if build is LowRankLSTMCell else {}
    cell = build(2, 2, (3,), state_kernel=(5,), **more)
    assert seen([cell], rng, 3, (31,)) == [(11,), (7,), (3,)]
    assert stack_receptive_field(cell, 3) == (11,)


@pytest.mark.parametrize(
    "settings",
    [
        [{"kernel": (3,)}, {"kernel": (5,)}, {"kernel": (3,)}],
        [{"kernel": (3,), "state_kernel": (5,)}, {"kernel": (5,), "state_kernel": (3,)}],
        [{"kernel": (3,), "stride": 2}, {"kernel": (3,), "state_kernel": (5,)}],
        [{"kernel": (3,)}, {"kernel": (3,), "stride": 3, "state_kernel": (2,)}],
        [{"kernel": (3,), "dilation": 2}, {"kernel": (1,), "state_dilation": 3, "state_kernel": (3,)}],
    ],
)
def test_stacks_take_each_step_in_the_layer_that_sees_furthest(settings, rng):
    cells = [ConvLSTMCell(2, 2, **chosen) for chosen in settings]
    found = seen(cells, rng, 3, (84,))
    assert found == [stack_receptive_field(cells, 3 - t) for t in range(3)]


def test_small_kernels_see_less_and_a_state_kernel_of_one_tap_never_spreads():
    fields = [receptive_field(k, k, 10) for k in (1, 3, 5, 7)]
    assert fields == [1, 21, 41, 61]
    assert receptive_field(5, 1, 1000) == 5
    assert receptive_field(3, 3, 1) == 3


def test_what_the_formula_does_not_cover_is_refused():
    with pytest.raises(TypeError, match="ResetBeforeGRUCell, whose state reaches further in a step"):
        stack_receptive_field([ResetBeforeGRUCell(1, 2, (3,))], 3)
    with pytest.raises(TypeError, match="LayerNormLSTMCell"):
        stack_receptive_field([LayerNormLSTMCell(1, 2, (3,))], 3)
    with pytest.raises(ValueError, match="without input"):
        stack_receptive_field([ConvLSTMCell(0, 2, (3,))], 3)
    with pytest.raises(ValueError, match="cells have 1 and 2 spatial axes"):
        stack_receptive_field([ConvLSTMCell(1, 2, (3,)), ConvLSTMCell(2, 2, (3, 3))], 3)
    with pytest.raises(ValueError, match="cells is empty"):
        stack_receptive_field([], 3)
    with pytest.raises(ValueError, match="steps is 0, expected at least 1"):
        receptive_field(3, 3, 0)
    assert stack_receptive_field([LSTMCell(2, 3)], 3) == ()
