"""Models: layers put together for a task, and the baselines they are measured against."""

from .baselines import constant_velocity, copy_last_frame
from .forecaster import Forecaster
from .openstl import OpenSTLForecaster
from .presets import OPENSTL_2023, SHI_2015, openstl_2023, shi_2015

__all__ = [
    "OPENSTL_2023",
    "SHI_2015",
    "Forecaster",
    "OpenSTLForecaster",
    "constant_velocity",
    "copy_last_frame",
    "openstl_2023",
    "shi_2015",
]
