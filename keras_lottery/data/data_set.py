"""What a data set is: three parts of arrays, checked before they are used."""

from typing import NamedTuple

import numpy as np

from keras_lottery import checks

PARTS = ("train", "validation", "test")


class DataSet(NamedTuple):
    """Three parts, each a pair (x, y) of arrays with equally many rows.

    Classes are integers of shape (n,); any other `y` is a target as it is.
    """

    train: tuple
    validation: tuple
    test: tuple


def check(data):
    """Returns what a user's own function returned as a `DataSet`.

    Args:
        data: A `DataSet`, or a tuple or list of three pairs (x, y). Nothing is
            said about classes: `y` may be numbers of any shape.

    Returns:
        A `DataSet` of numpy arrays.

    Raises:
        ValueError: It is something else, or its parts do not fit together.

    Example:

    >>> data = check([([[0.0]], [1]), ([[0.5]], [0]), ([[1.0]], [1])])
    >>> data.train[0].shape, data.test[1].shape
    ((1, 1), (1,))
    """
    if not isinstance(data, (tuple, list)) or len(data) != len(PARTS):
        raise ValueError(
            "A data set is three pairs (x, y): train, validation and test; "
            f"got {_described(data)}. Return "
            "DataSet((x, y), (x_validation, y_validation), (x_test, y_test)): "
            "where there are fewer parts, hold out rows of the training part."
        )
    parts = [_pair(name, part) for name, part in zip(PARTS, data)]
    for name, part in zip(PARTS[1:], parts[1:]):
        _check_alike(name, part, parts[0])
    return DataSet(*parts)


def classes(data):
    """Returns the number of classes, or None where `y` is no class.

    Classes are whole numbers from 0: labels are of shape (n,) and integer in
    all parts. Their number is the largest label plus one.

    Example:

    >>> part = (np.zeros((3, 2)), np.array([0, 4, 1]))
    >>> classes(DataSet(part, part, part))
    5
    """
    labels = [y for _, y in data]
    if any(y.ndim != 1 or y.dtype.kind not in "iu" for y in labels):
        return None
    if min(int(y.min()) for y in labels) < 0:
        return None
    return 1 + max(int(y.max()) for y in labels)


def channel_statistics(data):
    """Returns the means and deviations of the channels of the training part.

    Channels are the last axis. Sums are float64, taken by blocks of rows.

    Returns:
        (means, stds), each a float64 array with one number per channel.

    Example:

    >>> part = (np.array([[0.0, 1.0], [1.0, 1.0]]), np.zeros(2))
    >>> means, stds = channel_statistics(DataSet(part, part, part))
    >>> means.tolist(), stds.tolist()
    ([0.5, 1.0], [0.5, 0.0])
    """
    x = data.train[0]
    channels = x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1)
    means = channels.mean(axis=0, dtype=np.float64)
    # All at once would need a float64 copy of the whole set.
    blocks = range(0, len(channels), 2**20)
    squares = sum(
        np.square(channels[at : at + 2**20] - means).sum(axis=0)
        for at in blocks
    )
    return means, np.sqrt(squares / len(channels))


def first(data, rows):
    """Returns at most `rows` rows of each part, the first; None for all."""
    if rows is None:
        return data
    rows = checks.whole("rows", rows, 1)
    return DataSet(*((x[:rows], y[:rows]) for x, y in data))


def hold_out(rows, *sizes):
    """Splits row numbers: those that stay, and parts drawn with seed 0.

    Args:
        rows: Number of rows.
        *sizes: How many to hold out, for each part.

    Returns:
        List of sorted arrays of row numbers: the rest, then the parts.

    Raises:
        ValueError: A part would be larger than a fifth of the rows.

    Example:

    >>> [each.tolist() for each in hold_out(10, 2)]
    [[0, 1, 2, 3, 5, 7, 8, 9], [4, 6]]
    """
    for size in sizes:
        if 5 * checks.whole("validation", size, 1) > rows:
            raise ValueError(
                f"validation={size} is more than a fifth of the {rows:,} "
                f"training rows: pass at most validation={rows // 5}."
            )
    order = np.random.default_rng(0).permutation(rows)
    *held, rest = np.split(order, np.cumsum(sizes))
    return [np.sort(part) for part in (rest, *held)]


def _pair(name, part):
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        raise ValueError(
            f"The {name} part must be a pair (x, y) of arrays; got "
            f"{_described(part)}."
        )
    x = _array(f"x of the {name} part", part[0])
    y = _array(f"y of the {name} part", part[1])
    if len(x) != len(y):
        raise ValueError(
            f"x and y of the {name} part differ in rows: {len(x)} and {len(y)}."
            " Each row of x needs its row of y."
        )
    if not len(x):
        raise ValueError(
            f"The {name} part is empty. All three parts need rows: hold out "
            "some of the training part."
        )
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        wrong = np.count_nonzero(~np.isfinite(x))
        raise ValueError(
            f"x of the {name} part holds {wrong} values that are not finite "
            "(NaN or infinity). Replace them, or leave their rows out."
        )
    return x, y


def _array(what, values):
    expected = "Expected an array of numbers with a row per example."
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{what} is no array: {error} {expected}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{what} has dtype {array.dtype}. {expected} Encode text and "
            "categories as numbers, and pad rows of differing length."
        )
    if not array.ndim:
        raise ValueError(f"{what} is the single number {array}. {expected}")
    return array


def _check_alike(name, part, train):
    for letter, array, model in zip("xy", part, train):
        if array.shape[1:] != model.shape[1:]:
            raise ValueError(
                f"Rows of {letter} have shape {model.shape[1:]} in the train "
                f"part and {array.shape[1:]} in the {name} part. Prepare all "
                "parts in the same way."
            )
        if (array.dtype.kind == "f") != (model.dtype.kind == "f"):
            raise ValueError(
                f"{letter} is {model.dtype} in the train part and "
                f"{array.dtype} in the {name} part. Scale and convert all "
                "parts in the same way."
            )


def _described(value):
    name = type(value).__name__
    return f"a {name} of {len(value)}" if hasattr(value, "__len__") else name
