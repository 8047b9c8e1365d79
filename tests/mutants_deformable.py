"""Mistakes in sampling, in deformable convolution, in its cell, and in cells and stacks with clocks."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinyconvlstm.cells import DeformableLSTMCell

from . import test_clocks, test_deformable, test_sampling
from .killers import gradient, seeded, test
from .mutation import Killer, Mutant
from .test_cells import against_oracle, setting


def sampling(size: tuple[int, ...] = (3, 4)) -> Killer:
    """Sampling against the sum over all pixels."""
    return test(test_sampling.test_sampling_equals_the_sum_over_all_pixels, size, backend="numpy")


def deformed(name: str) -> Killer:
    """Deformable convolution against naive loops."""
    size, window = test_deformable.WINDOWS[name]
    return test(test_deformable.test_deformable_convolution_equals_naive_loops, size, window, backend="numpy")


def cell() -> None:
    """The deformable cell against naive loops, over two axes."""
    against_oracle(*setting(seeded(), DeformableLSTMCell(3, 2, (3, 2)), (3, 4)))


def patched(function: Callable[..., None]) -> Killer:
    """A test that changes sizes of the package while it runs."""

    def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            function(rng=seeded(), monkeypatch=patch)

    return Killer(f"`{function.__module__.rpartition('.')[2]}.{function.__name__}`", run)


LOOPS = Killer("naive loops, deformable 2d", cell)
UNEVEN = "2d strided, dilated, uneven padding"
AT, CORNERS, BACK = (f"ops.sampling:{name}" for name in ("sample_forward", "corners", "sample_backward"))
SAMPLING = [
    Mutant("corners' weights exchanged", CORNERS, "above[:, j] if s else 1 - above[:, j]", "1 - above[:, j] if s else above[:, j]", sampling()),
    Mutant("whole part by truncation, wrong below zero", CORNERS, "xp.floor(at.real)", "xp.trunc(at.real)", sampling()),
    Mutant("the border pixel repeated outside", CORNERS, "xp.clip(low[:, axis] + side, -1, size)", "xp.clip(low[:, axis] + side, 0, size - 1)", sampling()),
    Mutant("rows and columns exchanged", CORNERS, "low[:, axis] + side", "low[:, -1 - axis] + side", sampling()),
    Mutant("first pixel's centre at one half", CORNERS, "low = xp.floor(at.real)", "at = at - 0.5; low = xp.floor(at.real)", sampling()),
    Mutant("a value outside fades from two pixels away", CORNERS, "above = at - low", "above = xp.clip(at, -1, None) - low if 0 else at - low; above[:, 0] = above[:, 0] * above[:, 0]", sampling()),
    Mutant("all clips read the first frame", "ops.sampling:padded_pixels", "arange(N * C) * prod(sizes)", "arange(N * C) % C * prod(sizes)", sampling()),
    Mutant("corners overwrite each other in dx", BACK, "xp.add.at(dpixels, where.reshape(-1), (reduce(mul, factors)[:, None] * dy).reshape(-1))", "dpixels[where.reshape(-1)] = (reduce(mul, factors)[:, None] * dy).reshape(-1)", gradient("sample/2d")),
    Mutant("dx without the weights", BACK, "reduce(mul, factors)[:, None] * dy", "dy", gradient("sample/2d")),
    Mutant("coordinate gradient with the wrong sign below", BACK, "slope if side else -slope", "slope", gradient("sample/1d")),
    Mutant("coordinate gradient keeps its own factor", BACK, "factors[:axis] + factors[axis + 1 :]", "factors", gradient("sample/2d")),
    Mutant("coordinate gradient of the first channel alone", BACK, "(dy * pixels.take(where)).sum(axis=1)", "(dy * pixels.take(where))[:, 0]", gradient("sample/2d")),
    Mutant("axes of the coordinate gradient exchanged", BACK, "dat[:, axis] +=", "dat[:, -1 - axis] +=", gradient("sample/2d")),
    Mutant("gradient pixels shifted by the padding", BACK, "((1, 1),) * len(padded)", "((0, 2),) * len(padded)", gradient("sample/2d")),
]  # fmt: skip

PLACES, TAPS, DEFORM_BACK = (
    f"ops.deform_conv:{name}" for name in ("tap_places", "sampled_strips", "deform_conv_backward")
)
DEFORM = [
    Mutant("dilation forgotten", PLACES, "dilation * taps", "taps", deformed(UNEVEN)),
    Mutant("stride forgotten", PLACES, "stride * windows", "windows", deformed(UNEVEN)),
    Mutant("padding forgotten", PLACES, "- before)", "- 0 * before)", deformed("2d")),
    Mutant("padding after instead of before", PLACES, "[first for first, _ in geometry.pads]", "[last for _, last in geometry.pads]", deformed(UNEVEN)),
    Mutant("offsets subtracted", TAPS, "places[..., positions] + offsets", "places[..., positions] - offsets", deformed("2d")),
    Mutant("rows and columns of the offsets exchanged", TAPS, "offsets[block, ..., positions]", "offsets[block, :, ::-1, positions]", deformed("2d")),
    Mutant("offsets by coordinate, then tap", "ops.deform_conv:by_tap", "offset.reshape(len(offset), geometry.taps, len(geometry.kernel), geometry.positions)", "offset.reshape(len(offset), len(geometry.kernel), geometry.taps, geometry.positions).swapaxes(1, 2)", deformed("2d")),
    Mutant("every strip looks where the first one does", TAPS, "places[..., positions]", "places[..., : positions.stop - positions.start]", patched(test_deformable.test_in_blocks_and_strips_too_it_is_the_convolution_bit_for_bit)),
    Mutant("mask forgotten", "ops.deform_conv:deform_correlate", "values * m", "values", deformed("2d")),
    Mutant("mask of the first tap for all", TAPS, "masks[block, ..., positions]", "masks[block, :, :1, positions]", deformed("2d")),
    Mutant("bias forgotten", "ops.deform_conv:deform_correlate", "y_strip += plus[block, ..., positions]", "pass", deformed("2d")),
    Mutant("dw of unmasked columns", DEFORM_BACK, "cols = (values * m)", "cols = values", gradient("deform_conv/over 2d strided, dilated")),
    Mutant("dmask of masked columns", DEFORM_BACK, "(dcols * values).sum(axis=1)", "(dcols * values * m).sum(axis=1)", gradient("deform_conv/over 2d strided, dilated")),
    Mutant("dx and doffset without the mask", DEFORM_BACK, "sample_backward(dcols * m, sampled)", "sample_backward(dcols, sampled)", gradient("deform_conv/over 2d strided, dilated")),
    Mutant("strips overwrite each other's dx", DEFORM_BACK, "dx[block] += dx_strip", "dx[block] = dx_strip", patched(test_deformable.test_blocks_and_strips_do_not_change_the_gradients)),
    Mutant("doffset by coordinate, then tap", DEFORM_BACK, "dat.reshape(offset.shape)", "dat.swapaxes(1, 2).reshape(offset.shape)", gradient("deform_conv/over 2d strided, dilated")),
    Mutant("bias gradient missing", DEFORM_BACK, "conv_bias_backward(dy) if", "0 * conv_bias_backward(dy) if", gradient("deform_conv/over 1d")),
]  # fmt: skip

CELL = "cells.deformable:DeformableLSTMCell"
FRESH = test(test_deformable.test_a_fresh_cell_is_the_plain_cell_bit_for_bit, {}, np.float64)
DEFORMABLE = [
    Mutant("mask begins at one half", f"{CELL}.step", "m += 1", "m += 1; m *= 0.5", FRESH),
    Mutant("mask twice as steep", f"{CELL}.step", "m *= 0.5", "m *= 1", LOOPS),
    Mutant("offsets do not see h", f"{CELL}.step", "self.offset_map.forward(h, self.params, plus=z.q)", "self.offset_map.forward(0 * h, self.params, plus=z.q)", LOOPS),
    Mutant("offsets do not see x", f"{CELL}.step", "plus=z.q)", "plus=0 * z.q)", LOOPS),
    Mutant("masks and offsets exchanged", f"{CELL}.step", "q[:, : -self.taps], q[:, -self.taps :]", "q[:, self.taps :], q[:, : self.taps]", LOOPS),
    Mutant("gradient through the values dropped", f"{CELL}.step_backward", "dh += correlate_adjoint_x(", "dh = correlate_adjoint_x(", gradient("variant/deformable 2d")),
    Mutant("gradient through the offsets dropped", f"{CELL}.step_backward", "dh += correlate_adjoint_x(dq, state_map.w, state_map.geometry)", "pass", gradient("variant/deformable 2d")),
    Mutant("slope of an ordinary sigmoid", f"{CELL}.step_backward", "dm * m * (2 - m) / 2", "dm * m * (1 - m)", gradient("variant/deformable 1d")),
    Mutant("recurrent mask missing in backward", f"{CELL}.step_backward", "masked(dh, h_mask)", "dh", gradient("variant/deformable 1d recurrent dropout")),
    Mutant("offsets' part of dx forgotten", f"{CELL}.project_backward", "dxs += self.offset_input.backward_x(dqs, saved.q)", "pass", gradient("variant/deformable 1d")),
    Mutant("w_qx not learned", f"{CELL}.project_backward", "add_weight_grads(dqs,", "add_weight_grads([0 * dq for dq in dqs],", gradient("variant/deformable 1d")),
    Mutant("no gradient of w_h from rest", f"{CELL}.state_backward", 'grads.setdefault("w_h",', 'dict().setdefault("w_h",', test(test_deformable.test_from_rest_is_from_a_state_of_zeros)),
    Mutant("segments read the first steps' frames", f"{CELL}.projection_of", "part(saved.z, begin, end)", "part(saved.z, 0, end - begin)", patched(test_deformable.test_steps_taken_a_few_at_a_time_give_the_same)),
    Mutant("corners not counted", f"{CELL}.macs_per_position", " + corners", "", test(test_deformable.test_it_costs_what_it_says_and_keeps_what_it_says)),
]  # fmt: skip

CLOCK = "cells.clockwork:Clockwork"
TICKS = "cells.clockwork:ticks"


def clockwork(periods: tuple[int, ...] = (3, 1, 2)) -> Killer:
    """The clockwork LSTM against naive loops, module by module."""
    return test(
        test_clocks.test_clockwork_equals_naive_loops, *test_clocks.KINDS["LSTM"], periods, 1, backend="numpy"
    )


def clock(function: Callable[..., None]) -> Killer:
    """A test of the clockwork LSTM."""
    return test(function, *test_clocks.KINDS["LSTM"])


CLOCKS = [
    Mutant("ticks one step late", TICKS, "% period == 0", "% period == 1 % period", clockwork()),
    Mutant("moves where it should hold", TICKS, "== 0", "!= 0", clockwork()),
    Mutant("clocks stand still", "cells.clockwork:later", "+ 1) %", "+ 0) %", clockwork()),
    Mutant("cycle of the longest period alone", "cells.clockwork:later", "lcm(*periods)", "max(periods)", clockwork()),
    Mutant("links from fast to slow", f"{CLOCK}.__init__", "of_feature[:, None] <= of_feature", "of_feature[:, None] >= of_feature", clockwork()),
    Mutant("no links between equals", f"{CLOCK}.__init__", "of_feature[:, None] <= of_feature", "(of_feature[:, None] < of_feature)", test(test_clocks.test_periods_of_one_are_the_plain_cell_bit_for_bit, *test_clocks.KINDS["LSTM"], (1, 1), (3, 2), np.float64)),
    Mutant("modules interleaved", f"{CLOCK}.ticking", "xp.repeat(xp.stack(each, axis=1), self.features // len(self.periods), axis=1)", "xp.concatenate([xp.stack(each, axis=1)] * (self.features // len(self.periods)), axis=1)", clock(test_clocks.test_a_held_step_has_the_identity_as_its_jacobian)),
    Mutant("all links read", f"{CLOCK}.project", "w if self.links.all() else w * array_module(w).asarray(self.links)", "w", clockwork()),
    Mutant("c not held", f"{CLOCK}.step", "[xp.where(ticking, a, b) for a, b in zip(new, parts, strict=True)]", "[xp.where(ticking, new[0], parts[0]), *new[1:]]", clockwork()),
    Mutant("held gradient dropped", f"{CLOCK}.step_backward", "xp.where(ticking, 0, a)", "0 * a", gradient("variant/clockwork LSTM 1d")),
    Mutant("held gradient counted twice", f"{CLOCK}.step_backward", "xp.where(ticking, a, 0)", "a", gradient("variant/clockwork LSTM 1d")),
    Mutant("forbidden links learn", f"{CLOCK}.state_backward", 'if not self.links.all()', "if False", gradient("variant/clockwork LSTM 1d")),
    Mutant("recurrent mask forgotten", f"{CLOCK}.pre_activations", "masked(h, h_mask)", "h", gradient("variant/clockwork LSTM 1d recurrent dropout")),
    Mutant("every clip at the first one's time", f"{CLOCK}.ticking", "ticks(t, T)", "ticks(t[:1] + 0 * t, T)", clockwork()),
]  # fmt: skip

STACK = "cells.clock_stack:ClockStackCell"
HAND = test_clocks.test_a_stack_is_its_cells_stepped_by_hand
LEVELS = {"periods": (1, 2, 3), "pools": (2, 1), "top_down": True, "show": 0}


def by_hand() -> Killer:
    """A stack of three levels, its cells stepped by hand."""
    return test(HAND, (3, 2, 2), LEVELS, (4, 2), backend="numpy")


def levels(name: str = "2d three levels") -> Killer:
    """A stack's gradient check."""
    return gradient(f"variant/clock stack {name}")


STACKS = [
    Mutant("every level at the bottom's period", f"{STACK}.step", "self.periods[k]", "self.periods[0]", by_hand()),
    Mutant("reads the level below as it was", f"{STACK}.step", "below = levels[-1].h", "below = old.h", by_hand()),
    Mutant("reads the level above two up", f"{STACK}.step", "state.levels[k + 1].h", "state.levels[-1].h", by_hand()),
    Mutant("context before the input", f"{STACK}.step", "[read, repeated(state.levels[k + 1].h, read.shape[2:])]", "[repeated(state.levels[k + 1].h, read.shape[2:]), read]", by_hand()),
    Mutant("clips that hold move too", f"{STACK}.step", "hold(ticking, new, old)", "new", by_hand()),
    Mutant("nobody moves unless all do", f"{STACK}.step", "ticking.any()", "ticking.all()", by_hand()),
    Mutant("the top is always shown", f"{STACK}.step", "levels[self.show].h", "levels[-1].h", by_hand()),
    Mutant("pixels tiled instead of repeated", "cells.clock_stack:repeated", "array_module(h).repeat(h, size // h.shape[axis], axis=axis)", "array_module(h).concatenate([h] * (size // h.shape[axis]), axis=axis)", by_hand()),
    Mutant("mean of the patch not undone", f"{STACK}.step_backward", "avg_pool_backward(dx, level.pooled)", "4 * avg_pool_backward(dx, level.pooled)", levels()),
    Mutant("gradient of the shown h dropped", f"{STACK}.step_backward", "level.h + dstate.h", "level.h", levels()),
    Mutant("gradient of the shown h to the top", f"{STACK}.step_backward", "if k == self.show else", "if k == len(dstate.levels) - 1 else", levels()),
    Mutant("gradient to the context dropped", f"{STACK}.step_backward", "d[k + 1].h + gathered(", "d[k + 1].h + 0 * gathered(", levels()),
    Mutant("gradient to the level below dropped", f"{STACK}.step_backward", "d[k - 1].h + dx", "d[k - 1].h + 0 * dx", levels()),
    Mutant("held gradient dropped", f"{STACK}.step_backward", "b + h for", "b for", levels()),
    Mutant("moves with the gradient of those that hold", f"{STACK}.step_backward", "where(on, a, 0)", "a", levels()),
    Mutant("gradients of the context added up on the wrong pixels", "cells.clock_stack:gathered", "size, -1, *d.shape[axis + 1 :]).sum(axis=axis + 1)", "-1, size, *d.shape[axis + 1 :]).sum(axis=axis)", levels("1d strided, shown below")),
    Mutant("step's own gradients dropped", f"{STACK}.step_backward", "for name, value in step_grads.items():", "for name, value in ():", levels("1d peephole level")),
    Mutant("no gradient of a level that never ticked", f"{STACK}.state_backward", "grads.setdefault(name,", "dict().setdefault(name,", test(test_clocks.test_a_level_that_never_ticks_has_gradients_of_zero)),
    Mutant("ticks not counted", "layers.clocks:ClockStack.cost", "ceil(T / cell.periods[k])", "T", test(test_clocks.test_a_stack_costs_what_its_ticks_cost)),
]  # fmt: skip

DEFORMABLES: dict[str, list[Mutant]] = {
    "Sampling between pixels": SAMPLING,
    "Deformable convolution": DEFORM,
    "Deformable cell": DEFORMABLE,
    "Clockwork": CLOCKS,
    "Stacked clocks": STACKS,
}
