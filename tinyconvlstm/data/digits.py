"""The packaged handwritten digits: 1,797 real images of 8x8 pixels (origin and licence: DIGITS.md)."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np

from ..backend import Array

FULL_INK = 16  # the largest pixel value: 16 of 16 scanned pixels are ink


@lru_cache(maxsize=1)
def load_digits() -> tuple[Array, Array]:
    """The packaged digits, read once and then shared read-only.

    Returns:
        images (1797, 8, 8) uint8, 0 to 16: the inked pixels of a 4x4 block of the scan;
        labels (1797,) uint8, 0 to 9. Both are read-only.
    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning
        Repository, doi 10.24432/C50P49, CC BY 4.0; the part of 1,797 digits by 13 writers.
    """
    with (files(__package__) / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    images.flags.writeable = labels.flags.writeable = False
    return images, labels
