"""One readable training loop: batch, loss, backward, clip, update, log, validate, checkpoint.

A batch is a function of its step, and so is the random generator of dropout and sampling: a training
that stops and goes on again does to the bit what it would have done without the stop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .backend import Array
from .checkpoint import Log, Row, load_checkpoint, save_checkpoint
from .nonfinite import NonFiniteError, all_finite, first_nonfinite, leaves
from .optim import clip_by_norm, clip_by_value
from .optimizer import Optimizer


class History(NamedTuple):
    """What a training did."""

    rows: list[Row]  # one a step: step, loss, grad_norm, lr, valid, seconds
    best: float  # the lowest value of valid, or of the loss where there is none, at a checkpoint
    best_step: int


def train(
    model: Any,
    loss_forward: Callable[..., tuple[Array, Any]],
    loss_backward: Callable[[Any, Any], dict[str, Array]],
    batch: Callable[[int], Any],
    *,
    steps: int,
    optimizer: Optimizer,
    schedule: Callable[[int], float] | None = None,
    valid: Callable[[Any], float] | None = None,
    valid_every: int = 100,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    out: Path | None = None,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    description: str = "training",
) -> History:
    """Train a model in place.

    Args:
        model: anything with params, arrays and bind: a layer, a model, a chain of layers.
        loss_forward: (model, batch, train=True, rng=rng) -> (scalar loss, saved).
        loss_backward: (model, saved) -> gradients with the keys of model.params.
        batch: step -> data; the same data for the same step, so that resuming is exact.
        steps: updates in all, those of an earlier run included.
        optimizer: updates model.params in place.
        schedule: step -> learning rate; default: the optimiser's own.
        valid: model -> a number to be small. valid_every: steps between two checkpoints, where it is
            measured; the last step is one too.
        clip_norm, clip_value: largest norm of all gradients together; largest size of an element.
        out: folder for log.csv, last.safetensors and best.safetensors; None writes nothing.
        seed: step k draws from numpy.random.default_rng([seed, k]).
        resume: go on from out/last.safetensors, where there is one.
        progress: show a progress bar on stderr. description: its label.
    Returns:
        A History.
    Raises:
        ValueError: a batch holds NaN or infinity, or a setting is out of range.
        NonFiniteError: the loss or a gradient became NaN or infinite; the message says where.
        KeyboardInterrupt: passed on after the finished steps have been saved.
    """
    from tqdm import tqdm  # plain text: notebooks without widgets show it too

    check_settings(steps, valid_every, resume, out)
    log, start, best, best_step = Log(out / "log.csv" if out else None), 0, float("inf"), -1
    if out:
        out.mkdir(parents=True, exist_ok=True)
        if resume and (out / "last.safetensors").exists():
            state = load_checkpoint(out / "last.safetensors", model, optimizer)
            start, best_step = state["step"], state["best_step"]
            best = np.inf if state["best"] is None else state["best"]
            log = Log.before(out / "log.csv", start)
    done, updating = start, False  # finished steps; whether one is being made

    def checkpoint(name: str) -> None:
        if out:
            state = {
                "step": done,
                "best": best if best < np.inf else None,
                "best_step": best_step,
                "seed": seed,
            }
            save_checkpoint(out / name, model, optimizer, state)
            log.write()

    bar = tqdm(total=steps, initial=start, desc=description, disable=not progress, dynamic_ncols=True)
    try:
        for step in range(start, steps):
            began = time.perf_counter()
            rng = np.random.default_rng([seed, step])
            data = batch(step)
            check_batch(data, step)
            loss, saved = loss_forward(model, data, train=True, rng=rng)
            grads = loss_backward(model, saved)
            check_finite(step, loss, grads, saved)
            norm = None
            if clip_value is not None:
                grads = clip_by_value(grads, clip_value)
            if clip_norm is not None:
                grads, norm = clip_by_norm(grads, clip_norm)
            rate = schedule(step) if schedule else None
            updating = True
            optimizer.update(model.params, grads, lr=rate)
            if hasattr(model, "update_buffers"):
                model.update_buffers(saved)
            done, updating = step + 1, False

            pause = done % valid_every == 0 or done == steps
            value = valid(model) if valid and pause else None
            log.add(
                step=step,
                loss=float(loss),
                grad_norm=norm,
                lr=rate,
                valid=value,
                seconds=time.perf_counter() - began,
            )
            bar.set_postfix(shown(float(loss), norm, rate, value), refresh=False)
            bar.update()
            if pause:
                measured = float(loss) if value is None else value
                if measured < best:
                    best, best_step = measured, step
                    checkpoint("best.safetensors")
                checkpoint("last.safetensors")
    except KeyboardInterrupt as stop:
        if done > start and not updating:  # a half-made update is no state to go on from
            checkpoint("last.safetensors")
        saved_in = f"; go on with resume, from {out}" if out else ""
        raise KeyboardInterrupt(f"after {done} of {steps} steps{saved_in}") from stop
    finally:
        bar.close()
    return History(log.rows, best, best_step)


def shown(loss: float, norm: float | None, rate: float | None, value: float | None) -> dict[str, str]:
    """What stands behind the progress bar."""
    found = {"loss": f"{loss:.4f}"}
    found |= {} if norm is None else {"|grad|": f"{norm:.2g}"}
    found |= {} if rate is None else {"lr": f"{rate:.1e}"}
    return found | ({} if value is None else {"valid": f"{value:.4f}"})


def check_settings(steps: int, valid_every: int, resume: bool, out: Path | None) -> None:
    """ValueError where a setting is out of range."""
    if steps < 0:
        raise ValueError(f"steps is {steps}, expected at least 0")
    if valid_every < 1:
        raise ValueError(f"valid_every is {valid_every}, expected at least 1 step")
    if resume and out is None:
        raise ValueError("resume needs out, the folder of the earlier run")


def check_batch(data: Any, step: int) -> None:
    """ValueError when a batch holds a NaN or an infinity."""
    for path, array in leaves(data):
        if not all_finite(array):
            where = f" in {'.'.join(map(str, path))}" if path else ""
            raise ValueError(
                f"the data of step {step} holds NaN or infinite values{where}, of {array.size} numbers"
            )


def check_finite(step: int, loss: Array, grads: dict[str, Array], saved: Any) -> None:
    """NonFiniteError, with the first place that went wrong, when the loss or a gradient is not finite."""
    bad = [name for name, grad in grads.items() if not all_finite(grad)]
    if np.isfinite(float(loss)) and not bad:
        return
    where = first_nonfinite(saved)
    if where is not None:
        began = f"the forward pass went non-finite first in {where}"
    elif bad:
        began = f"the forward pass is finite, the gradient of {bad[0]} is not"
    else:
        began = "every saved array is finite, the loss alone is not"
    raise NonFiniteError(
        f"step {step}: the loss is {float(loss):g}; {began}. "
        "The last checkpoint is kept; a lower learning rate or clip_norm may help"
    )
