"""Inside a recurrent cell: its gates and state over time, and how far a gradient reaches."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, to_numpy
from ..batch import Parts
from ..loops import Tape

ROWS = {
    "i": "input gate i",
    "f": "forget gate f",
    "g": "candidate g",
    "o": "output gate o",
    "c": "cell c",
    "h": "hidden h",
}
GATE_MAP, STATE_MAP = "viridis", "RdBu_r"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe & Ito's


def gate_arrays(tape: Tape | Parts, clip: int = 0) -> dict[str, Array]:
    """The gates, cell and hidden state of an LSTM's tape for one clip, each (T, F, *S), on NumPy."""
    steps = tape.steps
    if not steps or not hasattr(getattr(steps[0], "gates", None), "tanh_c"):
        raise ValueError(
            "tape holds no LSTM steps, expected what scan returned for an LSTMCell or ConvLSTMCell"
        )
    found = {
        n: np.stack([to_numpy(getattr(s.gates, n)[clip]) for s in steps]) for n in ("i", "f", "g", "o", "c")
    }
    tanh_c = np.stack([to_numpy(s.gates.tanh_c[clip]) for s in steps])
    return {**found, "h": found["o"] * tanh_c}


def gates_over_time(tape: Tape | Parts, clip: int = 0, feature: int | None = None) -> Any:
    """Draw gates, cell and hidden state step by step. Needs matplotlib.

    Args:
        tape: of a scan over an LSTM cell with 0 or 2 spatial axes.
        clip: which clip of the batch.
        feature: which feature map; default: the one whose hidden state varies most.
    Returns:
        The matplotlib figure: maps for 2 spatial axes, curves for none.
    """
    from matplotlib.figure import Figure

    arrays = gate_arrays(tape, clip)
    h = arrays["h"]
    if feature is None:
        feature = int(h.reshape(len(h), h.shape[1], -1).std(axis=(0, 2)).argmax())
    if not 0 <= feature < h.shape[1]:
        raise ValueError(f"feature is {feature}, expected 0..{h.shape[1] - 1}")
    if h.ndim == 2:
        return gate_curves(arrays, feature)
    if h.ndim != 4:
        raise ValueError(f"the cell has {h.ndim - 2} spatial axes, expected 0 or 2 to draw")
    T = len(h)
    figure = Figure(figsize=(1.9 + 0.82 * T, 0.4 + 0.92 * len(ROWS)), facecolor="white")
    axes = figure.subplots(len(ROWS), T, squeeze=False)
    width = figure.get_figwidth()
    left, right = 1.15 / width, 1 - 0.75 / width
    figure.subplots_adjust(left=left, right=right, top=0.93, bottom=0.01, wspace=0.08, hspace=0.12)
    for row, (name, label) in zip(axes, ROWS.items(), strict=True):
        maps = arrays[name][:, feature]
        bound = 1.0 if name in "ifog" else float(np.abs(maps).max()) or 1.0
        low = 0.0 if name in "ifo" else -bound
        colours = GATE_MAP if name in "ifo" else STATE_MAP
        for t, ax in enumerate(row):
            image = ax.imshow(maps[t], cmap=colours, vmin=low, vmax=bound, interpolation="nearest")
            ax.set_axis_off()
            if name == "i":
                ax.set_title(f"t = {t + 1}", fontsize=9)
        row[0].text(-0.12, 0.5, label, transform=row[0].transAxes, ha="right", va="center", fontsize=10)
        box = row[-1].get_position()
        bar = figure.add_axes((right + 0.12 / width, box.y0, 0.1 / width, box.height))
        figure.colorbar(image, cax=bar).ax.tick_params(labelsize=7, length=2)
    return figure


def gate_curves(arrays: dict[str, Array], feature: int) -> Any:
    """The curves of one feature of a dense LSTM."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5.2), facecolor="white", layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    steps = np.arange(1, len(arrays["h"]) + 1)
    for k, name in enumerate(ROWS):
        ax = top if name in "ifo" else bottom
        ax.plot(steps, arrays[name][:, feature], "o-", ms=4, color=COLOURS[k], label=ROWS[name])
    top.set_ylim(-0.03, 1.03)
    top.set_ylabel("open (1) or shut (0)")
    bottom.axhline(0, color="0.7", lw=0.8)
    bottom.set_xlabel("step t")
    bottom.set_ylabel("value")
    for ax in (top, bottom):
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def gradient_norms(norms: dict[str, Array], axes: Any = None) -> Any:
    """Draw the size of gradients at every step on a logarithmic axis. Needs matplotlib.

    Args:
        norms: by label, each (T,), such as |dL/dh_t| of an LSTM and of an RNN.
        axes: matplotlib axes; default: a new figure.
    Returns:
        The matplotlib figure.
    """
    if axes is None:
        from matplotlib.figure import Figure

        axes = Figure(figsize=(7, 4), facecolor="white", layout="constrained").subplots()
    for colour, (label, values) in zip(COLOURS * 3, norms.items(), strict=False):
        values = np.asarray(to_numpy(values), dtype=float)
        values = np.where(values > 0, values, np.nan)  # a logarithmic axis has no place for 0
        axes.semilogy(np.arange(1, len(values) + 1), values, "o-", ms=3.5, color=colour, label=label)
    axes.set_xlabel("step t (the loss stands at the right end)")
    axes.set_ylabel("norm of the gradient")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return axes.figure
