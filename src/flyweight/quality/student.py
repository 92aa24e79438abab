"""Quantiles of Student's t distribution, for intervals from few groups."""

from functools import lru_cache
from math import atan, pi, sqrt

import numpy as np


@lru_cache(maxsize=1024)
def student_quantile(confidence: float, freedom: float) -> float:
    """Return t with `P(|T| <= t) = confidence` for any (fractional) degrees of freedom of at least 1.

    With `T = sqrt(freedom) tan(angle)` the density of the angle is proportional to `cos(angle)^(freedom - 1)`, which is
    smooth and bounded: it is summed on a grid and inverted. Relative error under 1e-4 up to a confidence of 0.999.

    Example:
        >>> round(student_quantile(0.95, 9.0), 3)
        2.262
    """
    widest = pi / 2 if freedom < 50 else atan(12 / sqrt(freedom))  # beyond 12 standard errors lies nothing
    angle = np.linspace(0.0, widest, 16_385)
    density = np.cos(angle) ** (max(freedom, 1.0) - 1)
    share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return sqrt(max(freedom, 1.0)) * float(np.tan(np.interp(confidence, share / share[-1], angle)))
