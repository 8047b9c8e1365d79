"""Additive attention, the caption decoder and the captioner in the zoo."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cells import GRUCell, LSTMCell
from ..layers import Activation, Bidirectional, Conv, Flatten, Sequential, TimeDistributed
from ..models.additive import additive_attention_backward, additive_attention_forward
from ..models.captioner import CaptionDecoder, Captioner
from .case import Case, pair_case
from .zoo_layers import case

F64: dict[str, Any] = {"dtype": np.float64}


def captioner_cases(rng: np.random.Generator) -> list[Case]:
    """Cases with clips of equal and of unequal lengths.

    Args:
        rng: a NumPy Generator.
    Returns:
        Cases with float64 arguments.
    """
    arrays = {
        "query": rng.standard_normal((3, 4)),
        "keys": rng.standard_normal((5, 3, 4)),
        "u": rng.standard_normal(4),
        "values": rng.standard_normal((5, 3, 2)),
    }
    lengths = np.array([2, 5, 1])
    mask = np.arange(5)[:, None] < lengths
    pair = additive_attention_forward, additive_attention_backward
    v, words = rng.standard_normal((5, 3, 2)), rng.integers(0, 6, (4, 3))
    decoder = CaptionDecoder(6, 2, 3, attention=4, embedding=2, **F64)
    frames = rng.standard_normal((5, 3, 1, 3, 4))
    eye = Sequential(Conv(1, 2, 2, **F64), Activation("tanh"), Flatten())
    reader = Bidirectional(LSTMCell(24, 2, **F64), GRUCell(24, 1, **F64))
    whole = Captioner(TimeDistributed(eye), reader, CaptionDecoder(6, 3, 2, attention=3, embedding=2, **F64))
    return [
        pair_case("additive_attention/all frames", *pair, arrays, sequences=("keys", "values")),
        pair_case("additive_attention/masked", *pair, arrays, sequences=("keys", "values"), mask=mask),
        case(rng, "caption decoder", decoder, v, True, "model", sequence=True, words=words),
        case(rng, "caption decoder, lengths", decoder, v, True, "model", words=words, lengths=lengths),
        case(rng, "captioner", whole, frames, True, "model", sequence=True, words=words, lengths=lengths),
    ]
