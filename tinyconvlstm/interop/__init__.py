"""Weights to and from PyTorch, Keras and ONNX; needs none of them, for everything is dictionaries of arrays."""

from .classifier import classifier_from_pytorch, classifier_to_pytorch
from .concat import convlstm_from_pytorch, convlstm_to_pytorch
from .keras import (
    conv_from_keras,
    conv_to_keras,
    convlstm_from_keras,
    convlstm_to_keras,
    gru_from_keras,
    gru_to_keras,
    lstm_from_keras,
    lstm_to_keras,
)
from .layout import batch_first, reorder, time_first
from .onnx import (
    conv_from_onnx,
    conv_to_onnx,
    gru_from_onnx,
    gru_to_onnx,
    lstm_from_onnx,
    lstm_to_onnx,
)
from .openstl import openstl_from_pytorch, openstl_to_pytorch
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
    "classifier_from_pytorch",
    "classifier_to_pytorch",
    "conv_from_keras",
    "conv_from_onnx",
    "conv_from_pytorch",
    "conv_to_keras",
    "conv_to_onnx",
    "conv_to_pytorch",
    "convlstm_from_keras",
    "convlstm_from_pytorch",
    "convlstm_to_keras",
    "convlstm_to_pytorch",
    "dense_from_pytorch",
    "dense_to_pytorch",
    "gru_from_keras",
    "gru_from_onnx",
    "gru_from_pytorch",
    "gru_to_keras",
    "gru_to_onnx",
    "gru_to_pytorch",
    "lstm_from_keras",
    "lstm_from_onnx",
    "lstm_from_pytorch",
    "lstm_to_keras",
    "lstm_to_onnx",
    "lstm_to_pytorch",
    "openstl_from_pytorch",
    "openstl_to_pytorch",
    "reorder",
    "time_first",
]
