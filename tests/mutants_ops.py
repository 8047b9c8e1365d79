"""Mistakes in operations, losses and optimisers, forward and backward."""
# ruff: noqa: E501

from __future__ import annotations

import numpy as np

from tinyconvlstm.ops import im2col_only
from tinyconvlstm.ops.overlapping import Overlapping
from tinyconvlstm.ops.tiled import Tiled

from . import (
    test_conv_transpose,
    test_lowerings,
    test_optim,
    test_parallel,
    test_pooling,
    test_windows,
    test_winograd,
)
from .killers import (
    AVG_POOL,
    BINARY,
    BLOCKS,
    CROSS_ENTROPY,
    MASK,
    MASKED_MEAN,
    MAX_POOL,
    MAX_POOL_NAN,
    RUNNING,
    STANDARDISED,
    STRIPS,
    adjoint,
    by_winograd,
    convolution,
    gradient,
    test,
    with_shared_rows,
    within,
)
from .mutation import Mutant

OVER = "ops.windows:Window.over"
UNEVEN, SQUARE, DILATED = (
    convolution("strided, dilated, uneven padding"),
    convolution("square"),
    convolution("same, dilated"),
)
EVEN, GROUPED = convolution("same, even kernel"), convolution("square", groups=2)
GROUPED_PLAIN = within(im2col_only, GROUPED, "by im2col")
ADJOINT, ADJOINT_SQUARE = adjoint("strided, dilated, uneven padding"), adjoint("square")
CONV, STRIDED = gradient("conv/2d even kernel"), gradient("conv/2d strided, dilated, grouped")


IN_THREADS = test(test_parallel.test_convolutions_in_threads, 2)
LESS = test(test_windows.test_taps_that_fill_x_leave_nothing_to_clear)
ONE_TAP = test(test_windows.test_col2im_of_an_axis_with_one_tap_and_padding)
STRIPS_BACK = test(test_lowerings.test_strips_of_im2col_are_added_back_where_they_were_read)
CLEARED = test(test_windows.test_col2im_clears_what_it_does_not_write)

WINDOWS = [
    Mutant("stride ignored by the copy", "ops.columns:patches", "[s * row for s, row", "[row for s, row", UNEVEN),
    Mutant("stride of the last axis ignored by the copy", "ops.columns:patches", "geometry.stride[-1] * step", "step", STRIPS),
    Mutant("dilation ignored by the copy", "ops.columns:patches", "[d * row for d, row", "[row for d, row", DILATED),
    Mutant("dilation of the last axis ignored by the copy", "ops.columns:patches", "geometry.dilation[-1] * step", "step", UNEVEN),
    Mutant("columns in another order", "ops.columns:columns", "return patches(padded, geometry).reshape(", "return patches(padded, geometry)[:, :, ::-1].reshape(", ADJOINT_SQUARE),
    Mutant("column index of col2im", "ops.columns:additions", "(*lead, reach.tap,", "(*lead, geometry.kernel[axis] - 1 - reach.tap,", ADJOINT_SQUARE),
    Mutant("overlaps overwritten", "ops.columns:add_columns", "there += cols[tap]", "there[...] = cols[tap]", ADJOINT),
    Mutant("taps that meet overwrite each other", "ops.columns:additions", "reach.windows), reach not in alone", "reach.windows), False", ADJOINT_SQUARE),
    Mutant("taps of all strides apart meet unseen", "ops.columns:writers", "reach.pixels.start % geometry.stride[axis]", "reach.tap", CLEARED),
    Mutant("of two taps the one writes that reads less", "ops.columns:writers", "reach.windows.start - reach.windows.stop", "reach.windows.stop - reach.windows.start", LESS),
    Mutant("a rest that is not cleared", "ops.columns:gaps", "edges[::2], edges[1::2]", "edges[2::2], edges[3::2]", CLEARED),
    Mutant("columns added one pixel further on", "ops.columns:reaches", "d * tap - before", "d * tap - before + 1", ADJOINT_SQUARE),
    Mutant("an axis of one tap read from its padding", "ops.columns:additions", "reads[axis][0].windows if axis in plain else slice(None)", "slice(geometry.sizes[axis]) if axis in plain else slice(None)", ONE_TAP),
    Mutant("a strip writes where it should add", "ops.conv:correlate_adjoint_x", "not positions.start", "True", STRIPS_BACK),
    Mutant("strips all begin at the first pixel", "ops.windows:placed", "before - begin", "before", STRIPS_BACK),
    Mutant("padding cropped from the wrong end", "ops.windows:inside", "slice(before, n - after)", "slice(after, n - before)", UNEVEN),
    Mutant("padding on the wrong side", "ops.windows:frame", "inside(around, pads)", "inside(around, tuple(p[::-1] for p in pads))", UNEVEN),
    Mutant("dilation counted twice", OVER, "tuple(d * (k - 1) + 1", "tuple(d * d * (k - 1) + 1", DILATED),
    Mutant("padding multiplied by the dilation", OVER, "self._pads(sizes, span, stride)", "tuple((b * d, a * d) for (b, a), d in zip(self._pads(sizes, span, stride), dilation, strict=True))", UNEVEN),
    Mutant("same padding without the dilation", "ops.windows:Window._pads", "s + k - n, 0)", "s + min(k, 3) - n, 0)", DILATED),
    Mutant("odd pixel before the start", "ops.windows:Window._pads", "tuple((t // 2, t - t // 2) for t in totals)", "tuple((t - t // 2, t // 2) for t in totals)", EVEN),
    Mutant("half the kernel on each side", "ops.windows:Window._pads", "tuple((t // 2, t - t // 2) for t in totals)", "tuple((-(-t // 2), -(-t // 2)) for t in totals)", EVEN),
    Mutant("upper and lower exchanged", "ops.windows:Window._pads", '== "same_lower"', '!= "same_lower"', EVEN),
]  # fmt: skip

CONVOLUTION = [
    Mutant("kernel flipped", "ops.lowering:Im2col.weights", "rows(w, self.groups)", "rows(w[..., ::-1, ::-1], self.groups)", SQUARE),
    Mutant("groups of features exchanged", "ops.lowering:rows", "w.reshape(groups, w.shape[0] // groups, -1)", "w.reshape(groups, w.shape[0] // groups, -1)[::-1]", GROUPED_PLAIN),
    Mutant("groups interleaved", "ops.lowering:Im2col.forward", "cols.reshape(len(cols), *weights.shape[::2], -1)", "cols.reshape(len(cols), *weights.shape[2::-2], -1).swapaxes(1, 2)", GROUPED_PLAIN),
    Mutant("bias twice", "ops.lowering:Im2col.forward", "y += plus", "y += 2 * plus", CONV),
    Mutant("dx of the first clips for all", "ops.conv:conv_weight_backward", "own = dy[clips]", "own = dy[: len(dy[clips])]", IN_THREADS),
    Mutant("bias gradient of the first part alone", "ops.conv:conv_weight_backward", "reduce(add_in_place, dbs)", "dbs[0]", IN_THREADS),
    Mutant("weight gradient of the first part alone", "ops.conv:conv_weight_backward", "reduce(add_in_place, dws)", "dws[0]", IN_THREADS),
    Mutant("bias gradient averaged over the batch", "ops.conv:conv_bias_backward", "dy.sum(axis=(0, *range(2, dy.ndim)))", "dy.sum(axis=(0, *range(2, dy.ndim))) / len(dy)", CONV),
    Mutant("bias gradient of one pixel", "ops.conv:conv_bias_backward", "dy.sum(axis=(0, *range(2, dy.ndim)))", "dy.reshape(*dy.shape[:2], -1)[:, :, 0].sum(axis=0)", CONV),
    Mutant("weight gradient scaled once per sample", "ops.lowering:Im2col.backward_w", "return matmul(cols", "return matmul(cols / samples", CONV),
    Mutant("weight gradient of the last block", "ops.conv:correlate_adjoint_w_steps", "more if dweights is None else add_in_place(dweights, more)", "more", BLOCKS),
    Mutant("first block alone", "parallel:cuts", "share.stop, size)", "share.stop, size + 1)", BLOCKS),
    Mutant("strips one row apart", "ops.windows:strips", "begin * geometry.stride[0]", "begin", STRIPS),
    Mutant("positions of the first strip again", "ops.windows:strips", "slice(begin * prod(rest), end * prod(rest))", "slice(0, (end - begin) * prod(rest))", STRIPS),
    Mutant("kernel turned on the way back", "ops.lowering:Im2col.backward_x", "weights.swapaxes(1, 2)", "weights[..., ::-1].swapaxes(1, 2)", STRIDED),
    Mutant("adjoint kernel not flipped", "ops.conv:flipped", "slice(None, None, -1)", "slice(None)", CONV),
    Mutant("adjoint padded on the wrong side", "ops.conv:mirrored", "(d * (k - 1) - before, size - out + before)", "(size - out + before, d * (k - 1) - before)", CONV),
    Mutant("output_padding reads behind the array", "ops.conv:mirrored", "size - out + before", "d * (k - 1) - before", test(test_conv_transpose.test_the_mirror_reads_what_there_is_and_no_more, 1, 1)),
    Mutant("transposed convolution: features flipped", "ops.conv_transpose:conv_transpose_backward", "correlate_adjoint_w(x, dy, geometry, groups)", "correlate_adjoint_w(x[::-1], dy, geometry, groups)", gradient("conv_transpose/2d")),
    Mutant("transposed convolution: no bias gradient sum", "ops.conv_transpose:conv_transpose_backward", "conv_bias_backward(dy)", "conv_bias_backward(dy[:1])", gradient("conv_transpose/2d")),
    Mutant("linear: gradient averaged over the batch", "ops.linear:linear_backward", "return ", "dy = dy / len(dy); return ", gradient("linear")),
]  # fmt: skip

TOOM_COOK = by_winograd(convolution("square"))
TILES = by_winograd(gradient("conv/2d by Winograd"))
VOLUME = by_winograd(gradient("conv/3d by Winograd"))
HANGING = by_winograd(gradient("conv/2d even kernel"))

STRIPED = by_winograd(
    test(
        test_winograd.test_strips_and_tiles_that_hang_over_change_nothing,
        None,
        kernel=(3, 3),
        dilation=2,
        shortest=1,
    )
)
SQUARE_WEIGHTS = by_winograd(test(test_winograd.test_square_weights_are_kept_both_ways, None))
ADDED = by_winograd(test(test_winograd.test_what_is_added_is_added_once, None))
APART = with_shared_rows(test(test_lowerings.test_a_dilated_axis_is_two_axes, None, dilation=3, size=22))

WINOGRAD = [
    Mutant("signs of the scales lost", "ops.winograd:toom_cook", "np.prod(p - rest)", "np.abs(np.prod(p - rest))", TOOM_COOK),
    Mutant("infinity forgotten among the values", "ops.winograd:toom_cook", "a_t[-1, -1] = points ** np.arange(m)[:, None], 1", "a_t[-1, -1] = points ** np.arange(m)[:, None], 0", TOOM_COOK),
    Mutant("infinity reads the first tap", "ops.winograd:toom_cook", "g[-1, -1] = points", "g[-1, 0] = points", TOOM_COOK),
    Mutant("coefficients highest first", "ops.winograd:toom_cook", "np.atleast_1d(np.poly(roots))[::-1]", "np.atleast_1d(np.poly(roots))", TOOM_COOK),
    Mutant("tiles read outputs apart", "ops.winograd:evaluated", "m * d * row, row, value, d * row", "m * row, row, value, d * row", STRIPED),
    Mutant("values of the axes exchanged", "ops.winograd:evaluated", "made.transpose(0, 3, 4, 5, 2, 1, 6)", "made.transpose(0, 3, 4, 5, 1, 2, 6)", TOOM_COOK),
    Mutant("points in another order", "ops.winograd:evaluated", "xp.matmul(matrix, tiles, out=into)", "xp.matmul(matrix[::-1], tiles, out=into)", VOLUME),
    Mutant("values interpolated across axes", "ops.winograd:interpolated", "tiles.transpose(*range(k), k + 2, k + 3, k + 4, k + 1, k, k + 5)", "tiles.transpose(*range(k), k + 2, k + 3, k + 4, k, k + 1, k + 5)", TOOM_COOK),
    Mutant("outputs of the tiles that hang over", "ops.winograd:interpolated", "made = made[..., : sizes[-1]]", "made = made[..., -sizes[-1] :]", HANGING),
    Mutant("what is added replaces the sum", "ops.winograd:interpolated", "xp.add(made, plus, out=y)", "xp.add(plus, 0, out=y)", ADDED),
    Mutant("the first features' bias for all", "ops.winograd:Winograd.forward", "plus[:, some]", "plus[:, : some.stop - some.start]", ADDED),
    Mutant("outputs side by side, not a dilation apart", "ops.winograd:band", "found[:, tile, image, tile, :, image] = matrix", "found[:, tile, image, tile, :, d - 1 - image] = matrix", STRIPED),
    Mutant("pixels before the strip left out", "ops.winograd:channels_last", "slice(first - before, max(first, stop) - before)", "slice(0, max(first, stop) - first)", STRIPED),
    Mutant("room for padding at the end alone", "ops.winograd:channels_last", "there.append(slice(first, stop))", "there.append(slice(0, stop - first))", TOOM_COOK),
    Mutant("features of a part in the place of another", "ops.winograd:Winograd.backward_w", "dy[:, :, some]", "dy[:, :, : some.stop - some.start]", STRIPED),
    Mutant("zeros of the hanging tiles come first", "ops.winograd:spread", "((0, 0),) * len(axes)", "tuple((n - s, 0) for n, s in zip((a.outputs for a in axes), dy.shape[3:]))", HANGING),
    Mutant("taps not gathered", "ops.winograd:Winograd.weights_adjoint", '"g_t", self.kernel', '"g_t", self.kernel[::-1]', HANGING),
    Mutant("channels and features exchanged in dw", "ops.winograd:Winograd.weights_adjoint", "made.transpose(0, 3, 2, 1)", "made.transpose(0, 2, 3, 1)", VOLUME),
    Mutant("blocks of features in another order", "ops.winograd:Winograd.weights", ".transpose(3, 0, 2, 1)", "[::-1].transpose(3, 0, 2, 1)", STRIPED),
    Mutant("turned weights kept as the others", "ops.conv:correlate", "(lowering, turned)", "lowering", SQUARE_WEIGHTS),
    Mutant("rows of the strip's end", "ops.dilated:Dilated.split", "slice(rows))", "slice(-rows, None))", APART),
    Mutant("rows in vain written over others", "ops.dilated:Dilated.forward", "whole[..., :p]", "whole[..., -p:]", APART),
    Mutant("rows in vain come first on the way back", "ops.dilated:completed", "[dy, xp.zeros((*dy.shape[:-1], lacking), dtype=dy.dtype)]", "[xp.zeros((*dy.shape[:-1], lacking), dtype=dy.dtype), dy]", APART),
    Mutant("room for dilated rows before the first", "ops.dilated:Dilated.__init__", "(before, behind)", "(behind, before)", APART),
    Mutant("old weights of the scan before", "ops.lowering:unchanging", "_kept.reset(token)", "pass", test(test_winograd.test_weights_that_change_in_place_are_transformed_anew)),
]  # fmt: skip

BY_ROWS, ROWS_STRIDED = with_shared_rows(convolution("square")), with_shared_rows(STRIDED)
ROWS = with_shared_rows(gradient("conv/2d even kernel"))
ALL_WAYS = test_lowerings.test_it_is_im2col
GROUPED_ROWS = test(ALL_WAYS, (9, 7), (3, 2), 4, 6, 2, {}, Overlapping, False)
DEPTHWISE = test(ALL_WAYS, (9, 19), (3, 3), 4, 8, 4, {}, Tiled, False)
DEPTHWISE_STRIDED = test(ALL_WAYS, (9, 16), (3, 2), 6, 3, 3, {"stride": 2, "dilation": (1, 2)}, Tiled, False)
CUT = test(test_lowerings.test_a_product_in_pieces_is_the_product, (3, 96, 100), (3, 100, 256), np.float64)
CUT_LONG = test(
    test_lowerings.test_a_product_in_pieces_is_the_product, (2, 1, 48, 576), (5, 576, 96), np.float64
)
SIZES = test(test_lowerings.check_pieces, 48, 100, 512, True)

LOWERINGS = [
    Mutant("each row reads the first one's patches", "ops.overlapping:Overlapping.forward", "strip.stride[0] * row, 0, columns", "0, 0, columns", BY_ROWS),
    Mutant("rows without their stride", "ops.overlapping:Overlapping.forward", "strip.stride[0] * row", "row", ROWS_STRIDED),
    Mutant("features of two groups exchanged", "ops.overlapping:Overlapping.forward", "w = weights.reshape(", "w = weights[::-1].reshape(", GROUPED_ROWS),
    Mutant("taps of the first axis fastest in w", "ops.overlapping:Overlapping.weights", ".swapaxes(2, 3)", "", BY_ROWS),
    Mutant("taps of the first axis fastest in dw", "ops.overlapping:Overlapping.weights_adjoint", "groups, first, -1, prod(others), features)", "groups, -1, first, prod(others), features).swapaxes(2, 3)", ROWS),
    Mutant("every tap reads the first one's rows", "ops.overlapping:Overlapping.backward_w", "across * item, line, item)", "0, line, item)", ROWS),
    Mutant("one sample's rows meet the next one's", "ops.overlapping:Overlapping.backward_w", "apart[..., :positions] = dy", "apart[..., -positions:] = dy", ROWS),
    Mutant("rows of strided taps in im2col's order", "ops.overlapping:Overlapping.backward_w", "return taps_last.swapaxes(2, 3).reshape(dw.shape)", "return dw", ROWS_STRIDED),
    Mutant("a band without its stride", "ops.tiled:Tiled.diagonals", "i * self.stride", "i", DEPTHWISE_STRIDED),
    Mutant("a band without its dilation", "ops.tiled:Tiled.diagonals", "begin + reach : self.dilation, i]", "begin + self.kernel[-1], i]", DEPTHWISE_STRIDED),
    Mutant("dw of the first output of a tile", "ops.tiled:Tiled.weights_adjoint", "self.diagonals(band))", "self.diagonals(band)[:1])", DEPTHWISE),
    Mutant("outputs that hang over written to the next row", "ops.tiled:Tiled.forward", "found[..., :across]", "found[..., -across:]", DEPTHWISE),
    Mutant("gradients of what hangs over", "ops.tiled:Tiled.spread", "room[..., :across] = dy", "room[..., -across:] = dy", DEPTHWISE),
    Mutant("dx of one feature of a channel", "ops.tiled:Tiled.backward_x", ".sum(axis=2)", "[:, :, 0]", test(ALL_WAYS, (9, 19), (3, 3), 4, 8, 4, {"stride": 2}, Tiled, False)),
    Mutant("dw of the features exchanged", "ops.tiled:Tiled.backward_w", "dy.transpose(0, 2, 3, 1, 4)", "dy[:, :, :, ::-1].transpose(0, 2, 3, 1, 4)", DEPTHWISE),
    Mutant("room for the last tile at the start", "ops.tiled:widened", "(before, max(after, lacking))", "(before + max(0, lacking - after), after)", DEPTHWISE),
    Mutant("strips that end within a tile", "ops.tiled:Tiled.__init__", "self.m if len(geometry.out) == 1 else 1", "1", test(test_lowerings.test_strips_of_a_single_axis_are_whole_tiles)),
    Mutant("pieces of columns in another order", "ops.products:matmul", "terms, columns // n, n).swapaxes(-3, -2)", "terms, columns // n, n).swapaxes(-3, -2)[..., ::-1, :, :]", CUT),
    Mutant("the last terms of a long sum", "ops.products:dots", "range(0, terms, length)", "range(0, terms - length, length)", CUT_LONG),
    Mutant("pieces that are not small", "ops.products:pieces", "LARGEST_DOTS if transposed else LARGEST", "LARGEST", SIZES),
]  # fmt: skip

POOLS = [
    Mutant("the last tap wins", "ops.pooling:max_pool_forward", "value != best", "value <= best", MAX_POOL),
    Mutant("every tap that lost counts", "ops.pooling:max_pool_forward", "lost & (value != best)", "(value != best)", MAX_POOL),
    Mutant("padding of zeros", "ops.pooling:max_pool_forward", "geometry.pads, -inf)", "geometry.pads, 0.0)", MAX_POOL),
    Mutant("NaN overlooked", "ops.pooling:max_pool_forward", "xp.maximum(best, value,", "xp.fmax(best, value,", MAX_POOL_NAN),
    Mutant("NaN without a gradient", "ops.pooling:max_pool_forward", " & (value == value)", "", MAX_POOL_NAN),
    Mutant("a loser gets 0 times infinity", "ops.pooling:kept", '(x.view(f"u{x.dtype.itemsize}") * mask).view(x.dtype)', "x * mask", MAX_POOL_NAN),
    Mutant("gradient to the first tap", "ops.pooling:max_pool_backward", "winner == number", "number == 0", MAX_POOL),
    Mutant("gradient to every tap", "ops.pooling:max_pool_backward", "winner == number", "winner == winner", MAX_POOL),
    Mutant("overlapping windows overwrite", "ops.pooling:spread", "s > d * (k - 1)", "s >= d", gradient("max_pool/2d dilated")),
    Mutant("the padding's gradient kept", "ops.pooling:spread", "crop(padded, geometry.pads)", "padded[(..., *map(slice, geometry.sizes))]", MAX_POOL),
    Mutant("the first block's planes for all", "ops.pooling:by_planes", "*(a[block] for a in planes)", "planes[0][: block.stop - block.start], *(a[block] for a in planes[1:])", test(test_pooling.test_planes_in_blocks_are_planes_at_once, test_pooling.AVG)),
    Mutant("the last tap of a row for those between", "ops.pooling:avg_pool_forward", "total += other", "total[...] = other", AVG_POOL),
    Mutant("shares that meet overwrite each other", "ops.pooling:axes_of", "s > d * (k - 1)", "s >= d", gradient("avg_pool/1d")),
    Mutant("divisor ignored on the way back", "ops.pooling:avg_pool_backward", "dy / divisor", "dy / 1", gradient("avg_pool/1d")),
    Mutant("padding counted where it should not", "ops.pooling:avg_pool_forward", "if count_include_pad else none", "", AVG_POOL),
    Mutant("divisor counts what hangs over", "ops.pooling:avg_pool_forward", "replace(window, ceil=False)", "window", AVG_POOL),
    Mutant("global average without its divisor", "ops.pooling:global_avg_pool_backward", "dy / prod(sizes)", "dy", gradient("global_avg_pool")),
    Mutant("global maximum to the wrong pixel", "ops.pooling:global_max_pool_backward", "winner[..., None]", "winner[..., None] + 1", gradient("global_max_pool")),
]  # fmt: skip

BATCH_NORM, LAYER_NORM, SOFTMAX = (
    gradient("batch_norm/2d"),
    gradient("layer_norm"),
    gradient("softmax/last axis"),
)
NORMS = [
    Mutant("eps forgotten", "ops.standardise:standardise", "xp.sqrt(var + eps)", "xp.sqrt(var)", STANDARDISED),
    Mutant("eps outside the root", "ops.standardise:standardise", "1 / xp.sqrt(var + eps)", "1 / (xp.sqrt(var) + eps)", STANDARDISED),
    Mutant("variance without the mean", "ops.standardise:standardise", "(centred * centred).mean(", "(x * x).mean(", STANDARDISED),
    Mutant("gradient through the mean dropped", "ops.standardise:standardise_backward", " - dx_hat.mean(axis=axes, keepdims=True)", "", BATCH_NORM),
    Mutant("gradient through the variance dropped", "ops.standardise:standardise_backward", " - x_hat * along", "", LAYER_NORM),
    Mutant("gamma forgotten on the way back", "ops.norm:batch_norm_backward", "per_channel(saved.gamma, dy) * dy", "dy", BATCH_NORM),
    Mutant("gradients of gamma and beta exchanged", "ops.norm:scale_and_shift_grads", "(dy * x_hat).sum(axis=axes), dy.sum(axis=axes)", "dy.sum(axis=axes), (dy * x_hat).sum(axis=axes)", gradient("group_norm")),
    Mutant("running variance biased", "layers.norm:BatchNorm.update_buffers", "saved.members / (saved.members - 1)", "1", RUNNING),
    Mutant("momentum of the old statistics", "layers.norm:BatchNorm.update_buffers", 'self.buffers["mean"] += self.momentum', 'self.buffers["mean"] += (1 - self.momentum)', RUNNING),
]  # fmt: skip

FUNCTIONS = [
    Mutant("sigmoid: derivative of the output's sigmoid", "ops.activations:sigmoid_backward", "saved.y * (1 - saved.y)", "sigmoid(saved.y) * (1 - sigmoid(saved.y))", gradient("sigmoid")),
    Mutant("tanh: not squared", "ops.activations:tanh_backward", "saved.y * saved.y", "saved.y", gradient("tanh")),
    Mutant("ReLU: passes everything", "ops.activations:relu_backward", "saved.y.real <= 0, 0, dy", "saved.y.real <= 0, dy, dy", gradient("relu")),
    Mutant("leaky ReLU: slope forgotten", "ops.activations:leaky_relu_backward", "slope * dy", "0 * dy", gradient("leaky_relu")),
    Mutant("GELU: slope of the gate forgotten", "ops.activations:gelu_backward", "gate + x_slope", "gate", gradient("gelu")),
    Mutant("softmax: backward returns zeros", "ops.activations:softmax_backward", "return y * (dy - (dy * y).sum(axis=axis, keepdims=True))", "return 0 * dy", SOFTMAX),
    Mutant("softmax: diagonal of the Jacobian", "ops.activations:softmax_backward", "y * (dy - (dy * y).sum(axis=axis, keepdims=True))", "dy * y * (1 - y)", SOFTMAX),
    Mutant("log-softmax: p forgotten", "ops.activations:log_softmax_backward", "array_module(dy=dy, y=y).exp(y) * dy.sum", "dy.sum", gradient("log_softmax/last axis")),
    Mutant("dropout: not scaled", "ops.dropout:dropout_mask", "mask / (1 - rate)", "mask / 1", MASK),
    Mutant("dropout: keeps what it should drop", "ops.dropout:dropout_mask", ">= rate", "< rate", MASK),
    Mutant("dropout: backward without mask", "ops.dropout:dropout_backward", "dy * saved.mask", "dy * 1", gradient("dropout")),
    Mutant("embedding: repeated indices counted once", "ops.embedding:embedding_backward", "xp.add.at(dw, indices, dy)", "dw[indices] += dy", gradient("embedding")),
    Mutant("mean over masked elements too", "ops.losses:reduce_losses", "int(keep.sum())", "losses.size", MASKED_MEAN),
    Mutant("masked elements get a gradient", "ops.losses:spread", "dy if keep is None else", "dy if True else", gradient("mse/sum, masked")),
    Mutant("mean's divisor forgotten on the way back", "ops.losses:spread", "dloss / divisor", "dloss", gradient("mae/masked")),
    Mutant("upstream gradient forgotten", "ops.losses:spread", "(dloss / divisor)", "(1 / divisor)", gradient("mse/sum, masked")),
    Mutant("MSE: factor 2 forgotten", "ops.losses:mse_backward", "2 * (saved.y - saved.target)", "(saved.y - saved.target)", gradient("mse")),
    Mutant("MAE: sign exchanged", "ops.losses:mae_backward", "(saved.y - saved.target)", "(saved.target - saved.y)", gradient("mae")),
    Mutant("Huber: never clipped", "ops.losses:huber_backward", "clip(y - target, delta)", "y - target", gradient("huber/masked")),
    Mutant("binary cross-entropy: targets exchanged", "ops.losses:binary_cross_entropy_forward", "positive - logits * target", "positive - logits * (1 - target)", BINARY),
    Mutant("binary cross-entropy: derivative of the sigmoid once more", "ops.losses:binary_cross_entropy_backward", "sigmoid(logits) - target", "(sigmoid(logits) - target) * sigmoid(logits) * (1 - sigmoid(logits))", gradient("binary_cross_entropy/sum")),
    Mutant("cross-entropy: smoothing forgotten", "ops.cross_entropy:smoothed", "(1 - label_smoothing) * q + label_smoothing / log_p.shape[1]", "q", CROSS_ENTROPY),
    Mutant("cross-entropy: smoothing not divided", "ops.cross_entropy:smoothed", "label_smoothing / log_p.shape[1]", "label_smoothing", CROSS_ENTROPY),
    Mutant("cross-entropy: labels ignored on the way back", "ops.cross_entropy:cross_entropy_backward", "keepdims=True) - q", "keepdims=True)", gradient("cross_entropy/smoothed")),
    Mutant("cross-entropy: soft labels taken for normalised", "ops.cross_entropy:cross_entropy_backward", "xp.exp(log_p) * q.sum(axis=1, keepdims=True) - q", "xp.exp(log_p) * 2 * q.sum(axis=1, keepdims=True) - q", gradient("cross_entropy/soft, sum")),
    Mutant("patches: channels and pixels exchanged", "ops.patches:to_depth", "im2col(x, geometry)", "im2col(x[:, ::-1], geometry)", gradient("space_to_depth")),
]  # fmt: skip


def rule(kind: str) -> object:
    return test(test_optim.test_rules_by_hand_and_in_place, kind, "numpy")


SGD, RMSPROP, ADAM, UPDATE = (
    "optim:SGD._apply",
    "optim:RMSProp._apply",
    "optim:Adam._apply",
    "optimizer:Optimizer.update",
)
OPTIMISERS = [
    Mutant("uphill", SGD, "p -= lr * g", "p += lr * g", rule("sgd")),
    Mutant("momentum's sign", SGD, "m *= self.momentum", "m *= -self.momentum", rule("momentum")),
    Mutant("momentum forgets the past", SGD, "m *= self.momentum", "m *= 0", rule("momentum")),
    Mutant("gradient damped by the momentum", SGD, "m += g", "m += (1 - self.momentum) * g", rule("momentum")),
    Mutant("Nesterov without looking ahead", SGD, "if self.nesterov else m", "if False else m", rule("nesterov")),
    Mutant("mean square not squared", RMSPROP, "(g * g)", "abs(g)", rule("rmsprop")),
    Mutant("eps inside the root", RMSPROP, "array_module(v).sqrt(v)", "array_module(v).sqrt(v + self.eps)", rule("rmsprop_momentum")),
    Mutant("decay the wrong way round", RMSPROP, "v *= self.decay", "v *= 1 - self.decay", rule("rmsprop")),
    Mutant("momentum left out", RMSPROP, "u = m", "pass", rule("rmsprop_momentum")),
    Mutant("no bias correction of the mean", ADAM, "u *= lr / (1 - beta1**self.step)", "u *= lr", rule("adam")),
    Mutant("no bias correction of the square", ADAM, "u /= sqrt(1 - beta2**self.step)", "pass", rule("adam")),
    Mutant("bias correction one step late", UPDATE, "self.step += 1\n", "self.step += 2\n", rule("adam")),
    Mutant("betas exchanged", ADAM, "beta1, beta2 = self.betas", "beta2, beta1 = self.betas", rule("adam")),
    Mutant("L2 as decoupled decay", UPDATE, "g = g + self.l2 * p", "p *= 1 - rate * self.l2", rule("adam")),
    Mutant("decoupled decay as L2", UPDATE, "p *= 1 - rate * self.weight_decay", "g = g + self.weight_decay * p", rule("adamw")),
    Mutant("decay without the learning rate", UPDATE, "1 - rate * self.weight_decay", "1 - self.weight_decay", rule("adamw")),
    Mutant("parameters replaced, not changed in place", SGD, "p -= lr * g", "p = p - lr * g", rule("sgd")),
    Mutant("each array clipped by its own norm", "optim:clip_by_norm", "norm = sqrt(sum(", "norm = sqrt(max(", test(test_optim.test_clip_by_norm, "numpy", test_optim.np.float64)),
    Mutant("clipping lengthens short gradients", "optim:clip_by_norm", "scale >= 1 or ", "", test(test_optim.test_clip_by_norm, "numpy", test_optim.np.float64)),
    Mutant("one side clipped", "optim:clip_by_value", "-limit, limit", "-limit, 10 * limit", test(test_optim.test_clip_by_value, "numpy", test_optim.np.float64)),
]  # fmt: skip

OPERATIONS = {
    "Windows": WINDOWS,
    "Convolution and linear maps": CONVOLUTION,
    "Convolution by Winograd's transforms": WINOGRAD,
    "Patches that share rows, tiles, products in pieces": LOWERINGS,
    "Pooling": POOLS,
    "Normalisation": NORMS,
    "Activations, dropout, embedding, losses": FUNCTIONS,
    "Optimisers and clipping": OPTIMISERS,
}
