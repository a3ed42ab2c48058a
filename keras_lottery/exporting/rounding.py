"""Weights in fewer bits than they were trained in: smaller, and not exact.

Only arrays of two and more dimensions are rounded: biases and normalisation
are few, and every unit has one.
"""

from typing import NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int8": np.dtype(np.int8),
}
# What `values=` may be: the first leaves weights as they are.
VALUES = ("float32", *DTYPES)


class Rounded(NamedTuple):
    """An array as it is stored: `stored * scale`, or `stored` without one."""

    stored: np.ndarray
    scale: float | None


def check(values):
    """Returns `values`.

    Raises:
        ValueError: It is not one of `VALUES`.
    """
    if values not in VALUES:
        raise ValueError(
            f"`values` is one of {', '.join(VALUES)}; got {values!r}."
        )
    return values


def rounded(array, values, name="the array"):
    """Rounds an array to the nearest value that `values` has.

    `"int8"` is symmetric and has one scale per array: q = round(w / s) with
    s = max|w| / 127. What is nearest to zero becomes zero.

    Args:
        array: float32, or what is wider than `values`.
        values: `"float16"`, `"bfloat16"` or `"int8"`.
        name: The array's, for the error.

    Returns:
        A `Rounded`.

    Raises:
        ValueError: A value is beyond what `values` holds.

    Example:

    >>> rounded(np.array([[-2.0, 0.5]], np.float32), "int8").stored
    array([[-127,   32]], dtype=int8)
    """
    dtype = DTYPES[values]
    if values == "int8":
        largest = np.float32(np.abs(array).max(initial=0))
        # One rounding here and one where it is decoded, both in float32.
        scale = largest / np.float32(127) or np.float32(1)
        exact = np.rint(array.astype(np.float32) / scale)
        return Rounded(np.clip(exact, -127, 127).astype(dtype), float(scale))
    with np.errstate(over="ignore"):
        stored = array.astype(dtype)
    if not np.isfinite(stored.astype(np.float32)).all():
        raise ValueError(
            f"{name} has a weight of {np.abs(array).max():g}, and {values} "
            f"ends at {float(ml_dtypes.finfo(dtype).max):g}. Export with "
            "values='float32' or 'bfloat16'."
        )
    return Rounded(stored, None)
