"""Published models and trainings by name; parameter counts come out exactly (`tests/test_forecaster.py`).

Source: Shi et al. 2015, arXiv 1506.04214, table 1: 64 x 64 frames in patches of 4 x 4 pixels. The names
are "input kernel - state kernel - features of each layer".
"""

from __future__ import annotations

from typing import Any

from .forecaster import Forecaster

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
