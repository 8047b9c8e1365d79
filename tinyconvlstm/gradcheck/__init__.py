"""Gradient checks for pairs, cells, layers, models and losses."""

from .case import Case, pair_case
from .cells import cell_case
from .engine import gradcheck
from .report import Report

__all__ = ["Case", "Report", "cell_case", "gradcheck", "pair_case"]
