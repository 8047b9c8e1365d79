"""Layers over time: a scanned cell, one cell each way, and any layer applied to every step."""

from __future__ import annotations

from math import ceil, prod, sqrt
from typing import Any, NamedTuple

from ..backend import Array, array_module, backend_name
from ..batch import Parts
from ..bptt import scan, scan_backward
from ..cells.base import State, TwoMapCell
from ..loops import Tape
from ..ops.dropout import dropout_backward, dropout_forward, dropout_mask
from ..parameters import Container, prefixed
from .base import Grads, Layer, Rng, Shape, needed
from .memory import peak
from .summary import Cost


class RecurrentSaved(NamedTuple):
    """What `Recurrent.backward` needs."""

    tape: Tape | Parts
    dropout: Any  # saved of the input dropout, or None


class Recurrent(Layer):
    """A cell scanned over time.

    Args:
        cell: any cell of `cells`.
        return_sequences: give ys (T, N, F, *S); otherwise the h of each clip's last valid step.
        return_state: give (y, state) instead of y.
        reverse: read every clip backwards (within its length).
        dropout: share of the input's elements dropped in training, the same mask at every step.
        recurrent_dropout: the same for h where the state map reads it.
    Source of the two dropouts: Gal & Ghahramani 2016, arXiv 1512.05287, equation 7.
    """

    takes_lengths = True

    def __init__(
        self,
        cell: TwoMapCell,
        *,
        return_sequences: bool = True,
        return_state: bool = False,
        reverse: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
    ) -> None:
        self.cell = cell
        self.return_sequences, self.return_state, self.reverse = return_sequences, return_state, reverse
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout

    @property
    def params(self) -> dict[str, Array]:  # type: ignore[override]
        """The cell's parameters, under the cell's names."""
        return self.cell.params

    @property
    def buffers(self) -> dict[str, Array]:  # type: ignore[override]
        """The cell's buffers."""
        return self.cell.buffers

    def bind(self, arrays: Any) -> Recurrent:
        """A copy whose cell is bound to these arrays."""
        new: Recurrent = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__, cell=self.cell.bind(arrays))
        return new

    def forward(
        self,
        x: Array,
        *,
        train: bool = False,
        rng: Rng = None,
        state: State | None = None,
        lengths: Any = None,
    ) -> tuple[Any, RecurrentSaved]:
        """Scan the cell over x (T, N, C, *S).

        Args:
            x: (T, N, C, *S).
            train, rng: dropout acts in training only and draws its masks from rng.
            state: the state before the first step; default: all zero.
            lengths: (N,) valid steps of each clip.
        Returns:
            y, or (y, state) with return_state; and what backward needs.
        """
        dropped = h_mask = None
        if train and self.dropout:
            rng = needed(rng, "dropout")
            mask = dropout_mask(rng, (1, *x.shape[1:]), self.dropout, x.dtype, backend_name(x) or "numpy")
            x, dropped = dropout_forward(x, mask)
        if train and self.recurrent_dropout:
            start = self.cell.initial_state(x[0]) if state is None else state
            rng = needed(rng, "recurrent dropout")
            shape, rate = start.h.shape, self.recurrent_dropout
            h_mask = dropout_mask(rng, (1, *shape), rate, x.dtype, backend_name(x) or "numpy")[0]
        ys, state, tape = scan(self.cell, x, state, lengths=lengths, reverse=self.reverse, h_mask=h_mask)
        y = ys if self.return_sequences else state.h
        return ((y, state) if self.return_state else y), RecurrentSaved(tape, dropped)

    def backward(self, dy: Any, saved: RecurrentSaved) -> tuple[Array, Grads]:
        """dxs (T, N, C, *S) and grads from dy, or from (dy, dstate) with return_state.

        Gradients may arrive on the sequence, on the last h and on the last c at once; any may be None.
        """
        dxs, _, grads = self.backward_with_state(dy, saved)
        return dxs, grads

    def backward_with_state(self, dy: Any, saved: RecurrentSaved) -> tuple[Array, State, Grads]:
        """As `backward`, and the gradient of the initial state between the two."""
        dy, dstate = dy if self.return_state else (dy, None)
        if not self.return_sequences and dy is not None:
            last = saved.tape.last
            empty = type(last)(*(None for _ in last)) if dstate is None else dstate
            dstate = empty._replace(h=dy if empty.h is None else empty.h + dy)
            dy = None
        dxs, dstate, grads = scan_backward(self.cell, dy, dstate, saved.tape)
        if saved.dropout is not None:
            dxs = dropout_backward(dxs, saved.dropout)
        return dxs, dstate, grads

    def cost(self, shape: Shape) -> Cost:
        """Both maps at every step; a scan keeps every step's gates and, always, the sequence of h."""
        T, N, C, *S = check_time(shape, "Recurrent")
        cell = self.cell
        if cell.channels != C:
            raise ValueError(f"input has {C} channels, the cell expects {cell.channels}")
        out = cell.input_map.out(tuple(S))
        macs = T * N * cell.step_macs(out)
        kept = T * N * (cell.step_kept(out) + cell.features * prod(out))  # gates and ys
        y = (T, N, cell.features, *out) if self.return_sequences else (N, cell.features, *out)
        return Cost(y, macs, kept)

    def peaks(self, shape: Shape) -> tuple[tuple[str, int], ...]:
        """Numbers at the peak of a scan of whole clips and its backward pass, by the way back; input and dys apart."""
        T = check_time(shape, "Recurrent")[0]
        half, every = max(1, T // 2), ceil(sqrt(T))
        return (
            ("full", peak(self.cell, shape)),
            (f"truncated, k1 = k2 = {half}", peak(self.cell, shape, k2=half)),
            (f"checkpointed every {every}", peak(self.cell, shape, every=every)),
        )


class Bidirectional(Container, Layer):
    """Two recurrent layers on one sequence, one reading it backwards.

    Args:
        forward_cell, backward_cell: cells of equal input; their parameters are named "forward.*" and
            "backward.*".
        merge: "concat" along the features or "sum".
        return_sequences: the sequence, or both directions' final h (each at the end of its reading).
        settings: further settings of both `Recurrent` layers.
    Source: Schuster & Paliwal 1997, "Bidirectional recurrent neural networks".
    """

    takes_lengths = True

    def __init__(
        self,
        forward_cell: TwoMapCell,
        backward_cell: TwoMapCell,
        *,
        merge: str = "concat",
        return_sequences: bool = True,
        **settings: Any,
    ) -> None:
        if merge not in ("concat", "sum"):
            raise ValueError(f"merge is {merge!r}, expected 'concat' or 'sum'")
        self.merge, self.return_sequences = merge, return_sequences
        self.parts = {
            "forward": Recurrent(forward_cell, return_sequences=return_sequences, **settings),
            "backward": Recurrent(backward_cell, return_sequences=return_sequences, reverse=True, **settings),
        }

    @property
    def axis(self) -> int:
        """The feature axis of the output."""
        return 2 if self.return_sequences else 1

    def forward(
        self, x: Array, *, train: bool = False, rng: Rng = None, lengths: Any = None
    ) -> tuple[Array, dict[str, Any]]:
        """y (T, N, F1 + F2, *S), or without the time axis; with merge="sum" F features."""
        ys, tape = [], {}
        for name, layer in self.parts.items():
            y, tape[name] = layer.forward(x, train=train, rng=rng, lengths=lengths)
            ys.append(y)
        xp = array_module(x)
        return (ys[0] + ys[1] if self.merge == "sum" else xp.concatenate(ys, axis=self.axis)), tape

    def backward(self, dy: Array, saved: dict[str, Any]) -> tuple[Array, Grads]:
        """dx is the sum of both directions'."""
        features = self.parts["forward"].cell.features
        if self.merge == "sum":
            halves = {"forward": dy, "backward": dy}
        else:
            lead = (slice(None),) * self.axis
            halves = {
                "forward": dy[(*lead, slice(features))],
                "backward": dy[(*lead, slice(features, None))],
            }
        dx, grads = None, Grads()
        for name, layer in self.parts.items():
            part, own = layer.backward(halves[name], saved[name])
            dx = part if dx is None else dx + part
            grads |= prefixed(name, own)
        return dx, grads

    def cost(self, shape: Shape) -> Cost:
        """Both directions; concatenation or sum makes one more copy of the output."""
        cost = Cost.of([(name, layer, layer.cost(shape)) for name, layer in self.parts.items()])
        out = list(cost.out)
        if self.merge == "concat":
            out[self.axis] = sum(layer.cell.features for layer in self.parts.values())
        return cost._replace(out=tuple(out))


class TimeDistributed(Container, Layer):
    """Apply one layer to every time step: time and batch become one axis, and two again.

    Args:
        layer: any layer on (N, C, *S).
    """

    def __init__(self, layer: Layer) -> None:
        self.parts = {"layer": layer}

    def forward(self, x: Array, *, train: bool = False, rng: Rng = None) -> tuple[Array, Any]:
        """y (T, N, ...) of x (T, N, C, *S)."""
        check_time(x.shape, "TimeDistributed")
        y, saved = self.parts["layer"].forward(x.reshape(-1, *x.shape[2:]), train=train, rng=rng)
        return y.reshape(*x.shape[:2], *y.shape[1:]), saved

    def backward(self, dy: Array, saved: Any) -> tuple[Array, Grads]:
        """dx (T, N, C, *S) of dy (T, N, ...)."""
        dx, grads = self.parts["layer"].backward(dy.reshape(-1, *dy.shape[2:]), saved)
        return dx.reshape(*dy.shape[:2], *dx.shape[1:]), prefixed("layer", grads)

    def update_buffers(self, saved: Any) -> None:
        """The inner layer's."""
        self.parts["layer"].update_buffers(saved)

    def cost(self, shape: Shape) -> Cost:
        """The inner layer's on T * N samples."""
        T, N, *rest = check_time(shape, "TimeDistributed")
        layer = self.parts["layer"]
        cost = Cost.of([("layer", layer, layer.cost((T * N, *rest)))])
        return cost._replace(out=(T, N, *cost.out[1:]))


def check_time(shape: Shape, kind: str) -> Shape:
    """The shape of a sequence; a 2-d one has lost its time axis, and the message says where."""
    if len(shape) < 3:
        raise ValueError(
            f"{kind} expects a sequence (T, N, C, *S), got shape {tuple(shape)}: there is no time axis. "
            f"Drop {kind} to act on the last step alone, or let the layer before it return the whole "
            "sequence with return_sequences=True"
        )
    return tuple(shape)
