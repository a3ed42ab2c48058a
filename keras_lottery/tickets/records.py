"""What a ticket has on record, as plain values."""

import numpy as np


def endless(recorded):
    """Returns a serialized schedule without how many levels it has."""
    return [
        (
            pattern,
            each["class_name"],
            {
                name: value
                for name, value in each["config"].items()
                if name not in ("levels", "steps_per_level")
            },
        )
        for pattern, each in recorded.items()
    ]


def plain(value):
    """Returns a number of any library as one of Python, others as they are."""
    if isinstance(value, (str, bytes)) or np.ndim(value):
        return value
    found = np.asarray(value)
    return found.item() if found.dtype.kind in "biuf" else value
