"""Cases for cells, scanned over several steps by each of the three backward passes.

A recurrent cell is checked over at least three steps from a random non-zero state, with random
gradients on the sequence and on every part of the final state: over one step from a zero state,
"drop the incoming dc" and "forget f in dc_prev" both pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, array_module, map_arrays
from ..bptt import scan, scan_backward, scan_checkpointed, scan_checkpointed_backward, scan_truncated_backward
from ..cells.base import Cell, State
from .case import Arrays, Case
from .layers import leaves, rebuilt

MODES = ("full", "truncated", "checkpointed")


def cell_case(
    name: str,
    cell: Cell,
    xs: Array,
    state: State | None = None,
    *,
    lengths: Any = None,
    reverse: bool = False,
    h_mask: Array | None = None,
    mode: str = "full",
    k1: int = 2,
    k2: int = 3,
    every: int = 2,
    analytic: bool = True,
    seed: int = 0,
) -> Case:
    """A case from a cell: inputs xs, the initial state and all parameters; outputs ys and the final state.

    Args:
        name: how the report calls it.
        cell: any `Cell`, with float64 parameters.
        xs: (T, N, C, *S), float64; three steps or more.
        state: the initial state, or states within a state; default: drawn at random, because zero hides mistakes.
        lengths, reverse, h_mask: as `scan`.
        mode: "full", "truncated" (with k1, k2; the differences are taken with the states at the
            blocks' boundaries frozen, which is what truncation computes) or "checkpointed" (every).
        analytic: False for a cell with max, ReLU or abs inside.
        seed: of the random state.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {MODES}")
    if mode == "truncated" and (lengths is not None or reverse):
        raise ValueError(
            "mode='truncated' is checked on whole clips read forwards: leave lengths and reverse out"
        )
    blank = cell.initial_state(xs[0])
    if state is None:
        rng = np.random.default_rng(seed)
        state = map_arrays(lambda a: 0.5 * rng.standard_normal(a.shape), blank)
    arrays: Arrays = {"xs": xs, **of_state(state, "0"), **cell.params}
    frozen: list[State] = []  # the state before every step, at the unperturbed arrays
    settings = {"lengths": lengths, "reverse": reverse, "h_mask": h_mask}

    def unpack(values: Arrays) -> tuple[Cell, Array, State]:
        bound = cell.bind({n: values[n] for n in cell.params})
        return bound, values["xs"], to_state(blank, values, "0")

    def pack(ys: Array, last: State) -> Arrays:
        return {"ys": ys, **of_state(last, "_last")}

    def forward(values: Arrays) -> tuple[Arrays, Any]:
        bound, xs, start = unpack(values)
        if mode == "checkpointed":
            ys, last, kept = scan_checkpointed(bound, xs, start, every=every, **settings)
            return pack(ys, last), (bound, kept)
        ys, last, tape = scan(bound, xs, start, **settings)
        if mode == "truncated":
            if not frozen:
                frozen.extend(states_before(*unpack(arrays), h_mask))
            ys, last = frozen_blocks(frozen, bound, xs, start, k1, k2, h_mask)
        return pack(ys, last), (bound, tape)

    def backward(upstream: dict[str, Any], saved: Any) -> Arrays:
        bound, tape = saved
        dstate = to_state(blank, upstream, "_last")
        if mode == "truncated":
            dxs, d0, grads = scan_truncated_backward(bound, upstream["ys"], dstate, tape, k1=k1, k2=k2)
        elif mode == "checkpointed":
            dxs, d0, grads = scan_checkpointed_backward(bound, upstream["ys"], dstate, tape)
        else:
            dxs, d0, grads = scan_backward(bound, upstream["ys"], dstate, tape)
        return {"xs": dxs, **of_state(d0, "0"), **grads}

    return Case(name, arrays, forward, backward, analytic, ("xs",))


def of_state(state: State, end: str) -> Arrays:
    """The arrays of a state, or of states within a state, by path: "h0", "levels.1.c0"."""
    return {f"{path[1:]}{end}": a for path, a in leaves(state, "")}


def to_state(like: State, values: dict[str, Any], end: str) -> State:
    """The inverse of `of_state`."""
    return rebuilt(like, {path: values[f"{path[1:]}{end}"] for path, _ in leaves(like, "")}, "")


def states_before(cell: Cell, xs: Array, state: State, h_mask: Array | None) -> list[State]:
    """The state before every step of xs."""
    states = []
    for t in range(len(xs)):
        states.append(state)
        state = scan(cell, xs[t : t + 1], state, h_mask=h_mask)[1]
    return states


def frozen_blocks(
    frozen: list[State], cell: Cell, xs: Array, start: State, k1: int, k2: int, h_mask: Array | None
) -> tuple[Array, State]:
    """ys and the final state as truncated BPTT sees them.

    Each block starts k2 steps before its end, from the frozen state there, which no perturbation
    reaches; a block that begins at step 0 starts from the given `start`, an argument like any other.
    """
    T, parts, last = len(xs), [], start
    for end in [*range(k1, T, k1), T]:
        begin, first_loss = max(0, end - k2), (end - 1) // k1 * k1
        ys, last, _ = scan(cell, xs[begin:end], frozen[begin] if begin else start, h_mask=h_mask)
        parts.append(ys[first_loss - begin :])
    return array_module(xs).concatenate(parts), last
