"""tinyconvlstm: convolutional LSTMs from scratch, gradient-checked, on NumPy and CuPy.

    ops        pure pairs, conv_forward above conv_backward
    cells      one time step: RNNCell, LSTMCell, ConvLSTMCell, GRUCell
    bptt       scan, and its full, truncated and checkpointed backward passes
    layers     blocks with parameters; models: the encoder-forecaster
    gradcheck  is a hand-written gradient right?
    train      one readable loop; optim and schedules beside it
    data, viz  moving digits; pictures
    interop    weights to and from PyTorch, Keras and ONNX; dead: weights that never learn

Importing this needs NumPy only and prints nothing.
"""

from .backend import BackendError, array_module, available, to_backend, to_numpy
from .bptt import (
    scan,
    scan_backward,
    scan_checkpointed,
    scan_checkpointed_backward,
    scan_truncated_backward,
)
from .cells import ConvLSTMCell, GRUCell, LSTMCell, ResetBeforeGRUCell, RNNCell
from .data.moving_digits import MovingDigits
from .models import Forecaster
from .ops import Window
from .parallel import get_threads, set_threads

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "ConvLSTMCell",
    "Forecaster",
    "GRUCell",
    "LSTMCell",
    "MovingDigits",
    "RNNCell",
    "ResetBeforeGRUCell",
    "Window",
    "array_module",
    "available",
    "get_threads",
    "scan",
    "scan_backward",
    "scan_checkpointed",
    "scan_checkpointed_backward",
    "scan_truncated_backward",
    "set_threads",
    "to_backend",
    "to_numpy",
]
