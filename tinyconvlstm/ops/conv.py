"""Convolution over 0 to 3 spatial axes as a matrix product on patches.

What every framework calls convolution is cross-correlation: the kernel is not flipped. Read
`windows.py` first. Patches are rebuilt in the backward pass and never kept: kept, they would cost
prod(K) times the feature maps at every time step. Both passes work through the batch in blocks
whose patches stay in the processor's cache. What is done with a block is a lowering's matter:
`lowering.py` (im2col), `overlapping.py` and `tiled.py` (fewer copies), `winograd.py` (the same sums in fewer
multiplications) or `dilated.py`.

Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II;
the lowering to a matrix product: Chellapilla, Puri, Simard 2006, "High performance convolutional
neural networks for document processing", section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial, reduce
from math import prod
from typing import NamedTuple, TypeVar

from ..backend import Array, array_module, backend_name, check_dtypes
from ..parallel import SMALL, cuts, inside_a_part, run_parts, settle, shares
from .dilated import Dilated, in_two
from .lowering import Im2col, Lowering, frames_of, made_of
from .overlapping import Overlapping, pays
from .tiled import FEW, SMALL_IMAGE, Tiled
from .windows import Geometry, Sizes, Window, crop, frame, pad, placed, strips
from .winograd import Winograd, saves_products

PATCH_BYTES = {"numpy": 5 << 18, "cupy": 256 << 20}  # patches at a time: a core's own cache; a GPU's fill
SHORTEST = 256  # positions of a strip
PRODUCT = (
    100_000  # multiply-accumulates of a step: ten of it take longer than the calls of Python around them
)
Found = TypeVar("Found")
_plain = ContextVar("im2col only", default=False)


class ConvSaved(NamedTuple):
    """What `conv_backward` needs: references to the arguments, and where the windows lie."""

    x: Array  # (N, C, *S)
    w: Array  # (F, C / groups, *K)
    has_bias: bool
    geometry: Geometry
    groups: int


def conv_forward(
    x: Array, w: Array, b: Array | None = None, *, window: Window | None = None, groups: int = 1
) -> tuple[Array, ConvSaved]:
    """Cross-correlate x with w.

        y[n, f, p] = b[f] + sum_{c, k} w[f, c, k] * x[n, c, stride * p + dilation * k - before]

    With `groups` = G, features and channels fall into G equal parts that do not mix; G = C is the
    depthwise convolution. With no spatial axes it is the linear map y = x w^T + b.

    Args:
        x: (N, C, *S).
        w: (F, C / groups, *K).
        b: (F,) or None.
        window: stride, padding and dilation; its kernel must be w's. Default: `Window(K)`.
        groups: number of groups, a divisor of C and F.
    Returns:
        y (N, F, *S_out) and what `conv_backward` needs.
    Raises:
        ValueError: ranks, channels, groups or kernel sizes do not fit.
    Source: Shi et al. 2015, arXiv 1506.04214, the operator "*" of equation 3.
    """
    array_module(x=x, w=w, b=b)
    settle()
    geometry = check_conv(x, w, b, window, groups)
    y = correlate(x, w, geometry, groups, b)
    return y, ConvSaved(x, w, b is not None, geometry, groups)


def conv_backward(dy: Array, saved: ConvSaved) -> tuple[Array, Array, Array | None]:
    """Gradients of `conv_forward`: y is linear in x and in w, so each gradient is an adjoint.

        cols = im2col(x)       Y = W cols + b
        dW = dY cols^T         dcols = W^T dY       dx = col2im(dcols)       db = sum_{n, p} dY

    Args:
        dy: (N, F, *S_out).
        saved: from `conv_forward`.
    Returns:
        dx (N, C, *S), dw (F, C / groups, *K), db (F,) or None.
    """
    if not saved.geometry.kernel:
        dx = correlate_adjoint_x(dy, saved.w, saved.geometry, saved.groups)
        return dx, *conv_weight_backward(dy, saved)
    xp = array_module(dy)
    dx = xp.empty(saved.x.shape, dtype=xp.result_type(dy, saved.w))
    return dx, *conv_weight_backward(dy, saved, dx)


def conv_weight_backward(dy: Array, saved: ConvSaved, dx: Array | None = None) -> tuple[Array, Array | None]:
    """dw (F, C / groups, *K) and db (F,) or None from dy (N, F, *S_out): a first layer's input needs no gradient.

    Where an array dx (N, C, *S) is given, that gradient is written to it, in the same threads.
    """

    def part(clips: slice) -> tuple[Array, Array | None]:
        own = dy[clips]
        if dx is not None:
            correlate_adjoint_x(own, saved.w, saved.geometry, saved.groups, out=dx[clips])
        dw = correlate_adjoint_w(own, saved.x[clips], saved.geometry, saved.groups)
        return dw, conv_bias_backward(own) if saved.has_bias else None

    if not saved.geometry.kernel:
        return part(slice(None))  # one product for the whole batch, which BLAS splits better
    work = lowering_of(dy, saved.w.shape, saved.geometry, saved.groups).work
    found = in_parts(part, dy, len(dy) * saved.w.size * saved.geometry.positions * work)
    dws, dbs = zip(*found, strict=True)
    return reduce(add_in_place, dws), reduce(add_in_place, dbs) if saved.has_bias else None


def conv_bias_backward(dy: Array) -> Array:
    """db (F,) from dy (N, F, *S_out): the bias reaches every sample and position."""
    return dy.sum(axis=(0, *range(2, dy.ndim)))


def correlate(
    x: Array,
    w: Array,
    geometry: Geometry,
    groups: int = 1,
    plus: Array | None = None,
    out: Array | None = None,
    turned: bool = False,
) -> Array:
    """y (N, F, *S_out) = W im2col(x) + plus, strip by strip, however `lowering_of` computes a strip.

    `plus` is a bias (F,) or an array like y; y is written to `out`, an array without gaps, if that is given.
    Where w is `turned`, it is the `flipped` one that counts.
    """
    if not geometry.kernel and groups == 1:
        y = (w @ x.T).T  # one product for the whole batch; this way round BLAS is up to twice as fast
        return copied(y if plus is None else add_in_place(y, plus), out)
    xp, w_shape = array_module(x), flipped_shape(w.shape, groups) if turned else w.shape
    lowering, features = lowering_of(x, w_shape, geometry, groups), w_shape[0]
    weights = made_of(w, (lowering, turned), lambda w: lowering.weights(flipped(w, groups) if turned else w))
    kind = xp.result_type(x, w) if plus is None else xp.result_type(x, w, plus)
    shape = (len(x), groups, features // groups, geometry.positions)
    y = xp.empty(shape, dtype=kind) if out is None else out.reshape(shape)
    bias = plus is not None and plus.ndim == 1
    if plus is not None:
        plus = plus.reshape((groups, -1, 1) if bias else y.shape)

    def part(clips: slice) -> None:
        samples, strip_rows = block_sizes(x, geometry, lowering)
        for block in cuts(clips, samples):
            padded = padded_for(lowering, x[block])
            for strip, where, positions in strips(geometry, strip_rows):
                y_strip = y[block, ..., positions]
                more = plus if plus is None or bias else plus[block, ..., positions]
                lowering.forward(weights, *seen(lowering, padded, strip, where), y_strip, more)

    in_parts(part, x, len(x) * w.size * geometry.positions * lowering.work)
    return y.reshape(len(x), features, *geometry.out)


def correlate_adjoint_x(
    dy: Array, w: Array, geometry: Geometry, groups: int = 1, out: Array | None = None
) -> Array:
    """dx (N, C, *S) = col2im(W^T dY): where every pixel of x was read, strip by strip; into `out`, if given."""
    if not geometry.kernel and groups == 1:
        return copied((w.T @ dy.T).T, out)
    xp = array_module(dy)
    if mirror := way_back(dy, w.shape, geometry, groups):
        if out is None or out.flags.c_contiguous:
            return correlate(dy, w, mirror, groups, out=out, turned=True)
        return copied(correlate(dy, w, mirror, groups, turned=True), out)
    lowering = lowering_of(dy, w.shape, geometry, groups).back
    weights = made_of(w, lowering, lowering.weights)
    dy = dy.reshape(len(dy), groups, len(w) // groups, geometry.positions)
    kind, around = xp.result_type(dy, w), lowering.around
    if out is None or out.dtype != kind:
        dx = xp.empty((len(dy), w.shape[1] * groups, *geometry.sizes), dtype=kind)
    else:
        dx = out

    def part(clips: slice) -> None:
        samples, strip_rows = block_sizes(dx, geometry, lowering)
        for block in cuts(clips, samples):
            own = dx[block] if around is None else xp.zeros(frame(dx[block].shape, around)[0], dtype=kind)
            for strip, where, positions in strips(geometry, strip_rows):
                own_dy = dy[block, ..., positions]
                if around is None:
                    lowering.backward_x(weights, own_dy, placed(strip, where), own, not positions.start)
                else:
                    lowering.backward_x(weights, own_dy, strip, own[where], False)
            if around is not None:
                dx[block] = crop(own, around)

    in_parts(part, dy, len(dy) * w.size * geometry.positions * lowering.work)
    return dx if out is None or out is dx else copied(dx, out)


def correlate_adjoint_w(dy: Array, x: Array, geometry: Geometry, groups: int = 1) -> Array:
    """dw (F, C / groups, *K) = dY im2col(x)^T, summed over samples and positions at once."""
    if not geometry.kernel and groups == 1:
        return dy.T @ x
    (dw,) = correlate_adjoint_w_steps(dy[None], x[None], geometry, groups)
    return dw


def correlate_adjoint_w_steps(dys: Array, xs: Array, geometry: Geometry, groups: int = 1) -> Iterator[Array]:
    """dw (F, C / groups, *K) of T convolutions, the last one first, from dys (T, N, F, *S_out) and xs (T, N, C, *S).

    As many are made at once as stand side by side in the cache.
    """
    xp = array_module(dys)
    (T, N, features), kind = dys.shape[:3], xp.result_type(dys, xs)
    rows = xs.shape[2] // groups * geometry.taps  # of the matrix dw
    shape = (features, xs.shape[2] // groups, *geometry.kernel)
    if not N:
        yield from (xp.zeros(shape, dtype=kind) for _ in range(T))
        return
    lowering = lowering_of(xs, shape, geometry, groups)
    dys = dys.reshape(T, N, groups, features // groups, geometry.positions)
    macs = dys[0].size * rows * lowering.work  # of a step: a sequence in segments is cut as a whole one
    parts = shares(dys[0], macs)
    blocks = samples, strip_rows = weight_block_sizes(xs[0], geometry, lowering, rows, features)

    def part(steps: slice, clips: slice) -> Array:
        dweights = None
        for block in cuts(clips, samples):
            padded = padded_for(lowering, frames_of(xs[steps, block]))  # (T * n, C, ...)
            padded = padded.reshape(steps.stop - steps.start, block.stop - block.start, *padded.shape[1:])
            for strip, where, positions in strips(geometry, strip_rows):
                own = seen(lowering, padded, strip, (slice(None), *where))
                more = lowering.backward_w(dys[steps, block, ..., positions], *own)
                dweights = more if dweights is None else add_in_place(dweights, more)
                del more  # before the next one is made
        return dweights

    size = steps_at_a_time(xs[0, parts[-1]], geometry, lowering, blocks)  # no part is larger than the last
    for steps in reversed([*cuts(slice(0, T), size)]):
        found = run_parts(partial(part, steps), parts, small=macs < SMALL)
        yield from reversed(lowering.weights_adjoint(reduce(add_in_place, found)))
        del found  # before those of the steps before are made


def in_parts(part: Callable[[slice], Found], batch: Array, macs: float) -> list[Found]:
    """What each thread makes of its slice of a batch (N, ...) that takes the time of so many multiply-accumulates."""
    if inside_a_part():
        return [part(slice(0, len(batch)))]
    return run_parts(part, shares(batch, macs), small=macs < SMALL)


def copied(x: Array, out: Array | None) -> Array:
    """x, written to `out` where that is given."""
    if out is None:
        return x
    out[...] = x
    return out


def padded_for(lowering: Lowering, x: Array) -> Array:
    """x (N, C, *S) with what must lie around it."""
    return x if lowering.pads is None else pad(x, lowering.pads)


def seen(lowering: Lowering, x: Array, strip: Geometry, where: tuple[slice, ...]) -> tuple[Array, Geometry]:
    """What a lowering reads of a padded x for a strip, and the strip as it lies there."""
    return (x, placed(strip, where)) if lowering.pads is None else (x[where], strip)


def way_back(like: Array, w_shape: Sizes, geometry: Geometry, groups: int) -> Geometry | None:
    """Where dx is a convolution of dY with the kernel `flipped`: its geometry; None where col2im gives dx.

    So it is where fewer products serve for that, or dY has fewer patches than x.
    """
    if not geometry.kernel or set(geometry.stride) != {1} or not prod(geometry.sizes) * geometry.positions:
        return None
    mirror, shape = mirrored(geometry), flipped_shape(w_shape, groups)
    if min(map(min, mirror.pads)) < 0:
        return None
    fewer = isinstance(lowering_of(like, shape, mirror, groups), Winograd)
    return mirror if fewer or w_shape[0] // groups <= 2 * w_shape[1] else None


def flipped_shape(w_shape: Sizes, groups: int) -> Sizes:
    """The shape of `flipped` weights."""
    return (w_shape[1] * groups, w_shape[0] // groups, *w_shape[2:])


def flipped(w: Array, groups: int = 1) -> Array:
    """w (F, C / groups, *K) turned around on every spatial axis, in and out exchanged: (C, F / groups, *K)."""
    turned = w[(slice(None), slice(None), *(slice(None, None, -1) for _ in w.shape[2:]))]
    turned = turned.reshape(groups, -1, *turned.shape[1:]).swapaxes(1, 2)  # (G, C/G, F/G, *K)
    return turned.reshape(-1, *turned.shape[2:])


@lru_cache(maxsize=256)
def mirrored(geometry: Geometry) -> Geometry:
    """Where the adjoint of a convolution of stride 1 reads: it is one too, with the kernel `flipped`.

    Behind the last window lies what a transposed convolution's output_padding adds, beside the padding.
    """
    pads = tuple(
        (d * (k - 1) - before, size - out + before)
        for size, k, (before, _), d, out in zip(
            geometry.sizes, geometry.kernel, geometry.pads, geometry.dilation, geometry.out, strict=True
        )
    )
    return geometry._replace(sizes=geometry.out, out=geometry.sizes, pads=pads)


def add_in_place(a: Array, b: Array) -> Array:
    """a += b, where a belongs to the caller; a new sum where b's numbers do not fit into a's dtype."""
    if array_module(a).result_type(a, b) != a.dtype:
        return a + b
    a += b
    return a


def lowering_of(like: Array, w_shape: Sizes, geometry: Geometry, groups: int) -> Lowering:
    """How to convolve: with fewer products or fewer copies where that pays, by plain im2col otherwise.

    A GPU has its own kernels for im2col; half precision has no digits to spare, and BLAS no long doubles.
    """
    plain = like.dtype.char not in "fdFD" or backend_name(like) == "cupy"
    return chosen(geometry, w_shape, groups, plain or _plain.get())


@contextmanager
def im2col_only() -> Iterator[None]:
    """While the block runs, every convolution of this thread takes im2col, also where Winograd's transforms are faster.

    For whoever asks which outputs a single pixel reaches, or which weights get a gradient of exactly zero:
    the transforms compute neighbouring outputs together, and leave rounding where im2col leaves a zero.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


@lru_cache(maxsize=256)
def chosen(geometry: Geometry, w_shape: Sizes, groups: int, plain: bool) -> Lowering:
    """The lowering of one kind of convolution, remembered: a scan asks for the same one at every step."""
    if plain:
        return Im2col(geometry, w_shape, groups)
    features, channels = w_shape[:2]
    if groups > 1 and channels <= FEW >= features // groups and geometry.positions >= SMALL_IMAGE:
        return Tiled(geometry, w_shape, groups)
    if groups == 1 and saves_products(geometry, features, channels):
        return Winograd(geometry, features, channels)
    if len(geometry.out) > 1 and geometry.stride[0] == 1 < geometry.dilation[0]:
        inner = chosen(in_two(geometry), (*w_shape[:3], 1, *w_shape[3:]), groups, plain)
        if isinstance(inner, Overlapping):
            return Dilated(geometry, inner)
    if pays(geometry, features // groups, channels):
        return Overlapping(geometry, w_shape, groups)
    return Im2col(geometry, w_shape, groups)


def block_sizes(x: Array, geometry: Geometry, lowering: Lowering, at_least: int = 0) -> tuple[int, int]:
    """(samples, rows of the first output axis) whose patches together fill PATCH_BYTES, or `at_least`.

    Several whole samples where they are small; a strip of one sample where it is large, yet of
    SHORTEST positions, which a matrix product needs to run at full speed.
    """
    room = max(lowering.room * PATCH_BYTES[backend_name(x) or "numpy"], at_least)
    return fitting(geometry, lowering.numbers * x.dtype.itemsize, room, SHORTEST, lowering.multiple)


@lru_cache(maxsize=1024)
def fitting(geometry: Geometry, position: int, room: int, shortest: int, multiple: int) -> tuple[int, int]:
    """`block_sizes`, where a position of the output takes `position` bytes of `room`."""
    position = max(1, position)
    if not geometry.out or room >= 2 * position * geometry.positions:
        return max(1, room // (position * geometry.positions)), max(1, *geometry.out[:1], 1)
    row = geometry.positions // geometry.out[0]
    wanted = max(room // position, shortest) // row
    count = -(-geometry.out[0] // max(1, wanted))  # strips; then all of about one height
    return 1, -(-geometry.out[0] // (count * multiple)) * multiple


def weight_block_sizes(
    x: Array, geometry: Geometry, lowering: Lowering, rows: int, features: int
) -> tuple[int, int]:
    """`block_sizes` for dW (rows, features): larger than dW, lest adding up dW's takes longer than making them.

    They do not depend on the number of steps, so that a sequence in segments sums as a whole one does.
    """
    macs = rows * features * geometry.positions
    at_least = 4 * rows * features * x.dtype.itemsize
    samples, strip_rows = block_sizes(x, geometry, lowering, at_least)
    if geometry.positions > 2 * rows and macs > PRODUCT:
        samples = 1  # adding up small dW's takes less than lining up large dY's
    return samples, strip_rows


def steps_at_a_time(x: Array, geometry: Geometry, lowering: Lowering, blocks: tuple[int, int]) -> int:
    """How many steps' patches and dW's stand side by side: those that fill four times PATCH_BYTES."""
    height = geometry.out[0] if geometry.out else 1
    positions = min(blocks[0], len(x)) * min(blocks[1], height) * geometry.positions // height
    room = 4 * PATCH_BYTES[backend_name(x) or "numpy"]
    numbers = positions * lowering.numbers + lowering.size
    return max(1, int(room // max(1, numbers * x.dtype.itemsize)))


def check_conv(x: Array, w: Array, b: Array | None, window: Window | None, groups: int) -> Geometry:
    """The geometry of a convolution, or a ValueError saying which argument does not fit."""
    if x.ndim < 2 or x.ndim != w.ndim:
        raise ValueError(f"x.shape is {x.shape} and w.shape is {w.shape}, expected (N, C, *S) and (F, C, *K)")
    check_dtypes(x=x, w=w, b=b)
    if not w.size:
        raise ValueError(f"w.shape is {w.shape}, expected at least one feature and one channel")
    if groups < 1 or w.shape[0] % groups:
        raise ValueError(f"groups is {groups}, expected a divisor of w's {w.shape[0]} features")
    if x.shape[1] != w.shape[1] * groups:
        raise ValueError(
            f"x has {x.shape[1]} channels, w expects {w.shape[1] * groups} "
            f"(w.shape == {w.shape}, groups == {groups})"
        )
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"b.shape is {b.shape}, expected {w.shape[:1]}, one entry a feature of w")
    geometry = (window or Window(w.shape[2:])).over(x.shape[2:])
    if geometry.kernel != w.shape[2:]:
        raise ValueError(f"window has kernel {geometry.kernel}, w has {w.shape[2:]} (w.shape == {w.shape})")
    return geometry
