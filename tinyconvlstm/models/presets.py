"""Published models and trainings by name; parameter counts come out exactly.

`tests/test_forecaster.py` and `tests/test_openstl.py` hold them to the published figures.
Source: Shi et al. 2015, arXiv 1506.04214, table 1: 64 x 64 frames in patches of 4 x 4 pixels. The names
are "input kernel - state kernel - features of each layer".
"""

from __future__ import annotations

from typing import Any

from .forecaster import Forecaster
from .openstl import OpenSTLForecaster

SHI_2015: dict[str, dict[str, Any]] = {
    "FC-LSTM-2048-2048": {"features": (2048, 2048), "kernel": None},
    "ConvLSTM-5x5-5x5-256": {"features": (256,), "kernel": 5},
    "ConvLSTM-5x5-5x5-128-128": {"features": (128, 128), "kernel": 5},
    "ConvLSTM-5x5-5x5-128-64-64": {"features": (128, 64, 64), "kernel": 5},
    "ConvLSTM-9x9-1x1-128-128": {"features": (128, 128), "kernel": 9, "state_kernel": 1},
    "ConvLSTM-9x9-1x1-128-64-64": {"features": (128, 64, 64), "kernel": 9, "state_kernel": 1},
}


def shi_2015(name: str, **settings: Any) -> Forecaster:
    """A `Forecaster` of Shi et al. 2015 by its name in `SHI_2015`, on 64 x 64 frames with patch 4.

    Args:
        name: a key of `SHI_2015`.
        settings: further settings of `Forecaster`, as rng and dtype.
    Raises:
        ValueError: the name is unknown.
    """
    if name not in SHI_2015:
        raise ValueError(f"name is {name!r}, expected one of {sorted(SHI_2015)}")
    return Forecaster(**{"patch": 4, **SHI_2015[name], **settings})


S, L = (128,) * 4, (192,) * 4  # features of the two sizes

# OpenSTL's ConvLSTM by data set, filters 5x5: features, channels and size of a frame, side of a patch.
OPENSTL_2023: dict[str, dict[str, Any]] = {
    "ConvLSTM-S-mmnist": {"features": S, "channels": 1, "size": (64, 64), "patch": 4},
    "ConvLSTM-L-mmnist": {"features": L, "channels": 1, "size": (64, 64), "patch": 4},
    "ConvLSTM-S-mfmnist": {"features": S, "channels": 1, "size": (64, 64), "patch": 4},
    "ConvLSTM-L-mfmnist": {"features": L, "channels": 1, "size": (64, 64), "patch": 4},
    "ConvLSTM-S-mmnist-cifar": {"features": S, "channels": 3, "size": (64, 64), "patch": 4},
    "ConvLSTM-L-mmnist-cifar": {"features": L, "channels": 3, "size": (64, 64), "patch": 4},
    "ConvLSTM-S-taxibj": {"features": S, "channels": 2, "size": (32, 32), "patch": 2},
    "ConvLSTM-S-kth": {"features": S, "channels": 1, "size": (128, 128), "patch": 2},
    "ConvLSTM-S-kitticaltech": {"features": S, "channels": 3, "size": (128, 160), "patch": 2},
    "ConvLSTM-S-human": {"features": S, "channels": 3, "size": (256, 256), "patch": 4},
    "ConvLSTM-S-weather-uv10": {"features": S, "channels": 2, "size": (32, 64), "patch": 2},
    "ConvLSTM-S-weather-mv": {"features": S, "channels": 12, "size": (32, 64), "patch": 2},
    "ConvLSTM-S-weather-1.40625": {"features": S, "channels": 1, "size": (128, 256), "patch": 4},
}


def openstl_2023(name: str, **settings: Any) -> OpenSTLForecaster:
    """An `OpenSTLForecaster` by its name in `OPENSTL_2023`: model size and data set.

    With F = 128 in four layers, K = 25 taps and D = 16 channels of a patch, ConvLSTM-S-mmnist has

        w_x of layer 0        4 F D K            204,800
        w_x of layers 1 to 3  3 * 4 F F K      4,915,200
        w_h of layers 0 to 3  4 * 4 F F K      6,553,600
        head                  D F                  2,048
        live                                  11,675,648
        never used            4 * (2 F F K + 2 F F)  3,407,872
        all                                   15,083,520      published as 15.0M

    Args:
        name: a key of `OPENSTL_2023`.
        settings: further settings of `OpenSTLForecaster`, as rng and dtype.
    Raises:
        ValueError: the name is unknown.
    Source: Tan et al. 2023, arXiv 2306.11249, and the configurations and tables of its repository.
    """
    if name not in OPENSTL_2023:
        raise ValueError(f"name is {name!r}, expected one of {sorted(OPENSTL_2023)}")
    return OpenSTLForecaster(**{**OPENSTL_2023[name], **settings})


PROTOCOLS: dict[str, dict[str, Any]] = {
    # Shi et al. 2015, section 4.1: Moving MNIST, ConvLSTM-5x5-5x5-128-64-64. The batch of 16 and the number of
    # steps are ours: the paper stops early, by the validation set. Its gradients are not clipped.
    "shi-2015": {
        "canvas": 64,
        "digits": 2,
        "digit_size": 28,
        "speed": (3.0, 5.0),
        "observed": 10,
        "horizon": 10,
        "features": (128, 64, 64),
        "kernel": 5,
        "patch": 4,
        "optimizer": "rmsprop",
        "lr": 1e-3,
        "decay": "none",
        "clip": float("inf"),
        "batch": 16,
        "steps": 100_000,
    }
}


def protocol(name: str) -> dict[str, Any]:
    """The settings of a published training by its name in `PROTOCOLS`, as `job.Job` takes them.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"preset is {name!r}, expected one of {sorted(PROTOCOLS)}")
    return dict(PROTOCOLS[name])
