"""Tasks: small, real, runnable examples, each with a measured result beside named baselines.

`tinyconvlstm task --list` explains them, `tinyconvlstm task NAME` runs one, and every module here has

    run(*, seed=0, quick=False, progress=True) -> Outcome

The data is made by the package, so labels are exact; training, validation and test clips never share a
digit image or a random number.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

TASKS: dict[str, str] = {  # name -> what it shows; the module has the name with "_" for "-"
    "classify": "which way does a digit move? ConvLSTM, CNN + LSTM, 3-d convolutions, beside single frames",
    "label": "name what happens in every frame, and find events: onset and end by non-maximum suppression",
    "forecast": "the next frames of moving digits, fed back in closed loop, beside copying and constant velocity",
    "anomaly": "error of a next-frame predictor as a score for anomalies in speed and in looks",
    "summarise": "key frames where the state changes most: every scene cut covered",
    "caption": "a sentence about a clip: LSTM decoder with attention over frames, greedy and beam search",
    "track": "follow a shape through an occlusion with heat maps, beside a network that sees one frame",
    "trajectory": "where will a bouncing point be? LSTM beside constant velocity",
    "sequence-models": "whose trajectory is it? LSTM beside nearest neighbours under DTW and a hidden Markov model",
    "retrieve": "find clips of the same motion by the cosine of ConvLSTM states",
    "recommend": "the next item of a viewing history: embedding and LSTM beside the most frequent successor",
    "interpolate": "fill in a dropped frame with a bidirectional ConvLSTM, beside a linear blend",
    "count": "how many objects move in a clip, by a density map",
    "distil": "a separable student learns from a ConvLSTM teacher at a quarter of its multiply-accumulates",
    "online": "recognise frame by frame, with the latency of a step in percentiles",
    "explain": "saliency, occlusion and gate maps of a classifier: does it look where the object is?",
    "three-stream": "label = shape x motion x tone: pictures, flow and sound, of which no two suffice",
    "generalise": "trained on two digits, tested on three",
    "adding": "the adding problem: two marked numbers in a long row (Hochreiter and Schmidhuber 1997)",
    "temporal-order": "in which order did three symbols come? (Hochreiter and Schmidhuber 1997)",
    "reber": "the embedded Reber grammar (Hochreiter and Schmidhuber 1997)",
    "copy": "repeat a string after a delay (Arjovsky et al. 2016)",
    "orderings": "published orderings on small moving digits: ConvLSTM, FC-LSTM, state kernels 5x5 and 1x1",
    "gates": "what convolutions and attention in the gates add (Zhang et al. 2018)",
}


def task(name: str) -> Any:
    """The module of a task.

    Args:
        name: a key of TASKS.
    Raises:
        ValueError: the name is unknown; the message lists close ones.
    """
    if name not in TASKS:
        import difflib

        close = difflib.get_close_matches(name, TASKS, n=3)
        known = f"close names: {', '.join(close)}" if close else f"expected one of {', '.join(TASKS)}"
        raise ValueError(f"no task is named {name!r}; {known}")
    return import_module(f".{name.replace('-', '_')}", __name__)


def listing() -> str:
    """All tasks, a line each."""
    wide = max(map(len, TASKS))
    return "\n".join(f"{name.ljust(wide)}  {text}" for name, text in TASKS.items())
