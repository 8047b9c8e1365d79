"""The error function, which NumPy lacks, for real and for complex numbers near the real axis."""

from __future__ import annotations

from math import exp, pi

from ..backend import Array, array_module

REACH = 6.0  # erf(6) = 1 - 2e-17 is 1 in float64
STEP = 0.5  # of the sum below; its error is about exp(-(pi / STEP)^2) = 7e-18
NODES = tuple((STEP * (n + 0.5)) ** 2 for n in range(11))  # t^2; the next term is below 2e-17


def erf(z: Array) -> Array:
    """erf(z) = 2 / sqrt(pi) * int_0^z exp(-t^2) dt, to 1e-15 in float64 and to rounding in float32.

        erf(z) = tanh(pi z / s) - (2 s z / pi) exp(-z^2) sum_n exp(-t_n^2) / (z^2 + t_n^2)
        t_n = s (n + 1/2),  n = 0, 1, 2 ...

    It is the midpoint rule for erfc(z) = (z / pi) exp(-z^2) int exp(-t^2) / (z^2 + t^2) dt, t on the
    whole line; the tanh adds what the rule misses at the poles t = +- i z. The rule converges as
    exp(-(pi / s)^2), so eleven terms fill a double, and the constants exp(-t_n^2) cost nothing.

    Args:
        z: any shape, float or complex with |Im z| well below s / 2.
    Returns:
        erf(z), the dtype of z. The real part is clipped to +-6, where erf is +-1 to rounding.
    Source: Hunter & Regan 1972, "A note on the evaluation of the complementary error function",
        Mathematics of Computation 26, 539-541.
    """
    xp = array_module(z)
    z = xp.where(z.real > REACH, REACH, xp.where(z.real < -REACH, -REACH, z))
    z_squared = z * z
    total = exp(-NODES[0]) / (z_squared + NODES[0])
    for t_squared in NODES[1:]:
        total += exp(-t_squared) / (z_squared + t_squared)
    return xp.tanh(pi / STEP * z) - 2 * STEP / pi * z * xp.exp(-z_squared) * total
