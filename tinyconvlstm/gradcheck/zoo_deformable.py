"""Sampling, deformable convolution and the cells made of it, in the zoo.

Sampling has a kink wherever a coordinate is a whole number, so every coordinate here lies at least a
tenth of a pixel away from one, and some lie outside the frame.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array
from ..ops import sample_backward, sample_forward
from .case import Case, pair_case

Rng = np.random.Generator


def deformable_cases(rng: Rng) -> list[Case]:
    """Cases of sampling and of what is made of it.

    Args:
        rng: a NumPy Generator.
    Returns:
        Cases with float64 arguments, all of them analytic.
    """
    return sampling_cases(rng)


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


def between(rng: Rng, low: int, high: int, *shape: int) -> Array:
    """Random numbers from low to high + 1, none within a tenth of a whole number."""
    return rng.integers(low, high + 1, shape) + rng.uniform(0.1, 0.9, shape)
