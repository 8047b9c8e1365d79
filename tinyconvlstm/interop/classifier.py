"""The video classifier of many tutorials, `nn.LSTM` and `nn.Linear` on its last step, to and from ours.

    class VideoLSTM(nn.Module):                       # any class with such parts
        self.lstm = nn.LSTM(C, F, layers, batch_first=True)
        self.fc = nn.Linear(F, classes)
        forward:  out, _ = self.lstm(x);  return self.fc(out[:, -1])

Its logits are ours for clips of full length; for padded ones ours reads the last valid step, given
`lengths`. There x is (N, T, C), here (T, N, C): `time_first`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..backend import Array
from ..layers import Dense, Recurrent, Sequential
from ..models.classifier import VideoClassifier, sequence_of
from .pytorch import dense_from_pytorch, dense_to_pytorch, lstm_from_pytorch, lstm_to_pytorch


def classifier_from_pytorch(
    state: Mapping[str, Any], *, lstm: str = "lstm", head: str = "fc"
) -> VideoClassifier:
    """The classifier whose logits are those of the PyTorch model with this state_dict.

    Args:
        state: the state_dict: "lstm.weight_ih_l0", ..., "fc.weight", "fc.bias".
        lstm, head: the attributes' names in the PyTorch class.
    Returns:
        A `VideoClassifier` on (T, N, C), in the dtype of the state_dict.
    Raises:
        ValueError: a key is missing or unknown, a shape does not fit, or the LSTM is bidirectional (the
            backward half of its last step has read one frame only).
    """
    unknown = [key for key in state if not key.startswith((f"{lstm}.", f"{head}."))]
    if unknown:
        raise ValueError(f"key {unknown[0]!r} is unknown: expected keys that begin with {lstm}. or {head}.")
    *below, top = lstm_from_pytorch(state, prefix=f"{lstm}.").parts.values()
    if not isinstance(top, Recurrent):
        raise ValueError(
            "the LSTM is bidirectional, expected one that reads forwards: its last step is no state"
        )
    top.return_sequences = False  # a layer made just now, nobody else has it
    dense = dense_from_pytorch(state, prefix=f"{head}.")
    w, kind = dense.params["w"], top.cell.params["w_h"].dtype
    if w.shape[1] != top.cell.features or w.dtype != kind:
        raise ValueError(
            f"{head}.weight has shape {w.shape} and dtype {w.dtype}, "
            f"expected (classes, {top.cell.features}) and {kind}, as the LSTM's"
        )
    return VideoClassifier([*below, top], dense)


def classifier_to_pytorch(
    model: VideoClassifier, *, lstm: str = "lstm", head: str = "fc"
) -> dict[str, Array]:
    """The state_dict of the PyTorch model whose logits are those of this one.

    Args:
        model: stacked LSTMs and a `Dense` head, as `lstm_classifier` makes them.
        lstm, head: the attributes' names in the PyTorch class.
    Raises:
        ValueError: the model has other parts.
    """
    extra = {name.partition(".")[0] for name in model.parts} - {"recurrent", "head"}
    if extra:
        raise ValueError(f"model has {sorted(extra)}, expected recurrent layers and a head alone")
    if not isinstance(model.parts["head"], Dense):
        raise ValueError(f"head is a {type(model.parts['head']).__name__}, expected Dense")
    layers = [part for name, part in model.parts.items() if name.startswith("recurrent")]
    chain = Sequential(*layers[:-1], sequence_of(layers[-1]))
    return {
        **{f"{lstm}.{key}": a for key, a in lstm_to_pytorch(chain).items()},
        **{f"{head}.{key}": a for key, a in dense_to_pytorch(model.parts["head"]).items()},
    }
