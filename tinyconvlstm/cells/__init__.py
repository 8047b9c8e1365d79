"""Cells: one time step of anything recurrent."""

from .attention import InputAttentionLSTMCell, attention_maps
from .attention_gates import InputGateAttentionLSTMCell, OutputGateAttentionLSTMCell
from .base import Cell, State, TwoMapCell
from .candidate import CandidateLSTMCell
from .clock_stack import ClockStackCell
from .clockwork import ClockworkLSTMCell, ClockworkRNNCell
from .context import ContextGateLSTMCell
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
from .self_attention import SAConvLSTMCell, SAState, attention_from

__all__ = [
    "CIFGCell",
    "CandidateLSTMCell",
    "Cell",
    "ClockStackCell",
    "ClockworkLSTMCell",
    "ClockworkRNNCell",
    "ContextGateLSTMCell",
    "ConvLSTMCell",
    "ConvMap",
    "ConvPeepholeLSTMCell",
    "DeformableLSTMCell",
    "FGRCell",
    "GRUCell",
    "InputAttentionLSTMCell",
    "InputGateAttentionLSTMCell",
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
    "OutputGateAttentionLSTMCell",
    "RNNCell",
    "RNNState",
    "ResetBeforeGRUCell",
    "SAConvLSTMCell",
    "SAState",
    "SeparableLSTMCell",
    "SeparableMap",
    "State",
    "TwoMapCell",
    "VanillaLSTMCell",
    "attention_from",
    "attention_maps",
]
