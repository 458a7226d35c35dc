"""Numbers that stand for many: the interval that holds 90 %, a robust scale, and what is around a point."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

INTERVAL = (0.05, 0.95)
"""Quantiles between which 90 % lie."""
ROBUST = 1.4826
"""The standard deviation of a normal whose median absolute deviation is 1."""


def around(y: Floats, count: int) -> Floats:
    """Of each point the `count` (odd) points about it, itself among them: (points, count), NaN beyond the ends."""
    return np.lib.stride_tricks.sliding_window_view(np.pad(y, count // 2, constant_values=np.nan), count)
