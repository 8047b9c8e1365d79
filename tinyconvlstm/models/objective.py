"""What a forecaster is trained to do, as a pair: the cross-entropy of the frames that come next."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backend import Array
from ..layers.base import Grads, Rng
from ..ops.losses import binary_cross_entropy_backward, binary_cross_entropy_forward
from .forecaster import Forecaster


class ForecastLossSaved(NamedTuple):
    """What `forecast_loss_backward` needs."""

    forecaster: Any
    loss: Any


def forecast_loss_forward(
    model: Forecaster,
    frames: Array,
    *,
    observed: int = 10,
    train: bool = False,
    rng: Rng = None,
    truth_rate: float = 0.0,
) -> tuple[Array, ForecastLossSaved]:
    """Read the first frames of a clip, forecast the rest, compare.

        logits = model(frames[:observed])
        loss = mean of  -t log sigmoid(logits) - (1 - t) log(1 - sigmoid(logits)),   t = frames[observed:]

    Args:
        model: a forecaster.
        frames: (T, N, C, *S) in [0, 1].
        observed: frames that are read; the other T - observed are forecast.
        train, rng, truth_rate: as `Forecaster.forward`; rng draws the coins of scheduled sampling.
    Returns:
        The loss in nats per pixel, a scalar, and what `forecast_loss_backward` needs.
    Raises:
        ValueError: no frame is left to read or to forecast.
    Source: Shi et al. 2015, arXiv 1506.04214, section 4.1.
    """
    if not 1 <= observed < len(frames):
        raise ValueError(
            f"observed is {observed}, expected 1..{len(frames) - 1}, fewer than the {len(frames)} frames"
        )
    past, truth = frames[:observed], frames[observed:]
    logits, saved = model.forward(
        past,
        horizon=len(truth),
        train=train,
        rng=rng,
        truth=truth if truth_rate > 0 else None,
        truth_rate=truth_rate,
    )
    loss, loss_saved = binary_cross_entropy_forward(logits, truth)
    return loss, ForecastLossSaved(saved, loss_saved)


def forecast_loss_backward(model: Forecaster, saved: ForecastLossSaved) -> Grads:
    """Gradients of the loss with respect to the model's parameters, by name."""
    dlogits = binary_cross_entropy_backward(1.0, saved.loss)
    return model.backward(dlogits, saved.forecaster)[1]
