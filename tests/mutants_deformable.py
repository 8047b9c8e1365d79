"""Mistakes in sampling, in deformable convolution, in its cell, and in cells and stacks with clocks."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinyconvlstm.cells import DeformableLSTMCell

from . import test_deformable, test_sampling
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

DEFORMABLES: dict[str, list[Mutant]] = {
    "Sampling between pixels": SAMPLING,
    "Deformable convolution": DEFORM,
    "Deformable cell": DEFORMABLE,
}
