"""The variants of the LSTM in the zoo: every one over 0 to 2 spatial axes, and what else may go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..cells import (
    CandidateLSTMCell,
    CIFGCell,
    ContextGateLSTMCell,
    ConvPeepholeLSTMCell,
    FGRCell,
    InputAttentionLSTMCell,
    InputGateAttentionLSTMCell,
    LayerNormLSTMCell,
    LowRankLSTMCell,
    NFGCell,
    NIAFCell,
    NIGCell,
    NOAFCell,
    NOGCell,
    NPCell,
    OutputGateAttentionLSTMCell,
    SAConvLSTMCell,
    SeparableLSTMCell,
    TwoMapCell,
    VanillaLSTMCell,
)
from ..layers.pyramid import DilatedPyramid
from .case import Case
from .layers import layer_case
from .zoo_cells import KERNELS, SIZES, scanned

Rng = np.random.Generator


def low_rank(channels: int, features: int, kernel: tuple[int, ...] = (), **settings: Any) -> LowRankLSTMCell:
    """A cell of rank 2, called like the others."""
    return LowRankLSTMCell(channels, features, kernel, rank=2, **settings)


VARIANTS: dict[str, Callable[..., TwoMapCell]] = {
    "peephole conv": ConvPeepholeLSTMCell,
    "separable": SeparableLSTMCell,
    "low rank": low_rank,
    "layer norm": LayerNormLSTMCell,
    "candidate": CandidateLSTMCell,
    "vanilla": VanillaLSTMCell,
    "NIG": NIGCell,
    "NFG": NFGCell,
    "NOG": NOGCell,
    "NIAF": NIAFCell,
    "NOAF": NOAFCell,
    "NP": NPCell,
    "CIFG": CIFGCell,
    "FGR": FGRCell,
    "input attention": InputAttentionLSTMCell,
    "context gates": ContextGateLSTMCell,
    "attention for i": InputGateAttentionLSTMCell,
    "attention for o": OutputGateAttentionLSTMCell,
    "self-attention": SAConvLSTMCell,
}
FEATURES = {0: 5, 1: 2, 2: 2}  # by number of spatial axes; a norm over two numbers alone is ill-conditioned
OWN_STEPS = (  # one of each kind
    "peephole conv",
    "separable",
    "layer norm",
    "candidate",
    "CIFG",
    "FGR",
    "input attention",
    "context gates",
    "attention for i",
    "attention for o",
    "self-attention",
)


def variant_cases(rng: Rng) -> list[Case]:
    """Cases of every variant of the LSTM, and of the layers made of them.

    Args:
        rng: a NumPy Generator.
    Returns:
        Cases with float64 arguments, all of them analytic.
    """
    cases = [
        of(rng, f"{name} {rank}d", build(3, FEATURES[rank], KERNELS[rank]), SIZES[rank])
        for name, build in VARIANTS.items()
        for rank in (0, 1, 2)
    ]
    for name in OWN_STEPS:
        build, mask = VARIANTS[name], (rng.random((2, 2, 4)) > 0.4) / 0.6
        settings: dict[str, Any] = {"lengths": [3, 1, 4], "reverse": True, "steps": 4}
        cases += [
            of(rng, f"{name} 1d lengths, reverse", build(2, 2, (3,)), (4,), **settings),
            of(rng, f"{name} 1d recurrent dropout", build(2, 2, (3,)), (4,), h_mask=mask),
            of(rng, f"{name} 1d truncated", build(2, 2, (3,)), (4,), steps=4, mode="truncated"),
            of(rng, f"{name} 1d checkpointed", build(2, 2, (3,)), (4,), steps=5, mode="checkpointed"),
        ]
    return [*cases, *special_cases(rng), *pyramid_cases(rng)]


def special_cases(rng: Rng) -> list[Case]:
    """Input maps that shrink the frame, peepholes over other maps, one norm for all gates, no input."""
    shrink: dict[str, Any] = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "state_dilation": 2}
    separable = SeparableLSTMCell(3, 2, (3, 2), peephole="channel", **shrink)
    return [
        of(rng, "separable 2d strided, dilated, peephole", separable, (5, 4)),
        of(rng, "low rank 2d strided, dilated", low_rank(3, 2, (3, 2), **shrink), (5, 4)),
        of(
            rng,
            "peephole conv 2d kernel 2x3",
            ConvPeepholeLSTMCell(2, 2, (3, 1), peephole_kernel=(2, 3)),
            (3, 4),
        ),
        of(rng, "layer norm 1d all gates together", LayerNormLSTMCell(2, 2, (3,), norm_groups=1), (4,)),
        of(rng, "layer norm 1d without input", LayerNormLSTMCell(0, 2, (3,)), (4,)),
        of(rng, "separable 1d without input", SeparableLSTMCell(0, 2, (3,)), (4,)),
        of(rng, "FGR 1d state dilated", FGRCell(2, 2, (3,), state_dilation=2), (6,)),
    ]


def pyramid_cases(rng: Rng) -> list[Case]:
    """The pyramid of dilated bidirectional ConvLSTMs, of whole and of padded clips."""
    cases = []
    for name, size, lengths in (("1d", (5,), None), ("2d lengths", (4, 3), [3, 2])):
        layer = DilatedPyramid(2, 2, (3,) * len(size), rates=(1, 2), dtype=np.float64)
        layer = layer.bind({n: 0.5 * rng.standard_normal(a.shape) for n, a in layer.params.items()})
        x = rng.standard_normal((3, 2, 2, *size))
        cases.append(layer_case(f"variant/pyramid {name}", layer, x, sequence=True, lengths=lengths))
    return cases


def of(rng: Rng, name: str, cell: TwoMapCell, size: tuple[int, ...], **settings: Any) -> Case:
    """A scanned case of a variant."""
    return scanned(rng, name, cell, size, **settings)._replace(name=f"variant/{name}")
