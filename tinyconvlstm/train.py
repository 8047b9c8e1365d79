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

from .backend import Array, array_module
from .checkpoint import Log, Row, load_checkpoint, save_checkpoint
from .distributed import Group
from .files import clear_temporaries
from .nonfinite import NonFiniteError, all_finite, first_nonfinite, leaves
from .optim import clip_by_norm, clip_by_value
from .optimizer import Optimizer


class History(NamedTuple):
    """What a training did."""

    rows: list[Row]  # one a step: step, loss, grad_norm (unclipped), lr, valid, seconds (valid's excluded)
    best: float  # the lowest value of valid, or of the loss where there is none, at a checkpoint
    best_step: int


def train(
    model: Any,
    loss_forward: Callable[..., tuple[Array, Any]],
    loss_backward: Callable[[Any, Any], dict[str, Array]],
    batch: Callable[[int], Any],
    *,
    steps: int,
    minutes: float | None = None,
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
    group: Group | None = None,
    batch_axis: Any = None,
    weigh: Callable[[Any], float] | None = None,
    clips: int | None = None,
    on_start: Callable[[], None] | None = None,
) -> History:
    """Train a model in place.

    Args:
        model: anything `Parametric`: a layer, a model, a chain of layers.
        loss_forward: (model, batch, train=True, rng=rng) -> (scalar loss, saved). Where the model has
            buffers, as of a batch norm, saved is a tuple that begins with what model.forward saved.
        loss_backward: (model, saved) -> gradients with the keys of model.params.
        batch: step -> data, an array or a tree of them; the same for the same step, so that resuming is exact.
        steps: updates in all, those of an earlier run included.
        minutes: stop sooner, after the step in which so much time has passed since this call, and keep a
            checkpoint to go on from; None: no limit.
        optimizer: updates model.params in place.
        schedule: step -> learning rate; default: the optimiser's own.
        valid: model -> a number to be small. valid_every: steps between two checkpoints, where it is
            measured; the last step is one too.
        clip_norm, clip_value: largest norm of all gradients together; largest size of an element.
        out: folder for log.csv, last.safetensors and best.safetensors; None writes nothing. A fresh start moves
            those of an earlier training to out/earlier.
        seed: step k draws from numpy.random.default_rng([seed, k]).
        resume: go on from out/last.safetensors, where there is one.
        progress: show a progress bar on stderr. description: its label.
        group: the ranks that share the work; default: this process alone. Every rank makes the same batch
            and trains on its part of it, with the random numbers that one process would draw for these clips.
        batch_axis: for several ranks: the axis of the batch's arrays that counts clips, one for all or a tree like the
            batch; default: see `distributed.clip_axes`.
        weigh: for several ranks: what the mean in the loss divides by, counted in a batch, such as its frames that
            count; default: its clips.
        clips: for several ranks: clips of the global batch, where `batch` makes this rank's part of it alone
            (`Group.part`), which saves the making of all the others.
        on_start: called once, where `out` is written, when the settings and the checkpoint have been accepted.
    Returns:
        A History.
    Raises:
        ValueError: a batch holds NaN or infinity, or a setting is out of range.
        NonFiniteError: the loss, a gradient or a parameter became NaN or infinite; the message says where.
        ModelFileError: the checkpoint to resume from is damaged or belongs to another training, or
            the disk refuses; what was written before stays.
        KeyboardInterrupt: passed on after the finished steps have been saved.
    """
    from tqdm import tqdm  # plain text: notebooks without widgets show it too

    check_settings(steps, valid_every, resume, out, minutes)
    group, deadline = group or Group(), time.monotonic() + 60 * (np.inf if minutes is None else minutes)
    log, start, best, best_step = Log(out / "log.csv" if out else None), 0, float("inf"), -1
    kept: int | None = None  # finished steps in last.safetensors
    if out:
        out.mkdir(parents=True, exist_ok=True)
        if resume and (out / "last.safetensors").exists():
            state = load_checkpoint(out / "last.safetensors", model, optimizer, seed)
            start = kept = state["step"]
            best, best_step = np.inf if state["best"] is None else state["best"], state["best_step"]
            log = Log.before(out / "log.csv", start)
            group.can_resume()
    shapes = {name: (a.shape, str(a.dtype)) for name, a in model.params.items()}
    mine = (start, steps, valid_every, clip_norm, clip_value, seed, type(optimizer).__name__, shapes)
    group.check_same("first step, settings or parameters' shapes", mine)
    if out and group.leads:
        clear_temporaries(out)
        if kept is None:
            set_aside(out)
        if on_start:
            on_start()
    group.broadcast(model.params)
    done, whole = start, True  # finished steps; False while an update is half made

    def keep(name: str) -> None:
        """Write the log, then a checkpoint: the log may be ahead, never behind."""
        if out and group.leads:
            value = best if best < np.inf else None
            state = {"step": done, "best": value, "best_step": best_step, "seed": seed}
            log.write()
            save_checkpoint(out / name, model, optimizer, state)

    def pause() -> None:
        """Measure what has been reached, and keep it."""
        nonlocal best, best_step, kept
        check_parameters(done - 1, model, kept_in(out, kept))
        group.check_equal(model.params)
        row = log.rows[-1]
        row["valid"] = float(valid(model)) if valid else None
        measured = row["valid"] if valid else row["loss"]
        if measured is not None and measured < best:
            best, best_step = measured, done - 1
            keep("best.safetensors")
        keep("last.safetensors")
        kept = done
        if out:
            group.can_resume()

    hidden = not (progress and group.leads)
    bar = tqdm(total=steps, initial=start, desc=description, disable=hidden, dynamic_ncols=True)
    try:
        if valid and start % valid_every == 0 and log.lacks_validation(start - 1):
            pause()  # the earlier run was stopped while it measured
        for step in range(start, steps):
            began = time.perf_counter()
            data = batch(step)
            check_batch(data, step)
            own, rng, weight = group.portion(data, [seed, step], axes=batch_axis, weigh=weigh, clips=clips)
            loss, saved = loss_forward(model, own, train=True, rng=rng)
            grads = loss_backward(model, saved)
            check_finite(step, loss, grads, saved, model, kept_in(out, kept))
            if group.size > 1:
                grads, loss = group.average(grads, loss, weight)
            norm = clip_by_norm(grads, np.inf)[1]
            if clip_value is not None:
                grads = clip_by_value(grads, clip_value)
            if clip_norm is not None:
                grads, _ = clip_by_norm(grads, clip_norm)
            rate = schedule(step) if schedule else optimizer_rate(optimizer)
            whole = False
            optimizer.update(model.params, grads, lr=rate)
            if model.buffers:
                model.update_buffers(saved[0])
            seconds = time.perf_counter() - began
            row = log.add(step=step, loss=float(loss), grad_norm=norm, lr=rate, seconds=seconds)
            done, whole = step + 1, True

            late = minutes is not None and group.agreed(time.monotonic() >= deadline)
            if done % valid_every == 0 or done == steps or late:
                pause()
            bar.set_postfix(shown(row), refresh=False)
            bar.update()
            if late:
                break
    except KeyboardInterrupt as stop:
        if whole and done > start and not spoiled(model):  # a half-made update is no state to go on from
            if best_step == done - 1:
                keep("best.safetensors")  # the stop may have come while it was written
            keep("last.safetensors")
            if out and group.leads:  # the others write nothing
                kept = done
                group.can_resume()
        raise KeyboardInterrupt(f"after {done} of {steps} steps; {kept_in(out, kept)}") from stop
    except NonFiniteError:
        if group.leads:
            log.write()
        raise
    finally:
        bar.close()
    return History(log.rows, best, best_step)


def set_aside(out: Path) -> None:
    """Move an earlier training's files to out/earlier, lest this one goes on from them after a stop."""
    for path in [out / name for name in ("log.csv", "last.safetensors", "best.safetensors")]:
        if path.exists():
            (out / "earlier").mkdir(exist_ok=True)
            path.replace(out / "earlier" / path.name)


def kept_in(out: Path | None, kept: int | None) -> str:
    """Where to go on from, in words."""
    if out is None or kept is None:
        return "no checkpoint was written"
    return f"{out / 'last.safetensors'} keeps the first {kept} steps, go on from there with resume"


def optimizer_rate(optimizer: Optimizer) -> float:
    """The optimiser's own learning rate for its next update."""
    return float(optimizer.lr(optimizer.step) if callable(optimizer.lr) else optimizer.lr)


def shown(row: Row) -> dict[str, str]:
    """What stands behind the progress bar."""
    forms = {"loss": ".4f", "grad_norm": ".2g", "lr": ".1e", "valid": ".4f"}
    labels = {"grad_norm": "|grad|"}
    found = {name: row[name] for name in forms}
    return {labels.get(n, n): format(v, forms[n]) for n, v in found.items() if v is not None}


def check_settings(
    steps: int, valid_every: int, resume: bool, out: Path | None, minutes: float | None
) -> None:
    """ValueError where a setting is out of range."""
    if steps < 0:
        raise ValueError(f"steps is {steps}, expected at least 0")
    if valid_every < 1:
        raise ValueError(f"valid_every is {valid_every}, expected at least 1 step")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes is {minutes}, expected a time above 0")
    if resume and out is None:
        raise ValueError("resume needs out, the folder of the earlier run")


def check_batch(data: Any, step: int) -> None:
    """ValueError when a batch holds a NaN or an infinity."""
    for path, array in leaves(data):
        if not all_finite(array):
            bad = int((~array_module(array).isfinite(array)).sum())
            where = f" in {'.'.join(map(str, path))}" if path else ""
            raise ValueError(
                f"the data of step {step} holds NaN or infinite values{where}: {bad} of {array.size} numbers"
            )


def check_finite(step: int, loss: Array, grads: dict[str, Array], saved: Any, model: Any, kept: str) -> None:
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
    weights = spoiled(model)
    began += f"; {weights[0]} was so before this step" if weights else ""
    raise NonFiniteError(
        f"step {step}: the loss is {float(loss):g}; {began}; a lower learning rate or clip_norm may help; {kept}"
    )


def check_parameters(step: int, model: Any, kept: str) -> None:
    """NonFiniteError when an update has spoiled a parameter or a buffer, before it replaces a good checkpoint."""
    for name in spoiled(model):
        raise NonFiniteError(f"step {step}: the update made {name} NaN or infinite; {kept}")


def spoiled(model: Any) -> list[str]:
    """Parameters and buffers that hold a NaN or an infinity."""
    return [name for name, a in model.arrays.items() if a.dtype.kind in "fc" and not all_finite(a)]
