"""The protocol of everything recurrent, and the frame that two-map cells share.

A cell is one time step. It knows nothing of time: `scan` in `bptt.py` does the looping, and knows
nothing of gates. What does not depend on the state (`project`) is computed for all steps at once.
Its state is an argument and a result, never an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np

from ..backend import Array, array_module, check_dtypes
from ..ops.conv import correlate_adjoint_x
from ..ops.windows import as_int
from ..parameters import Parametric
from .maps import BiasMap, ConvMap, Grads, at_rest, steps_at_once
from .maps import zeros as zeros  # for the cells

State = Any  # a NamedTuple whose first field, h, is what the cell shows the world


class Cell(Parametric):
    """One time step of anything recurrent.

    A forward step is `project` (all steps at once) then `step` (one at a time); a backward one is
    `step_backward` (one at a time, last first) then `state_backward` and `project_backward` (all
    steps at once, because a weight's gradient is a plain sum over time: only the state recurs).
    """

    buffers: ClassVar[dict[str, Array]] = {}  # type: ignore[misc]  # cells measure nothing

    def initial_state(self, x: Array) -> State:
        """The all-zero state for frames like x (N, C, *S): same batch, dtype and backend."""
        raise NotImplementedError(type(self).__name__)

    def check_state(self, state: State, x: Array) -> State:
        """The state given to start from, or an error where it does not fit frames like x (N, C, *S)."""
        return state

    def project(self, xs: Array) -> tuple[Sequence[Any], Any]:
        """All that does not depend on the state: xs (T, N, C, *S) -> (zs, saved), zs[t] for `step`."""
        raise NotImplementedError(type(self).__name__)

    def step(self, z: Any, state: State, h_mask: Array | None = None) -> tuple[State, Any]:
        """One step from `z = zs[t]`: (new state, saved). `h_mask` multiplies h where a map reads it."""
        raise NotImplementedError(type(self).__name__)

    def step_backward(self, dstate: State, saved: Any) -> tuple[Any, State, Grads]:
        """Gradients of one step: (dz, gradient of the state before, grads that arise in the step)."""
        raise NotImplementedError(type(self).__name__)

    def ahead(self, steps: list[Any], kind: Any, joined: bool) -> tuple[Array | None, Iterator[Any]]:
        """The steps for `step_backward`, last first, with what can be found of several at once before the gradients.

        `kind` is the gradients' dtype. Where `joined` asks for one array (T, *dz.shape) of the steps' dz, a cell that
        writes them side by side returns that too. A step is for one call of `step_backward`, which may write over it.
        """
        return None, reversed(steps)

    def state_backward(self, dzs: Sequence[Any], steps: Sequence[Any], grads: Grads) -> None:
        """Add the gradients of the state map's weights, a sum over the given steps, to `grads`."""
        raise NotImplementedError(type(self).__name__)

    def project_backward(
        self,
        dzs: Sequence[Any],
        saved: Any,
        grads: Grads,
        *,
        input_grad: bool = True,
        out: Array | None = None,
    ) -> Array:
        """Adjoint of `project`: returns dxs (T, N, C, *S), adds the input map's gradients to `grads`.

        Without `input_grad` nobody wants dxs, and None will do. A cell that takes fewer than all
        steps at once is told where to write them, in `out`.
        """
        raise NotImplementedError(type(self).__name__)

    def projection_of(self, saved: Any, begin: int, end: int) -> Any:
        """What `project` saved, for the steps begin .. end - 1."""
        raise NotImplementedError(type(self).__name__)

    def steps_at_once(self, xs: Array) -> int:
        """For how many steps the maps' gradients are taken together; a backward pass keeps that many dz."""
        return len(xs)

    def macs(self, x: Array) -> int:
        """Multiply-accumulates of one step for frames like x; 0 where clips are not to be split over threads."""
        return 0


class TwoMapCell(Cell):
    """A cell made of gates, an input map (x -> z) and a state map (h -> z).

    With kernel () both maps are dense matrices; otherwise they are convolutions over len(kernel)
    spatial axes. The state map is always stride 1 and "same", so that the state keeps its shape. With
    channels = 0 the cell has no input: it reads frames of 0 channels, and z is the bias alone.
    """

    gates: ClassVar[tuple[str, ...]]  # names of the blocks of F channels that the maps produce
    states: ClassVar[int]  # arrays of (N, F, *S) in the state
    kept_per_step: float  # arrays of (N, F, *S) that a step makes and keeps, h apart
    room_per_step: ClassVar[int] = 8  # those that a backward step makes beside dz, at its peak
    room_beside_map: ClassVar[int] = 6  # and those that it holds while the state map goes back
    frames_beside: float = 0  # those of every step that the state's maps lay side by side for their gradients
    step_by_step: ClassVar[tuple[str, ...]] = ()  # weights that read the input within a step

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: tuple[int, ...] = (),
        *,
        state_kernel: tuple[int, ...] | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: Any = "same",
        dilation: int | tuple[int, ...] = 1,
        state_dilation: int | tuple[int, ...] = 1,
        rng: np.random.Generator | int = 0,
        dtype: Any = np.float32,
    ) -> None:
        for name, value in (("kernel", kernel), ("state_kernel", state_kernel)):
            if isinstance(value, int):
                raise ValueError(f"{name} is {value}, expected one int a spatial axis, as ({value}, {value})")
        if np.dtype(dtype).kind not in "fc":
            raise ValueError(f"dtype is {np.dtype(dtype)}, expected a floating one")
        channels, features = as_int(channels, "channels", 0), as_int(features, "features")
        state_kernel = tuple(kernel) if state_kernel is None else tuple(state_kernel)
        if len(state_kernel) != len(kernel):
            raise ValueError(f"state_kernel is {state_kernel}, expected one entry for each of {kernel}")
        self.channels, self.features, self.kernel = channels, features, tuple(kernel)
        self.input_map: ConvMap | BiasMap = BiasMap("b")
        if channels:
            self.input_map = ConvMap("w_x", "b", tuple(kernel), stride, padding, dilation)
        self.state_map = ConvMap("w_h", None, state_kernel, 1, "same", state_dilation)
        rng = np.random.default_rng(rng)
        blocks = len(self.gates)
        self.params = {
            **self.input_map.init(rng, channels, features, blocks, dtype),
            **self.state_map.init(rng, features, features, blocks, dtype),
        }

    def steps_at_once(self, xs: Array) -> int:
        """All steps of dense maps, in one product; of convolutions those whose dz fit in a cache."""
        if not self.kernel:
            return len(xs)
        rows = len(self.gates) * self.features
        return min(len(xs), steps_at_once(xs[0], self.input_map.over(xs.shape[3:]), rows))

    def macs(self, x: Array) -> int:
        """Multiply-accumulates of one step of a convolutional cell; 0 of a dense one, which BLAS splits better."""
        if not self.kernel:
            return 0
        state = self.state_shape(x)
        return state[0] * self.step_macs(state[2:])

    def step_macs(self, sizes: tuple[int, ...]) -> int:
        """Multiply-accumulates of one step of one clip whose state is of spatial `sizes`."""
        return prod(sizes) * self.macs_per_position

    def step_kept(self, sizes: tuple[int, ...]) -> int:
        """Numbers that one step of one clip makes and keeps, h apart."""
        return round(prod(sizes) * self.features * self.kept_per_step)

    def step_room(self, sizes: tuple[int, ...]) -> int:
        """Numbers that a backward step of one clip makes beside dz, at its gates' peak."""
        return prod(sizes) * self.features * self.room_per_step

    def strip_room(self, h: Array) -> int:
        """Numbers that a cell's own work on states like h holds, strip by strip, in a backward step."""
        return 0

    def products(self) -> list[tuple[str, Array, bool]]:
        """Weights as they are multiplied, by name; and whether their gradient takes several steps at once."""
        return [(name, w, True) for name, w in self.params.items()]

    @property
    def dz_blocks(self) -> float:
        """Blocks of F channels in the dz of a step."""
        return len(self.gates)

    @property
    def macs_per_position(self) -> int:
        """Multiply-accumulates of one step for one sample at one position of the state."""
        return self.input_map.cost(self.params) + self.state_map.cost(self.params)

    def state_shape(self, x: Array) -> tuple[int, ...]:
        """(N, F, *S) of the state for frames x (N, C, *S); ValueError when x does not fit the cell."""
        self.input_map.check(x, self.params)
        return (x.shape[0], self.features, *self.input_map.out(x.shape[2:]))

    def check_state(self, state: State, x: Array) -> State:
        """The state; ValueError or TypeError where a field's shape, dtype or backend does not fit x."""
        names = self.initial_state(x)._fields
        if getattr(state, "_fields", None) != names:
            raise ValueError(
                f"state is a {type(state).__name__}, expected the fields {names} of {type(self).__name__}.initial_state"
            )
        self.check_fields(state, x)
        return state

    def check_fields(self, state: State, x: Array) -> None:
        """ValueError or TypeError where a field's shape, dtype or backend does not fit x."""
        shape = self.state_shape(x)
        fields = {f"state.{name}": a for name, a in zip(state._fields, state, strict=True)}
        array_module(x=x, **fields)
        check_dtypes(x=x, **fields)
        for name, a in fields.items():
            if tuple(a.shape) != shape:
                raise ValueError(
                    f"{name} has shape {tuple(a.shape)}, expected {shape} for frames of shape {tuple(x.shape)}"
                )

    def project(self, xs: Array) -> tuple[Sequence[Array], Any]:
        """zs, T times (N, gates * F, *S): the input map of every frame."""
        return self.input_map.project(xs, self.params)

    def project_backward(
        self,
        dzs: Sequence[Any],
        saved: Any,
        grads: Grads,
        *,
        input_grad: bool = True,
        out: Array | None = None,
    ) -> Array:
        """dxs (T, N, C, *S) of the input map; adds the gradients of w_x and b to `grads`."""
        dzs = dzs if hasattr(dzs, "shape") else [self.to_input_map(dz) for dz in dzs]
        self.input_map.add_weight_grads(dzs, saved.x, saved, grads)
        return self.input_map.backward_x(dzs, saved, out) if input_grad else None

    def projection_of(self, saved: Any, begin: int, end: int) -> Any:
        """What `project` saved, for the steps begin .. end - 1."""
        return saved._replace(x=saved.x[begin:end])

    def state_backward(self, dzs: Sequence[Any], steps: Sequence[Any], grads: Grads) -> None:
        """Add the gradient of w_h, a sum over the steps, to `grads`."""
        dzs = dzs if hasattr(dzs, "shape") else [self.to_state_map(dz) for dz in dzs]
        frames = [step.state_map.x for step in steps]
        self.state_map.add_weight_grads(dzs, frames, steps[0].state_map, grads)

    def pre_activations(self, z: Array, h: Array, h_mask: Array | None) -> tuple[Array, Any]:
        """z + w_h * h, a new array, from the input map's part z; and what the state map saved."""
        return self.state_map.forward(masked(h, h_mask), self.params, plus=z)

    def state_map_backward(self, dz: Array, saved: Any, h_mask: Array | None) -> Array:
        """dh from dz through the state map; None where h is at rest, a constant."""
        if at_rest(saved.x):
            return None
        return masked(correlate_adjoint_x(dz, saved.w, saved.geometry), h_mask)

    def to_input_map(self, dz: Any) -> Array:
        """The part of `dz` that reaches the input map."""
        return dz

    def to_state_map(self, dz: Any) -> Array:
        """The part of `dz` that reaches the state map."""
        return dz


def masked(h: Array, h_mask: Array | None) -> Array:
    """h as the state map sees it: times the recurrent dropout mask, where there is one."""
    return h if h_mask is None or at_rest(h) else h * h_mask
