"""Checkpoints of a training: the model, the optimiser, and how far it has come."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from .backend import backend_name, to_backend, to_numpy
from .files import ModelFileError, load, refuse, save, write_atomically
from .models.storage import describe, part_of
from .optimizer import Optimizer

COLUMNS = ("step", "loss", "grad_norm", "lr", "valid", "seconds")
Row = dict[str, float | None]
NUMBER = (int, float, type(None))


def save_checkpoint(path: Path, model: Any, optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Write model, optimiser state and progress, all or nothing."""
    arrays = {f"model.{name}": a for name, a in model.arrays.items()}
    arrays |= {f"optimizer.{name}": a for name, a in optimizer.state_dict().items()}
    described = describe(model) if hasattr(model, "config") else {"class": type(model).__name__}
    config = {"model": described, "optimizer": type(optimizer).__name__, **progress}
    save(path, to_numpy(arrays), config, kind="checkpoint")


def load_checkpoint(path: Path, model: Any, optimizer: Optimizer, seed: int) -> dict[str, Any]:
    """Put a checkpoint's arrays into `model` and `optimizer`, in place; returns the progress.

    Raises:
        ModelFileError: the file is unreadable, or belongs to another model, optimiser or seed; then
            neither has changed.
    """
    arrays, config = load(path, kind="checkpoint")
    parameters = part_of(arrays, "model")
    if config.get("optimizer") != type(optimizer).__name__:
        refuse(
            path,
            f"was written with {config.get('optimizer')!s:.40}, this training uses {type(optimizer).__name__}",
        )
    step, best, best_step = (config.get(name) for name in ("step", "best", "best_step"))
    if type(step) is not int or step < 0 or type(best_step) is not int or type(best) not in NUMBER:
        refuse(path, "does not say which step it holds, or which was the best")
    if config.get("seed") != seed:
        refuse(path, f"was written with seed {config.get('seed')!s:.40}, this training uses {seed}")
    before = optimizer.state_dict()
    try:
        model.bind(parameters)  # checks names and shapes, changes nothing
        for name, array in model.arrays.items():
            if name not in parameters or parameters[name].dtype != array.dtype:
                raise ValueError(f"{name} is {held(parameters, name)}, expected {array.dtype}")
        optimizer.load_state_dict(part_of(arrays, "optimizer"))
        optimizer._state_for(model.params)  # checks the state's names and shapes
    except (ValueError, TypeError) as error:
        optimizer.load_state_dict(before)
        refuse(path, f"belongs to another training: {' '.join(str(error).split())[:300]}")
    for name, array in model.arrays.items():
        array[...] = to_backend(parameters[name], backend_name(array) or "numpy")
    return config


def held(arrays: dict[str, Any], name: str) -> str:
    """The dtype of an array that a file holds, or that it does not."""
    return str(arrays[name].dtype) if name in arrays else "missing"


class Log:
    """The rows of a training, kept in memory and rewritten to log.csv as a whole.

    Args:
        path: the CSV file, or None for no file.
        rows: what an earlier run left.
    """

    def __init__(self, path: Path | None, rows: list[Row] | None = None) -> None:
        self.path, self.rows = path, rows or []

    @classmethod
    def before(cls, path: Path, step: int) -> Log:
        """The log of an earlier run, without the rows from `step` on."""
        rows: list[Row] = []
        if path.exists():
            try:
                with open(path, newline="", encoding="utf-8") as file:
                    for entry in csv.DictReader(file):
                        row = {name: float(text) if (text := entry.get(name)) else None for name in COLUMNS}
                        rows.append(row)
            except (OSError, ValueError, csv.Error) as error:
                refuse(path, f"cannot be read: {' '.join(str(error).split())[:200]}")
        return cls(path, [row for row in rows if (row["step"] or 0) < step])

    def add(self, **row: float | None) -> Row:
        """One step's row; what is not given stays empty."""
        self.rows.append({name: row.get(name) for name in COLUMNS})
        return self.rows[-1]

    def lacks_validation(self, step: int) -> bool:
        """Whether the last row is that of `step`, without its validation."""
        return bool(self.rows) and self.rows[-1]["step"] == step and self.rows[-1]["valid"] is None

    def write(self) -> None:
        """Write log.csv, all or nothing; ModelFileError when the disk refuses."""
        if self.path is None:
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.rows:
            writer.writerow([cell(name, row[name]) for name in COLUMNS])
        try:
            write_atomically(self.path, text.getvalue().encode())
        except OSError as error:
            raise ModelFileError(f"{self.path}: cannot be written: {error.strerror or error}") from error


def cell(name: str, value: float | None) -> str:
    """A number as text that reads back exactly; steps as whole numbers."""
    if value is None:
        return ""
    return str(int(value)) if name == "step" else repr(float(value))
