"""The main job: forecast moving digits. Its settings, and its steps one by one.

`demo.py` walks through all of it; the commands train, evaluate and predict use the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from . import metrics
from .backend import Array, to_backend, to_numpy
from .data.moving_digits import MovingDigits
from .models.baselines import constant_velocity, copy_last_frame
from .models.forecaster import Forecaster
from .ops.losses import binary_cross_entropy_forward
from .ops.windows import as_int
from .optim import SGD, Adam, AdamW, RMSProp
from .optimizer import Optimizer
from .schedules import Cosine, Warmup

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSProp,
    "sgd": SGD,
}
DECAYS = ("cosine", "none")
HELD_OUT = 200  # test clips of an evaluation
PRIOR = 0.05  # mean intensity of a frame with a moving digit or two


@dataclass(frozen=True)
class Job:
    """Settings of the main job; the defaults are the demo's.

    Attributes:
        canvas: side of the square frames, in pixels. digits: how many a clip. digit_size: in pixels.
        speed: slowest and fastest, in pixels per frame.
        observed, horizon: frames read, frames forecast.
        features, kernel, state_kernel, patch, peephole, feed: of the `Forecaster`; kernel None is the
            FC-LSTM.
        truth_rate: of scheduled sampling, with feed.
        steps, batch, lr, optimizer, clip: of training. clip: largest norm of the gradient.
        decay: "cosine", lr rises over the first 20 steps, then falls to 0 along a cosine; or "none", lr
            from the first step to the last.
        seed: of the weights, the clips and scheduled sampling.
        mnist: path of an MNIST idx images file, to use instead of the packaged digits.
        backend: "numpy" or "cupy".
    """

    canvas: int = 32
    digits: int = 1
    digit_size: int = 14
    speed: tuple[float, float] = (1.0, 2.5)
    observed: int = 10
    horizon: int = 10
    features: tuple[int, ...] = (64,)
    kernel: int | None = 3
    state_kernel: int | None = None
    patch: int = 4
    peephole: str | None = "channel"
    feed: bool = False
    truth_rate: float = 0.0
    steps: int = 600
    batch: int = 8
    lr: float = 5e-3
    optimizer: str = "adam"
    clip: float = 1.0
    decay: str = "cosine"
    seed: int = 0
    mnist: str | None = None
    backend: str = "numpy"

    def __post_init__(self) -> None:
        for name in ("canvas", "digits", "digit_size", "observed", "horizon", "patch", "steps", "batch"):
            as_int(getattr(self, name), name)
        if not 0 <= self.truth_rate <= 1 or (self.truth_rate and not self.feed):
            raise ValueError(
                f"truth_rate is {self.truth_rate}, expected a probability, and above 0 only with feed"
            )
        if not self.clip > 0 or not self.lr > 0:
            raise ValueError(f"clip is {self.clip} and lr is {self.lr}, expected both above 0")
        if self.decay not in DECAYS:
            raise ValueError(f"decay is {self.decay!r}, expected one of {DECAYS}")

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Job:
        """A job from a dictionary, as `to_dict` gives it; unknown names are refused."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"settings have unknown names {unknown}, expected some of {sorted(known)}")
        fitting: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        return cls(**fitting)

    def to_dict(self) -> dict[str, Any]:
        """All settings, for a file."""
        return asdict(self)

    def clips(self, split: str) -> MovingDigits:
        """The clips of "train", "validation" or "test"; the three never share a digit image."""
        return MovingDigits(
            split,
            canvas=(self.canvas, self.canvas),
            digits=self.digits,
            frames=self.observed + self.horizon,
            speed=self.speed,
            digit_size=self.digit_size,
            seed=self.seed,
            glyphs=self.mnist,
        )

    def frames(self, split: str, index: int, count: int) -> Array:
        """`count` clips (T, N, 1, H, W), numbered from index * count, on the job's backend."""
        return to_backend(self.clips(split).batch(index, count), self.backend)

    def model(self) -> Forecaster:
        """A fresh forecaster on the job's backend."""
        return Forecaster(
            self.features,
            size=(self.canvas, self.canvas),
            kernel=self.kernel,
            state_kernel=self.state_kernel,
            patch=self.patch,
            peephole=self.peephole,
            feed=self.feed,
            prior=PRIOR,
            rng=self.seed,
        ).to_backend(self.backend)

    def learner(self) -> Optimizer:
        """The optimiser, with the learning rate's schedule inside."""
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {self.optimizer!r}, expected one of {sorted(OPTIMIZERS)}")
        return OPTIMIZERS[self.optimizer](lr=self.lr)

    def schedule(self) -> Callable[[int], float]:
        """Learning rate of each step."""
        if self.decay == "none":
            return lambda step: self.lr
        warm = min(20, max(1, self.steps // 10))
        return Warmup(warm, Cosine(self.lr, max(1, self.steps - warm)))


def validation(job: Job, clips: int = 32) -> Callable[[Forecaster], float]:
    """A function of the model: nats per pixel on validation clips."""
    frames = job.frames("validation", 0, clips)

    def measure(model: Forecaster) -> float:
        logits, _ = model.forward(frames[: job.observed], horizon=job.horizon)
        return float(binary_cross_entropy_forward(logits, frames[job.observed :])[0])

    return measure


@dataclass(frozen=True)
class Evaluation:
    """Forecasts of held-out clips by the model and by both baselines, on NumPy."""

    past: Array  # (observed, N, 1, H, W)
    truth: Array  # (horizon, N, 1, H, W)
    forecasts: dict[str, Array]  # by name, each like truth; the model's comes first

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """MSE per pixel, squared error per frame, SSIM and PSNR of every forecast."""
        return {
            name: {
                "mse": metrics.mse(frames, self.truth),
                "frame_mse": metrics.frame_mse(frames, self.truth),
                "ssim": metrics.ssim(frames, self.truth),
                "psnr": metrics.psnr(frames, self.truth),
            }
            for name, frames in self.forecasts.items()
        }

    @property
    def gain(self) -> float:
        """How far the model's MSE lies below that of copying the last frame: 0.3 means 30 %."""
        names = list(self.forecasts)
        mse = {name: metrics.mse(self.forecasts[name], self.truth) for name in names}
        return 1 - mse[names[0]] / mse["copy last frame"]

    def spread(self) -> tuple[int, int, int]:
        """The clips that the model forecasts better, as well and worse than most: quartiles of its error."""
        forecast = next(iter(self.forecasts.values()))
        errors = ((forecast - self.truth) ** 2).mean(axis=(0, *range(2, forecast.ndim)))
        order = np.argsort(errors)
        n = len(order)
        return int(order[n // 4]), int(order[n // 2]), int(order[min(3 * n // 4, n - 1)])

    def table(self) -> list[tuple[str, ...]]:
        """Head and rows, as text."""
        head = ("forecast", "MSE / pixel", "SE / frame", "SSIM", "PSNR (dB)")
        rows = [
            (name, f"{s['mse']:.4f}", f"{s['frame_mse']:.1f}", f"{s['ssim']:.3f}", f"{s['psnr']:.1f}")
            for name, s in self.scores.items()
        ]
        return [head, *rows]

    def __str__(self) -> str:
        table = self.table()
        widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
        lines = []
        for first, *rest in table:
            cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]
            lines.append("  ".join(cells))
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def evaluate(model: Forecaster, job: Job, *, clips: int = HELD_OUT, split: str = "test") -> Evaluation:
    """Forecast held-out clips with the model and with both baselines.

    Args:
        model: a forecaster for the job's frames.
        job: the clips' settings.
        clips: how many. split: "train", "validation" or "test".
    """
    frames = job.frames(split, 0, clips)
    past, truth = frames[: job.observed], to_numpy(frames[job.observed :])
    forecast = to_numpy(model.predict(past, job.horizon))
    past = to_numpy(past)
    return Evaluation(
        past,
        truth,
        {
            "ConvLSTM" if model.config["kernel"] is not None else "FC-LSTM": forecast,
            "copy last frame": copy_last_frame(past, job.horizon),
            "constant velocity": constant_velocity(past, job.horizon),
        },
    )


def check_finite(frames: Array, name: str) -> None:
    """ValueError when frames hold NaN or infinity, with how many."""
    bad = int((~np.isfinite(to_numpy(frames))).sum())
    if bad:
        raise ValueError(f"{name} has {bad} values that are NaN or infinite, expected finite pixels")
