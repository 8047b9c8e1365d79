"""Cells: one time step of anything recurrent."""

from .base import Cell, State, TwoMapCell
from .candidate import CandidateLSTMCell
from .clock_stack import ClockStackCell
from .clockwork import ClockworkLSTMCell, ClockworkRNNCell
from .deformable import DeformableLSTMCell
from .full_gates import FGRCell
from .gru import GRUCell, ResetBeforeGRUCell
from .layer_norm import LayerNormLSTMCell
from .light import LightLSTMCell, LowRankLSTMCell, SeparableLSTMCell
from .lstm import ConvLSTMCell, LSTMCell
from .maps import ConvMap
from .maps_factored import LowRankMap, SeparableMap
from .odyssey import (
    CIFGCell,
    NFGCell,
    NIAFCell,
    NIGCell,
    NOAFCell,
    NOGCell,
    NPCell,
    VanillaLSTMCell,
)
from .peephole import ConvPeepholeLSTMCell
from .rnn import RNNCell, RNNState

__all__ = [
    "CIFGCell",
    "CandidateLSTMCell",
    "Cell",
    "ClockStackCell",
    "ClockworkLSTMCell",
    "ClockworkRNNCell",
    "ConvLSTMCell",
    "ConvMap",
    "ConvPeepholeLSTMCell",
    "DeformableLSTMCell",
    "FGRCell",
    "GRUCell",
    "LSTMCell",
    "LayerNormLSTMCell",
    "LightLSTMCell",
    "LowRankLSTMCell",
    "LowRankMap",
    "NFGCell",
    "NIAFCell",
    "NIGCell",
    "NOAFCell",
    "NOGCell",
    "NPCell",
    "RNNCell",
    "RNNState",
    "ResetBeforeGRUCell",
    "SeparableLSTMCell",
    "SeparableMap",
    "State",
    "TwoMapCell",
    "VanillaLSTMCell",
]
