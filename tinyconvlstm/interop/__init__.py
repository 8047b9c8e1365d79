"""Weights to and from PyTorch, Keras and ONNX; needs none of them, for everything is dictionaries of arrays."""

from .layout import batch_first, reorder, time_first
from .pytorch import (
    conv_from_pytorch,
    conv_to_pytorch,
    dense_from_pytorch,
    dense_to_pytorch,
    gru_from_pytorch,
    gru_to_pytorch,
    lstm_from_pytorch,
    lstm_to_pytorch,
)

__all__ = [
    "batch_first",
    "conv_from_pytorch",
    "conv_to_pytorch",
    "dense_from_pytorch",
    "dense_to_pytorch",
    "gru_from_pytorch",
    "gru_to_pytorch",
    "lstm_from_pytorch",
    "lstm_to_pytorch",
    "reorder",
    "time_first",
]
