"""Layers: blocks with parameters that remember nothing."""

from .attention import TemporalAttention
from .base import Layer, Sequential
from .basic import Conv, ConvTranspose, Dense, Embedding
from .norm import BatchNorm, GroupNorm, LayerNorm
from .plain import Activation, Dropout, Flatten, GlobalPool, Pool
from .pyramid import DeeperBidirectional, DilatedPyramid
from .recurrent import Bidirectional, Recurrent, TimeDistributed
from .summary import Summary

__all__ = [
    "Activation",
    "BatchNorm",
    "Bidirectional",
    "Conv",
    "ConvTranspose",
    "DeeperBidirectional",
    "Dense",
    "DilatedPyramid",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalPool",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "Pool",
    "Recurrent",
    "Sequential",
    "Summary",
    "TemporalAttention",
    "TimeDistributed",
]
