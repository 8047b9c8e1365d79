"""Everything with parameters speaks one language: a flat dictionary of names and arrays.

`params` are learned; `buffers` are measured along the way (a batch norm's running statistics).
Names are paths, "encoder.0.w_x". Gradients come back from backward under the same names.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

from .backend import Array, to_backend


class Parametric:
    """A leaf: its parameters and buffers are plain dictionaries."""

    params: dict[str, Array]
    buffers: dict[str, Array]

    @property
    def arrays(self) -> dict[str, Array]:
        """Parameters and buffers together: what a model file holds."""
        return {**self.params, **self.buffers}

    def bind(self, arrays: Mapping[str, Array]) -> Self:
        """A copy with these arrays in place of its own; nothing is shared but settings.

        Args:
            arrays: every parameter by name; buffers may be left out and then stay as they are.
        Raises:
            ValueError: a name is missing or unknown, or a shape differs.
        """
        check_names(self, arrays)
        new = copy.copy(self)
        new.params = {name: arrays[name] for name in self.params}
        new.buffers = {name: arrays.get(name, old) for name, old in self.buffers.items()}
        return new

    def astype(self, dtype: Any) -> Self:
        """A copy with its arrays in another dtype, as for a gradient check in float64."""
        return self.bind({name: array.astype(dtype) for name, array in self.arrays.items()})

    def to_backend(self, backend: str) -> Self:
        """A copy with its arrays on another backend, "numpy" or "cupy"."""
        return self.bind(to_backend(self.arrays, backend))

    @property
    def count(self) -> int:
        """Number of learned parameters."""
        return sum(int(array.size) for array in self.params.values())


class Container(Parametric):
    """Parts with names; the parameters are the parts' own, their names prefixed."""

    parts: dict[str, Any]

    @property
    def params(self) -> dict[str, Array]:  # type: ignore[override]
        """The parts' parameters, by path."""
        return {f"{part}.{name}": a for part, p in self.parts.items() for name, a in p.params.items()}

    @property
    def buffers(self) -> dict[str, Array]:  # type: ignore[override]
        """The parts' buffers, by path."""
        return {f"{part}.{name}": a for part, p in self.parts.items() for name, a in p.buffers.items()}

    def bind(self, arrays: Mapping[str, Array]) -> Self:
        """A copy whose parts are bound to these arrays."""
        check_names(self, arrays)
        new = copy.copy(self)
        new.parts = {part: p.bind(under(arrays, part)) for part, p in self.parts.items()}
        return new


def under(arrays: Mapping[str, Array], part: str) -> dict[str, Array]:
    """The arrays whose path begins with `part`, without that beginning."""
    prefix = f"{part}."
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}


def prefixed(part: str, grads: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays with `part` put before their names."""
    return {f"{part}.{name}": g for name, g in grads.items()}


def check_names(target: Parametric, arrays: Mapping[str, Array]) -> None:
    """ValueError where names or shapes do not fit the target."""
    known = target.arrays
    missing = sorted(set(target.params) - set(arrays))
    unknown = sorted(set(arrays) - set(known))
    if missing or unknown:
        raise ValueError(f"arrays do not fit {type(target).__name__}: missing {missing}, unknown {unknown}")
    for name, array in arrays.items():
        if tuple(array.shape) != tuple(known[name].shape):
            raise ValueError(f"{name} has shape {tuple(array.shape)}, expected {tuple(known[name].shape)}")
