"""Initial weights, drawn by a NumPy Generator.

Numbers are always drawn in float64 on the CPU and cast afterwards: one seed gives the same model in
float32 and float64, on NumPy and (moved with `to_backend`) on CuPy. All functions have one form,

    w = initialiser(rng, shape, dtype, gates=1)          shape (gates * F, C, *K)

so that a layer can take any of them as an argument. Of a weight that feeds several gates at once,
(4F, C, *K) for an LSTM, each gate's block (F, C, *K) is a map of its own: it has its own fans.

    fan_in = C * prod(K)        fan_out = F * prod(K)
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import numpy as np

from .backend import Array
from .ops.gates import GATES

Shape = tuple[int, ...]


def glorot_uniform(
    rng: np.random.Generator, shape: Shape, dtype: Any = np.float32, *, gates: int = 1
) -> Array:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)): keeps the variance through tanh and sigmoid layers.

    Args:
        rng: where the numbers come from.
        shape: (gates * F, C, *K).
        dtype: of the result; the numbers are drawn in float64.
        gates: blocks of features that are maps of their own.
    Returns:
        A NumPy array of that shape and dtype.
    Raises:
        ValueError: fewer than two axes, or the features are no multiple of `gates`.
    Source: Glorot, Bengio 2010, "Understanding the difficulty of training deep feedforward neural
        networks", equation 16.
    """
    fan_in, fan_out = fans(shape, gates)
    limit = sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape).astype(dtype)


def glorot_normal(
    rng: np.random.Generator, shape: Shape, dtype: Any = np.float32, *, gates: int = 1
) -> Array:
    """Normal with variance 2 / (fan_in + fan_out), not truncated; arguments as in `glorot_uniform`.

    Source: Glorot, Bengio 2010, equation 12.
    """
    fan_in, fan_out = fans(shape, gates)
    return (rng.standard_normal(shape) * sqrt(2 / (fan_in + fan_out))).astype(dtype)


def he_uniform(rng: np.random.Generator, shape: Shape, dtype: Any = np.float32, *, gates: int = 1) -> Array:
    """Uniform in +-sqrt(6 / fan_in), for layers followed by ReLU; arguments as in `glorot_uniform`.

    Source: He et al. 2015, "Delving deep into rectifiers", arXiv 1502.01852, equation 10 (the
        variance 2 / fan_in, here of a uniform distribution).
    """
    fan_in, _ = fans(shape, gates)
    limit = sqrt(6 / fan_in)
    return rng.uniform(-limit, limit, shape).astype(dtype)


def he_normal(rng: np.random.Generator, shape: Shape, dtype: Any = np.float32, *, gates: int = 1) -> Array:
    """Normal with variance 2 / fan_in, for layers followed by ReLU; arguments as in `glorot_uniform`.

    Source: He et al. 2015, arXiv 1502.01852, equation 10.
    """
    fan_in, _ = fans(shape, gates)
    return (rng.standard_normal(shape) * sqrt(2 / fan_in)).astype(dtype)


def orthogonal(
    rng: np.random.Generator, shape: Shape, dtype: Any = np.float32, *, gates: int = 1, gain: float = 1.0
) -> Array:
    """Each gate's block, read as a matrix (F, C * prod(K)), has orthonormal rows (or columns) times `gain`.

        A = Q R, A normal        Q <- Q * sign(diag(R))        w w^T = gain^2 I  or  w^T w = gain^2 I

    A product of many such matrices neither grows nor shrinks: the usual start of a recurrent map.
    Without the signs Q would not be uniformly distributed over the orthogonal matrices.

    Args:
        rng, shape, dtype, gates: as in `glorot_uniform`.
        gain: length of every row (or column).
    Source: Saxe, McClelland, Ganguli 2013, "Exact solutions to the nonlinear dynamics of learning in
        deep linear neural networks", arXiv 1312.6120; the signs: Mezzadri 2007, "How to generate
        random matrices from the classical compact groups".
    """
    fan_in, _ = fans(shape, gates)
    features = shape[0] // gates
    blocks = []
    for _ in range(gates):
        a = rng.standard_normal((max(features, fan_in), min(features, fan_in)))
        q, r = np.linalg.qr(a)
        q *= np.sign(np.diag(r))
        blocks.append(q if features >= fan_in else q.T)  # (F, C * prod(K))
    w = gain * np.concatenate(blocks)  # (gates * F, C * prod(K))
    return np.ascontiguousarray(w.reshape(shape), dtype)


def zeros(rng: np.random.Generator | None, shape: Shape, dtype: Any = np.float32, *, gates: int = 1) -> Array:
    """Zeros, for biases and peepholes; `rng` and `gates` are there for the common form only."""
    return np.zeros(shape, dtype)


def lstm_bias(features: int, forget_bias: float = 1.0, dtype: Any = np.float32) -> Array:
    """The bias of an LSTM's gates: zero, but `forget_bias` in the forget gate's block.

    A forget gate that starts open (sigmoid(1) = 0.73) lets the gradient reach far back from the
    first step of training on.

    Args:
        features: F, channels of the state.
        forget_bias: first value of the forget gate's bias.
        dtype: of the result.
    Returns:
        (4F,) in the order of `GATES`.
    Source: Gers, Schmidhuber, Cummins 2000, "Learning to forget" (a positive forget bias);
        Jozefowicz, Zaremba, Sutskever 2015, "An empirical exploration of recurrent network
        architectures" (the value 1).
    """
    if features < 1:
        raise ValueError(f"features is {features}, expected at least 1")
    b = np.zeros((len(GATES), features), dtype)
    b[GATES.index("f")] = forget_bias
    return b.reshape(-1)


def chrono_bias(rng: np.random.Generator, features: int, longest: int, dtype: Any = np.float32) -> Array:
    """The bias of an LSTM's gates for memories of 1 to `longest` steps: f forgets, i writes, as slowly as that.

        b_f = log u,  u uniform in [1, longest - 1)        b_i = -b_f        b_g = b_o = 0

    Args:
        rng: where the numbers come from.
        features: F, channels of the state.
        longest: steps that the longest memory has to last, at least 2.
        dtype: of the result.
    Returns:
        (4F,) in the order of `GATES`.
    Source: Tallec, Ollivier 2018, "Can recurrent neural networks warp time?", arXiv 1804.11188, equation 16.
    """
    if features < 1 or longest < 2:
        raise ValueError(f"features is {features} and longest {longest}, expected at least 1 and at least 2")
    b = np.zeros((len(GATES), features), dtype)
    b[GATES.index("f")] = np.log(rng.uniform(1, longest - 1, features))
    b[GATES.index("i")] = -b[GATES.index("f")]
    return b.reshape(-1)


def fans(shape: Shape, gates: int = 1) -> tuple[int, int]:
    """(fan_in, fan_out) of one gate's block of a weight (gates * F, C, *K)."""
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"shape is {shape}, expected (F, C, *K) with sizes of at least 1")
    if gates < 1 or shape[0] % gates:
        raise ValueError(f"gates is {gates}, expected a divisor of the {shape[0]} features of shape {shape}")
    taps = prod(shape[2:])
    return shape[1] * taps, shape[0] // gates * taps
