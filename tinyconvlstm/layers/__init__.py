"""Layers: blocks with parameters that remember nothing."""

from .attention import TemporalAttention
from .base import Layer, Sequential
from .basic import Conv, ConvTranspose, Dense, Embedding
from .clips import FactorisedConv, ToFrames, ToVolume, inflated
from .clocks import ClockStack
from .fusion import FUSIONS, ConcatFusion, Fusion, GatedFusion, ScoreFusion, SumFusion
from .norm import BatchNorm, GroupNorm, LayerNorm
from .plain import Activation, Dropout, Flatten, GlobalPool, Pool
from .pyramid import DeeperBidirectional, DilatedPyramid
from .recurrent import Bidirectional, Recurrent, TimeDistributed
from .summary import Summary

__all__ = [
    "FUSIONS",
    "Activation",
    "BatchNorm",
    "Bidirectional",
    "ClockStack",
    "ConcatFusion",
    "Conv",
    "ConvTranspose",
    "DeeperBidirectional",
    "Dense",
    "DilatedPyramid",
    "Dropout",
    "Embedding",
    "FactorisedConv",
    "Flatten",
    "Fusion",
    "GatedFusion",
    "GlobalPool",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "Pool",
    "Recurrent",
    "ScoreFusion",
    "Sequential",
    "SumFusion",
    "Summary",
    "TemporalAttention",
    "TimeDistributed",
    "ToFrames",
    "ToVolume",
    "inflated",
]
