"""Gradient checks for pairs, cells, layers, models and losses."""

from .case import Case, pair_case
from .cells import cell_case
from .check import check
from .engine import gradcheck
from .layers import layer_case, loss_case
from .report import Report
from .zoo import zoo

__all__ = [
    "Case",
    "Report",
    "cell_case",
    "check",
    "gradcheck",
    "layer_case",
    "loss_case",
    "pair_case",
    "zoo",
]
