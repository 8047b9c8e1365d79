"""tinyconvlstm: convolutional LSTMs from scratch, gradient-checked, on NumPy and CuPy."""

__version__ = "0.1.0"
