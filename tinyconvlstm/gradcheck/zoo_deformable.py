"""Sampling, deformable convolution and the cells made of it, in the zoo.

Sampling has a kink wherever a coordinate is a whole number, so every coordinate here lies at least a
tenth of a pixel away from one, and some lie outside the frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array
from ..bptt import scan
from ..cells import DeformableLSTMCell
from ..ops import Window, deform_conv_backward, deform_conv_forward, sample_backward, sample_forward
from .case import Case, pair_case
from .cells import cell_case
from .zoo_cells import KERNELS, SIZES, randomised

Rng = np.random.Generator


def deformable_cases(rng: Rng) -> list[Case]:
    """Cases of sampling and of what is made of it.

    Args:
        rng: a NumPy Generator.
    Returns:
        Cases with float64 arguments, all of them analytic.
    """
    return [*sampling_cases(rng), *deform_conv_cases(rng), *cell_cases(rng)]


def sampling_cases(rng: Rng) -> list[Case]:
    """Frames of 1 to 3 axes, places in rows and on a grid, one pixel alone."""
    cases = []
    for name, size, places in [
        ("1d", (5,), (9,)),
        ("2d", (3, 4), (5, 3)),
        ("2d one pixel", (1, 1), (6,)),
        ("3d", (2, 3, 2), (8,)),
    ]:
        at = np.stack([between(rng, -2, n, 2, *places) for n in size], axis=1)  # (N, r, *P)
        arrays = {"x": rng.standard_normal((2, 3, *size)), "at": at}
        cases.append(pair_case(f"sample {name}", sample_forward, sample_backward, arrays))
    return cases


def deform_conv_cases(rng: Rng) -> list[Case]:
    """Strides, uneven padding, dilation, even kernels, and no bias."""
    cases = []
    uneven = Window((3, 2), (2, 1), ((2, 0), (0, 1)), (1, 2))
    for name, size, window, bias in [
        ("1d", (6,), Window((3,), padding="same"), True),
        ("2d even kernel", (3, 4), Window((2, 3), padding="same"), True),
        ("2d strided, dilated", (5, 6), uneven, True),
        ("2d without bias", (3, 4), Window((1, 2)), False),
        ("3d", (2, 3, 2), Window((2, 1, 2), padding=1), True),
    ]:
        g = window.over(size)
        arrays = {
            "x": rng.standard_normal((2, 3, *size)),
            "offset": between(rng, -2, 1, 2, g.taps * len(size), *g.out),
            "mask": rng.standard_normal((2, g.taps, *g.out)),
            "w": rng.standard_normal((4, 3, *g.kernel)),
        }
        arrays |= {"b": rng.standard_normal(4)} if bias else {}
        pair = deform_conv_forward, deform_conv_backward if bias else without_bias
        cases.append(pair_case(f"deform_conv over {name}", *pair, arrays, window=window))
    return cases


def cell_cases(rng: Rng) -> list[Case]:
    """The cell over 1 to 3 axes, with every way back, other windows, peepholes, and no input."""
    cell, two = DeformableLSTMCell, DeformableLSTMCell(2, 2, (3,))
    mask = (rng.random((2, 2, 4)) > 0.4) / 0.6
    shrink: dict[str, Any] = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "state_dilation": 2}
    lengths: dict[str, Any] = {"lengths": [3, 1, 4], "reverse": True, "steps": 4}
    wide = cell(2, 2, (3, 2), state_kernel=(2, 3), peephole="channel", **shrink)
    return [
        *(scanned(rng, f"{rank}d", cell(3, 2, KERNELS[rank]), SIZES[rank]) for rank in (1, 2, 3)),
        scanned(rng, "1d lengths, reverse", two, (4,), **lengths),
        scanned(rng, "1d recurrent dropout", two, (4,), h_mask=mask),
        scanned(rng, "1d truncated", two, (4,), steps=4, mode="truncated"),
        scanned(rng, "1d checkpointed", two, (4,), steps=5, mode="checkpointed"),
        scanned(rng, "2d strided, dilated, peephole", wide, (5, 4)),
        scanned(rng, "1d without input", cell(0, 2, (3,)), (4,)),
    ]


def scanned(
    rng: Rng, name: str, cell: DeformableLSTMCell, size: tuple[int, ...], *, steps: int = 3, **settings: Any
) -> Case:
    """`cell_case` of a random deformable cell none of whose taps ever looks near a whole coordinate."""
    batch, kept = len(settings.get("lengths") or (1, 2)), ("lengths", "reverse", "h_mask")
    scanning = {key: settings[key] for key in kept if key in settings}
    near = 0.0
    while near < 2e-4:
        cell = randomised(cell, rng)  # type: ignore[assignment]
        xs = rng.standard_normal((steps, batch, cell.channels, *size))
        blank = cell.initial_state(xs[0])
        state = type(blank)(*(0.5 * rng.standard_normal(a.shape) for a in blank))
        offsets = np.stack([step.taps.offset for step in scan(cell, xs, state, **scanning)[2].steps])
        near = abs(offsets - np.rint(offsets)).min()
    return cell_case(f"variant/deformable {name}", cell, xs, state, **settings)


def without_bias(dy: Array, saved: Any) -> tuple[Array, ...]:
    """The gradients of the four arguments that were given."""
    return deform_conv_backward(dy, saved)[:4]


def between(rng: Rng, low: int, high: int, *shape: int) -> Array:
    """Random numbers from low to high + 1, none within a tenth of a whole number."""
    return rng.integers(low, high + 1, shape) + rng.uniform(0.1, 0.9, shape)
