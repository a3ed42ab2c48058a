"""How time grows with size: t(n) = fixed + rate * n ** exponent."""

from typing import NamedTuple

import numpy as np

EXPONENTS = np.arange(0.02, 3.0, 0.001)


class Growth(NamedTuple):
    """What was fitted.

    Fields:
        exponent: Of the size.
        rate: Seconds at size 1, without what is fixed.
        fixed: Seconds that no size changes, not below 0.
    """

    exponent: float
    rate: float
    fixed: float

    def at(self, size):
        """Returns the fitted seconds of a size."""
        return self.fixed + self.rate * size**self.exponent


def fit(sizes, seconds):
    """Returns the `Growth` that is nearest by relative squared error.

    For every exponent of a grid the other two come from linear least squares;
    what is fixed is left out where it would be negative. Without it, times of
    starting a call would pass for slow growth and hide what is worse than
    linear.

    Args:
        sizes: At least 4 positive numbers, all different: one more than there
            are unknowns.
        seconds: The time of each.

    Raises:
        ValueError: Too few sizes.

    Example:

    >>> growth = fit([1, 2, 4, 8], [3.0, 4.0, 6.0, 10.0])  # 2 + n
    >>> [round(value, 2) for value in growth]
    [1.0, 1.0, 2.0]
    """
    if len(set(sizes)) < 4 or len(sizes) != len(seconds):
        raise ValueError(
            f"Expected times of at least 4 sizes, got {len(seconds)} of "
            f"{len(set(sizes))} different ones."
        )
    largest = max(sizes)
    scaled = np.asarray(sizes, np.float64) / largest
    seconds = np.asarray(seconds, np.float64)
    tried = [_of_exponent(each, scaled, seconds) for each in EXPONENTS]
    _, exponent, rate, fixed = min(tried)
    return Growth(exponent, rate / largest**exponent, fixed)


def _of_exponent(exponent, sizes, seconds):
    """Returns (error, exponent, rate, fixed) of the best fit."""
    powers = sizes**exponent
    columns = np.stack([powers, np.ones_like(powers)], 1) / seconds[:, None]
    rate, fixed = np.linalg.lstsq(columns, np.ones_like(seconds))[0]
    if fixed < 0 or rate < 0:
        column = columns[:, 0]
        rate, fixed = column.sum() / (column @ column), 0.0
    error = np.square(columns @ (rate, fixed) - 1).sum()
    return float(error), float(exponent), float(rate), float(fixed)
