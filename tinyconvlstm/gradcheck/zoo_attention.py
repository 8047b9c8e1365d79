"""Attention in the zoo: its pairs, the cells that attend, and pooling over time."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..layers.attention import TemporalAttention
from .case import Case, pair_case
from .layers import layer_case
from .zoo_cells import filled

Rng = np.random.Generator


def attention_cases(rng: Rng) -> list[Case]:
    """Cases of attention.

    Args:
        rng: a NumPy Generator.
    Returns:
        Cases with float64 arguments, all of them analytic: where a maximum is taken it has no rival near.
    """
    return [*pair_cases(rng), *self_attention_cases(rng), *pooling_cases(rng)]


def pair_cases(rng: Rng) -> list[Case]:
    """The pairs of `ops.attention`."""
    softmax = (ops.masked_softmax_forward, ops.masked_softmax_backward)
    attend, peak = (
        (ops.attend_forward, ops.attend_backward),
        (
            ops.peak_softmax_forward,
            ops.peak_softmax_backward,
        ),
    )
    x, mask = {"x": 2 * rng.standard_normal((4, 3, 2))}, rng.random((4, 3, 1)) > 0.4
    mask[1] = True  # no row along the first axis is empty
    mask[:, 0] = True
    qkv = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    seen = rng.random((2, 5, 4)) > 0.5
    seen[:, :, 2] = True
    line = {"x": rng.permuted(0.3 * np.arange(24.0)).reshape(2, 3, 4)}
    plane = {"x": rng.permuted(0.2 * np.arange(36.0)).reshape(2, 3, 2, 3)}
    return [
        pair_case("masked_softmax no mask", *softmax, x, axis=2),
        pair_case("masked_softmax first axis", *softmax, x, mask=mask, axis=0),
        pair_case("masked_softmax middle axis", *softmax, x, mask=mask),
        pair_case("peak_softmax 1d", *peak, line),
        pair_case("peak_softmax 2d", *peak, plane),
        pair_case("attend", *attend, qkv),
        pair_case("attend scaled, masked", *attend, qkv, scale=3**-0.5, mask=seen),
    ]


SHAPES = {"q": (2, 3, 5), "k": (2, 3, 4), "v": (2, 6, 4)}


def pooling_cases(rng: Rng) -> list[Case]:
    """Attention over time, of whole and of padded clips, over 0 to 2 spatial axes."""
    cases = []
    for name, size, lengths in (
        ("0d", (), None),
        ("1d", (5,), None),
        ("2d", (3, 2), None),
        ("0d lengths", (), [3, 1, 4]),
        ("2d lengths", (2, 3), [4, 1, 3]),
    ):
        layer = TemporalAttention(2, 5, dtype=np.float64)
        layer = layer.bind({n: rng.standard_normal(a.shape) for n, a in layer.params.items()})
        x = rng.standard_normal((4, 3, 2, *size))
        cases.append(layer_case(f"layer/temporal attention {name}", layer, x, sequence=True, lengths=lengths))
    return cases


def self_attention_cases(rng: Rng) -> list[Case]:
    """The self-attention memory, over 0 to 2 spatial axes; D is not F."""
    F, D = 3, 2
    w_shapes = ((D, F), (D, F), (F, F), (D, F), (F, F), (F, 2 * F), (3 * F, 2 * F), (3 * F,))
    cases = []
    for name, size in (("0d", ()), ("1d", (4,)), ("2d", (2, 3))):
        arrays = {key: rng.standard_normal((2, F, *size)) for key in ("h", "m")}
        for key, shape in zip(ops.SelfAttentionWeights._fields, w_shapes, strict=True):
            arrays[key] = rng.standard_normal(shape)
        cases.append(
            pair_case(
                f"self_attention {name}",
                ops.self_attention_forward,
                lambda dout, saved, like=arrays["h"]: ops.self_attention_backward(filled(dout, like), saved),
                arrays,
                outputs=("h_new", "m_new"),
            )
        )
    return cases
