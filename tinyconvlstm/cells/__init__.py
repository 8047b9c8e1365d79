"""Cells: one time step of anything recurrent."""

from .base import Cell, State, TwoMapCell
from .gru import GRUCell, ResetBeforeGRUCell
from .lstm import ConvLSTMCell, LSTMCell
from .maps import ConvMap
from .rnn import RNNCell, RNNState

__all__ = [
    "Cell",
    "ConvLSTMCell",
    "ConvMap",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "RNNState",
    "ResetBeforeGRUCell",
    "State",
    "TwoMapCell",
]
