"""Models: layers put together for a task, and the baselines they are measured against."""

from .baselines import constant_velocity, copy_last_frame
from .captioner import CaptionDecoder, Captioner
from .classic import GaussianHMM, dtw
from .classifier import FrameLabeller, VideoClassifier, lstm_classifier, lstm_labeller
from .decoding import beam_search, greedy
from .forecaster import Forecaster
from .networks import cnn_lstm, conv3d_network, convlstm_classifier, factorised_network, frame_network
from .openstl import OpenSTLForecaster
from .presets import OPENSTL_2023, SHI_2015, openstl_2023, shi_2015
from .three_stream import Stream, ThreeStream, three_stream

__all__ = [
    "OPENSTL_2023",
    "SHI_2015",
    "CaptionDecoder",
    "Captioner",
    "Forecaster",
    "FrameLabeller",
    "GaussianHMM",
    "OpenSTLForecaster",
    "Stream",
    "ThreeStream",
    "VideoClassifier",
    "beam_search",
    "cnn_lstm",
    "constant_velocity",
    "conv3d_network",
    "convlstm_classifier",
    "copy_last_frame",
    "dtw",
    "factorised_network",
    "frame_network",
    "greedy",
    "lstm_classifier",
    "lstm_labeller",
    "openstl_2023",
    "shi_2015",
    "three_stream",
]
