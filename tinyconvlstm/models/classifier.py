"""Clip classifiers: a network for every frame, recurrent layers over time, a head on what they remember.

x (T, N, C, *S) -> backbone, frame by frame -> recurrent layers -> last valid step, or attention over
all steps -> head -> logits (N, classes)
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..cells import LSTMCell
from ..layers.base import Layer, Sequential
from ..layers.basic import Dense
from ..layers.recurrent import Recurrent, TimeDistributed
from ..ops.activations import softmax_forward


class VideoClassifier(Sequential):
    """Backbone, recurrent layers, head; trained end to end, backward through all of them.

    Args:
        recurrent: `Recurrent`, `Bidirectional` and the like, bottom first. All but the last give
            sequences; the last one gives its last valid step, or a sequence for `pool` to read.
        head: a layer on the last h, (N, F, *S) or (N, F), that makes logits (N, classes).
        backbone: a layer on single frames (N, C, *S), or None.
        pool: a layer that makes one step of a sequence, as `TemporalAttention`; or None.
    Parameters: "backbone.layer.*", "recurrent.0.*", ..., "pool.*", "head.*".
    Raises:
        ValueError: a recurrent layer gives a sequence where one step is needed, or the reverse.
    """

    def __init__(
        self,
        recurrent: Sequence[Any],
        head: Layer,
        *,
        backbone: Layer | None = None,
        pool: Layer | None = None,
    ) -> None:
        check_sequences(recurrent, last=pool is not None)
        layers = {f"recurrent.{k}": layer for k, layer in enumerate(recurrent)}
        before = {} if backbone is None else {"backbone": TimeDistributed(backbone)}
        after = {"head": head} if pool is None else {"pool": pool, "head": head}
        super().__init__({**before, **layers, **after})

    def probabilities(self, x: Array, *, lengths: Any = None) -> Array:
        """softmax of the logits, (N, classes)."""
        return softmax_forward(self.forward(x, lengths=lengths)[0])[0]

    def over_time(self, x: Array, *, lengths: Any = None) -> Array:
        """The class probabilities after every step, (T, N, classes): what the head would say of each h.

        For models without `pool` whose recurrent layers all read forwards; there step t equals
        `probabilities(x[: t + 1])`.

        Raises:
            ValueError: a layer reads the clip backwards, or there is a `pool`.
        """
        *below, top, head = (self.parts[name] for name in self.parts if name != "backbone")
        if "pool" in self.parts or any(not isinstance(r, Recurrent) or r.reverse for r in (*below, top)):
            raise ValueError(
                "recurrent has a layer that needs the whole clip: no answer exists after each step"
            )
        if "backbone" in self.parts:
            x = self.parts["backbone"].forward(x)[0]
        for layer in (*below, sequence_of(top)):
            x = layer.forward(x, lengths=lengths)[0]
        logits = [head.forward(h)[0] for h in x]
        return softmax_forward(array_module(x).stack(logits), axis=2)[0]


class FrameLabeller(Sequential):
    """Label every frame: stacked recurrent layers that give sequences, and one head for all steps.

        logits[t] = head(h[t])

    Args:
        recurrent: layers that give sequences, bottom first.
        head: a layer on one step.
        backbone: a layer on single frames, or None.
    Parameters: "backbone.layer.*", "recurrent.0.*", ..., "head.layer.*".
    Raises:
        ValueError: a recurrent layer gives no sequence: one step cannot be labelled frame by frame.
    """

    def __init__(self, recurrent: Sequence[Any], head: Layer, *, backbone: Layer | None = None) -> None:
        check_sequences(recurrent, last=True)
        before = {} if backbone is None else {"backbone": TimeDistributed(backbone)}
        layers = {f"recurrent.{k}": layer for k, layer in enumerate(recurrent)}
        super().__init__({**before, **layers, "head": TimeDistributed(head)})


def lstm_classifier(
    channels: int,
    classes: int,
    features: Sequence[int] = (128,),
    *,
    dropout: float = 0.0,
    rng: np.random.Generator | int = 0,
    dtype: Any = np.float32,
) -> VideoClassifier:
    """Stacked LSTMs over feature vectors (T, N, C), the last valid h through a dense head.

    Args:
        channels: C. classes: K.
        features: F of each LSTM, bottom first.
        dropout: on the input of every LSTM but the first, in training.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    """
    check_features(features)
    rng = np.random.default_rng(rng)
    ends = len(features) - 1
    layers = [
        Recurrent(
            LSTMCell(c, f, rng=rng, dtype=dtype), return_sequences=k < ends, dropout=dropout if k else 0.0
        )
        for k, (c, f) in enumerate(zip((channels, *features[:-1]), features, strict=True))
    ]
    return VideoClassifier(layers, Dense(features[-1], classes, rng=rng, dtype=dtype))


def lstm_labeller(
    channels: int,
    classes: int,
    features: Sequence[int] = (128, 64),
    *,
    rng: np.random.Generator | int = 0,
    dtype: Any = np.float32,
) -> FrameLabeller:
    """Stacked LSTMs over feature vectors (T, N, C), every h through one dense head: logits (T, N, K).

    With one label for the whole clip take `lstm_classifier` with the same features: the last layer then
    gives its last step, and the head is a plain `Dense`.
    """
    check_features(features)
    rng = np.random.default_rng(rng)
    layers = [
        Recurrent(LSTMCell(c, f, rng=rng, dtype=dtype))
        for c, f in zip((channels, *features[:-1]), features, strict=True)
    ]
    return FrameLabeller(layers, Dense(features[-1], classes, rng=rng, dtype=dtype))


def check_features(features: Any) -> None:
    """ValueError unless features is a sequence of at least one whole number."""
    if (
        not isinstance(features, Sequence)
        or not features
        or not all(isinstance(f, int) and f > 0 for f in features)
    ):
        raise ValueError(f"features is {features!r}, expected at least one whole number, as (8, 16)")


def sequence_of(layer: Recurrent) -> Recurrent:
    """The same layer giving its whole sequence; the parameters are shared."""
    whole = copy(layer)
    whole.return_sequences = True
    return whole


def check_sequences(recurrent: Sequence[Any], *, last: bool) -> None:
    """ValueError unless all layers but the last give sequences, and the last one as `last` says."""
    if not recurrent:
        raise ValueError("recurrent is empty, expected at least one layer")
    for k, layer in enumerate(recurrent):
        wanted = last or k < len(recurrent) - 1
        if getattr(layer, "return_state", False):
            raise ValueError(
                f"recurrent[{k}] has return_state=True, expected False: states are not read here"
            )
        if getattr(layer, "return_sequences", True) != wanted:
            needs = "a sequence is needed" if wanted else "one step is needed"
            raise ValueError(f"recurrent[{k}] has return_sequences={not wanted}, expected {wanted}: {needs}")
