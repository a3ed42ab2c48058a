"""Checks of numbers that users give, with errors that say how to mend them."""

import math

import numpy as np


def whole(name, value, least):
    """Returns `value` as an int of at least `least`.

    Raises:
        ValueError: It is something else.

    Example:

    >>> whole("levels", 3, 1)
    3
    """
    number = isinstance(value, (int, np.integer))
    if not number or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be an int >= {least}, got {value!r}.")
    return int(value)


def fraction(name, value):
    """Returns `value`, a fraction to remove, as a float in [0, 1).

    Raises:
        ValueError: It is something else.

    Example:

    >>> fraction("sparsity", 0.9)
    0.9
    """
    number = isinstance(value, (int, float, np.floating, np.integer))
    usable = number and not isinstance(value, bool) and not math.isnan(value)
    if not usable or not 0 <= value < 1:
        raise ValueError(
            f"`{name}` is the fraction to remove and must lie in [0, 1); "
            f"got {value!r}."
        )
    return float(value)
