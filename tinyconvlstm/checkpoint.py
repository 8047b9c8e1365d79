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


def save_checkpoint(path: Path, model: Any, optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Write model, optimiser state and progress, all or nothing."""
    arrays = {f"model.{name}": a for name, a in model.arrays.items()}
    arrays |= {f"optimizer.{name}": a for name, a in optimizer.state_dict().items()}
    described = describe(model) if hasattr(model, "config") else {"class": type(model).__name__}
    config = {"model": described, "optimizer": type(optimizer).__name__, **progress}
    save(path, to_numpy(arrays), config, kind="checkpoint")


def load_checkpoint(path: Path, model: Any, optimizer: Optimizer) -> dict[str, Any]:
    """Put a checkpoint's arrays into `model` and `optimizer`, in place; returns the progress.

    Raises:
        ModelFileError: the file is unreadable, or belongs to another model or optimiser.
    """
    arrays, config = load(path, kind="checkpoint")
    parameters = part_of(arrays, "model")
    if config.get("optimizer") != type(optimizer).__name__:
        refuse(
            path,
            f"was written with {config.get('optimizer')!s:.40}, this training uses {type(optimizer).__name__}",
        )
    if not isinstance(config.get("step"), int):
        refuse(path, "does not say which step it holds")
    try:
        model.bind(parameters)  # checks names and shapes, changes nothing
        optimizer.load_state_dict(part_of(arrays, "optimizer"))
    except ModelFileError:
        raise
    except ValueError as error:
        refuse(path, f"belongs to another training: {' '.join(str(error).split())[:300]}")
    for name, array in model.arrays.items():
        array[...] = to_backend(parameters[name], backend_name(array) or "numpy")
    return config


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
            with open(path, newline="", encoding="utf-8") as file:
                for entry in csv.DictReader(file):
                    row = {name: float(text) if (text := entry.get(name)) else None for name in COLUMNS}
                    rows.append(row)
        return cls(path, [row for row in rows if (row["step"] or 0) < step])

    def add(self, **row: float | None) -> None:
        """One step's row."""
        self.rows.append({name: row.get(name) for name in COLUMNS})

    def write(self) -> None:
        """Write log.csv, all or nothing."""
        if self.path is None:
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.rows:
            writer.writerow([cell(name, row[name]) for name in COLUMNS])
        write_atomically(self.path, text.getvalue().encode())


def cell(name: str, value: float | None) -> str:
    """A number as text that reads back exactly; steps as whole numbers."""
    if value is None:
        return ""
    return str(int(value)) if name == "step" else repr(float(value))
