"""Matrix products in pieces that BLAS multiplies where they lie.

Before it multiplies, BLAS copies its factors into the order in which its kernel reads them. For processors with
AVX-512, OpenBLAS has kernels for small products, which read them in place, and it takes those up to a million
multiply-accumulates. The products of a convolution are long and thin: w has a few dozen rows, the patches
hundreds of columns. In pieces of, say, 32 rows and 64 columns they take a tenth to a third less time.

Every number is the sum of the same terms. Which pieces there are depends on sizes and strides alone, never on a clock.
"""

from __future__ import annotations

import operator
from functools import lru_cache, reduce
from itertools import product

import numpy as np

from ..backend import Array, array_module
from ..parallel import blas

KERNELS = ("SkylakeX", "Cooperlake", "SapphireRapids")  # of OpenBLAS, those with small products
LARGEST = 1_000_000  # multiply-accumulates of a small product
LARGEST_DOTS = 1024  # numbers of a small product whose second factor is a transpose
DEAR = 0.7  # `cost` of pieces that take longer than the whole
HIGH = 64  # rows from which a product with a transpose is faster whole
PAGE = 4096  # bytes between rows that meet in the same places of a cache: those are better copied

broadcast_shapes = lru_cache(maxsize=256)(np.broadcast_shapes)  # it takes as long as a small product


@lru_cache(maxsize=1)
def small_kernels() -> bool:
    """Whether NumPy's BLAS has kernels for small products."""
    return any(library.info().get("architecture") in KERNELS for library in blas().lib_controllers)


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a (..., M, K) @ b (..., K, N), into `out` if that is given; leading axes broadcast, as NumPy has them."""
    xp, (rows, terms), columns = array_module(a, b), a.shape[-2:], b.shape[-1]
    transposed = b.strides[-2] < b.strides[-1]
    cut = cut_pays(a, b) and (transposed or b.strides[-2] % PAGE)
    m, n = pieces(rows, terms, columns, transposed) if cut else (rows, columns)
    if (m, n) == (rows, columns):
        return xp.matmul(a, b) if out is None else xp.matmul(a, b, out=out)
    if out is None:
        lead = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = xp.empty((*lead, rows, columns), dtype=a.dtype)
    xp.matmul(
        a.reshape(*a.shape[:-2], rows // m, 1, m, terms),
        b.reshape(*b.shape[:-2], 1, terms, columns // n, n).swapaxes(-3, -2),
        out=out.reshape(*out.shape[:-2], rows // m, m, columns // n, n).swapaxes(-3, -2),
    )
    return out


def dots(a: Array, b: Array) -> Array:
    """a (..., M, K) @ b (..., N, K)^T, sums over many terms, which are cut too."""
    terms = a.shape[-1]
    length = terms_at_once(a.shape[-2], b.shape[-2], terms)
    if length == terms or not cut_pays(a, b):
        return matmul(a, b.swapaxes(-1, -2))
    cuts = (slice(k, k + length) for k in range(0, terms, length))
    return reduce(operator.iadd, (matmul(a[..., cut], b[..., cut].swapaxes(-1, -2)) for cut in cuts))


def terms_at_once(rows: int, columns: int, terms: int) -> int:
    """How many terms of its sums `dots` takes together."""
    return terms if rows >= HIGH else min(terms, LARGEST // min(LARGEST_DOTS, rows * columns))


def cut_pays(a: Array, b: Array) -> bool:
    """Whether BLAS has small products of these numbers."""
    return isinstance(a, np.ndarray) and a.dtype == b.dtype and a.dtype.char in "fd" and small_kernels()


@lru_cache(maxsize=1024)
def pieces(rows: int, terms: int, columns: int, transposed: bool = False) -> tuple[int, int]:
    """(rows, columns) of a piece that is a small product; all of them where none is large enough to pay.

    Wide pieces read the first factor less often, high ones the second.
    """
    if transposed and rows >= HIGH:
        return rows, columns
    room = min(LARGEST // terms, LARGEST_DOTS if transposed else LARGEST)
    fit = [(m, n) for m, n in product(divisors(rows), divisors(columns)) if m * n <= room]
    best = min(fit, key=lambda found: cost(found[0], found[1], transposed), default=(rows, columns))
    dear = cost(best[0], best[1], transposed) > (1 if transposed else DEAR)
    return (rows, columns) if dear else best


def cost(m: int, n: int, transposed: bool = False) -> float:
    """Time of the reading of m x n pieces, beside that of their multiplications; measured."""
    return 4 / m + 4 / n if transposed else 8 / m + (24 if n % 16 == 0 else 32) / n


def divisors(number: int) -> list[int]:
    """All of them, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]
