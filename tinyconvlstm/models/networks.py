"""Small networks for clips (T, N, C, H, W) by name, all ending in logits (N, classes).

cnn_lstm            convolutions frame by frame, an LSTM over what they found
convlstm_classifier ConvLSTM, the mean of the last h over positions
bidirectional       the same with a ConvLSTM each way
conv3d_network      convolutions over time and space with spatio-temporal pooling
factorised_network  the same with (2+1)-d convolutions
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..cells import ConvLSTMCell, LSTMCell
from ..layers.base import Layer, Sequential
from ..layers.basic import Conv, Dense
from ..layers.clips import FactorisedConv, ToVolume
from ..layers.plain import Activation, Flatten, GlobalPool, Pool
from ..layers.recurrent import Bidirectional, Recurrent
from .classifier import VideoClassifier, check_features

Seed = np.random.Generator | int


def frame_network(
    channels: int,
    features: Sequence[int],
    *,
    kernel: int = 3,
    keep_places: bool = False,
    rng: Seed = 0,
    dtype: Any = np.float32,
) -> Sequential:
    """Convolution, ReLU and max pooling by 2 for each entry of features, then the mean: (N, features[-1]).

    With keep_places the last maps are flattened, (N, features[-1] * positions left), so that what comes
    after knows where things are, not only what there is.
    """
    check_features(features)
    rng = np.random.default_rng(rng)
    layers: list[Layer] = []
    for c, f in zip((channels, *features[:-1]), features, strict=True):
        layers += [Conv(c, f, kernel, rng=rng, dtype=dtype), Activation("relu"), Pool("max", 2)]
    return Sequential(*layers, Flatten() if keep_places else GlobalPool("avg"))


def cnn_lstm(
    channels: int,
    classes: int,
    *,
    features: Sequence[int] = (8, 16),
    hidden: int = 32,
    size: tuple[int, int] | None = None,
    rng: Seed = 0,
    dtype: Any = np.float32,
) -> VideoClassifier:
    """`frame_network` on every frame, one LSTM over the results, its last valid h through a dense head.

    Args:
        channels: C. classes: K.
        features: of the convolutions, first to last. hidden: F of the LSTM.
        size: (H, W) of the frames, for an LSTM that knows where in a frame things are; None: the mean
            over positions.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Source: Donahue et al. 2015, arXiv 1411.4389, section 3 (there with large pretrained networks).
    """
    rng = np.random.default_rng(rng)
    backbone = frame_network(channels, features, keep_places=size is not None, rng=rng, dtype=dtype)
    inputs = features[-1] if size is None else backbone.cost((1, channels, *size)).out[1]
    lstm = Recurrent(LSTMCell(inputs, hidden, rng=rng, dtype=dtype), return_sequences=False)
    return VideoClassifier([lstm], Dense(hidden, classes, rng=rng, dtype=dtype), backbone=backbone)


def convlstm_classifier(
    channels: int,
    classes: int,
    *,
    features: Sequence[int] = (16,),
    kernel: tuple[int, ...] = (3, 3),
    stride: int = 1,
    bidirectional: bool = False,
    rng: Seed = 0,
    dtype: Any = np.float32,
) -> VideoClassifier:
    """ConvLSTMs, the mean over positions of the last one's last valid h, a dense head.

    Args:
        channels: C. classes: K.
        features: F of each ConvLSTM, bottom first. kernel: of both maps.
        stride: of the first input map, in pixels.
        bidirectional: a ConvLSTM each way in every layer, both h side by side.
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    """
    check_features(features)
    rng = np.random.default_rng(rng)
    layers, c = [], channels
    for k, f in enumerate(features):
        cells = [
            ConvLSTMCell(c, f, kernel, stride=stride if k == 0 else 1, rng=rng, dtype=dtype)
            for _ in range(1 + bidirectional)
        ]
        kind: Any = Bidirectional if bidirectional else Recurrent
        layers.append(kind(*cells, return_sequences=k < len(features) - 1))
        c = f * (1 + bidirectional)
    head = Sequential(GlobalPool("avg"), Dense(c, classes, rng=rng, dtype=dtype))
    return VideoClassifier(layers, head)


def conv3d_network(
    channels: int,
    classes: int,
    *,
    features: Sequence[int] = (8, 16),
    kernel: tuple[int, int, int] = (3, 3, 3),
    rng: Seed = 0,
    dtype: Any = np.float32,
) -> Sequential:
    """Convolutions over (t, h, w), max pooling by (1, 2, 2) then by (2, 2, 2), the mean over all that is left.

    Args:
        channels: C. classes: K.
        features: of the convolutions, first to last. kernel: (k_t, k_h, k_w).
        rng: a NumPy Generator or a seed. dtype: of the parameters.
    Source: Tran et al. 2015, arXiv 1412.0767, section 3.3: the first pooling leaves time as it is.
    """
    return volume_network(
        lambda c, f, r: Conv(c, f, kernel, rng=r, dtype=dtype), channels, classes, features, rng, dtype
    )


def factorised_network(
    channels: int,
    classes: int,
    *,
    features: Sequence[int] = (8, 16),
    kernel: tuple[int, int, int] = (3, 3, 3),
    rng: Seed = 0,
    dtype: Any = np.float32,
) -> Sequential:
    """`conv3d_network` with a `FactorisedConv` in place of every convolution: space, ReLU, time.

    Args: as `conv3d_network`.
    Source: Tran et al. 2018, arXiv 1711.11248, section 3.5.
    """
    return volume_network(
        lambda c, f, r: FactorisedConv(c, f, kernel, rng=r, dtype=dtype),
        channels,
        classes,
        features,
        rng,
        dtype,
    )


def volume_network(
    conv: Callable[[int, int, np.random.Generator], Layer],
    channels: int,
    classes: int,
    features: Sequence[int],
    rng: Seed,
    dtype: Any,
) -> Sequential:
    """ToVolume, then conv, ReLU and pooling for each entry of features, the mean, and a dense head."""
    check_features(features)
    rng = np.random.default_rng(rng)
    layers: list[Layer] = [ToVolume()]
    for k, (c, f) in enumerate(zip((channels, *features[:-1]), features, strict=True)):
        layers += [conv(c, f, rng), Activation("relu"), Pool("max", (1 + (k > 0), 2, 2))]
    return Sequential(*layers, GlobalPool("avg"), Dense(features[-1], classes, rng=rng, dtype=dtype))
