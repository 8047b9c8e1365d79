"""Layers: blocks with parameters that remember nothing."""

from .base import Layer, Sequential
from .basic import Conv, ConvTranspose, Dense, Embedding
from .clocks import ClockStack
from .norm import BatchNorm, GroupNorm, LayerNorm
from .plain import Activation, Dropout, Flatten, GlobalPool, Pool
from .pyramid import DeeperBidirectional, DilatedPyramid
from .recurrent import Bidirectional, Recurrent, TimeDistributed
from .summary import Summary

__all__ = [
    "Activation",
    "BatchNorm",
    "Bidirectional",
    "ClockStack",
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
    "TimeDistributed",
]
