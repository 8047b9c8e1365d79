"""Models: layers put together for a task, and the baselines they are measured against."""

from .baselines import constant_velocity, copy_last_frame
from .forecaster import Forecaster
from .presets import SHI_2015, shi_2015

__all__ = ["SHI_2015", "Forecaster", "constant_velocity", "copy_last_frame", "shi_2015"]
