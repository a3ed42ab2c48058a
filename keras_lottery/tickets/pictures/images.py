"""Masks and weights as arrays that can be drawn."""

import math

import numpy as np

LARGEST = 240  # rows and columns of an image; what has more is averaged
_BINS = 57


def of_mask(kept, inputs, outputs):
    """Returns a kernel as an image: inputs down, outputs across.

    Kernels of convolutions are blocks of filters, one for each input and
    output.

    Args:
        kept: Bool array.
        inputs: Its axes that are inputs; `outputs` the same.
        outputs: An axis that is in both counts as one of inputs.

    Returns:
        (float array in [0, 1], rows of a block, columns of a block). Where it
        would be larger than `LARGEST`, each pixel is the mean of several
        weights, and blocks are (1, 1).

    Example:

    >>> kernel = np.arange(16).reshape(2, 2, 2, 2) < 2
    >>> of_mask(kernel, (2,), (3,))[0].astype(int).tolist()
    [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    """
    rows, columns, down, across = _arranged(kept.shape, inputs, outputs)
    turned = kept.transpose(*rows, *columns)
    image = turned.reshape(size_of(kept.shape, inputs, outputs))
    if max(image.shape, default=0) > LARGEST:
        return smaller(image), 1, 1
    block = [math.prod(kept.shape[a] for a in axes) for axes in (down, across)]
    return image.astype(np.float32), *block


def size_of(shape, inputs, outputs):
    """Returns (rows, columns) of a kernel's image before it is made smaller.

    Args:
        shape: Of the kernel.
        inputs: As in `of_mask`.
        outputs: As in `of_mask`.

    Example:

    >>> size_of((3, 3, 2, 4), (2,), (3,))
    (6, 12)
    """
    rows, columns, *_ = _arranged(shape, inputs, outputs)
    return tuple(
        math.prod(shape[axis] for axis in axes) for axes in (rows, columns)
    )


def _arranged(shape, inputs, outputs):
    """Returns the axes of rows and of columns, and those within a block."""
    outputs = tuple(axis for axis in outputs if axis not in inputs)
    rest = [a for a in range(len(shape)) if a not in (*inputs, *outputs)]
    down, across = rest[: (len(rest) + 1) // 2], rest[(len(rest) + 1) // 2 :]
    return [*inputs, *down], [*outputs, *across], down, across


def smaller(image, largest=LARGEST):
    """Returns an image of at most `largest` rows and columns, by block means.

    Every pixel of the result is the mean of the pixels whose centres it
    covers, so its mean grey is the density, to within unequal blocks.

    Example:

    >>> smaller(np.eye(4), 2).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    for axis in (0, 1):
        length = image.shape[axis]
        if length > largest:
            edges = np.arange(largest) * length // largest
            counts = np.diff([*edges, length])
            sums = np.add.reduceat(image, edges, axis, dtype=np.float32)
            shape = (-1, 1) if axis == 0 else (1, -1)
            image = sums / counts.reshape(shape).astype(np.float32)
    return image.astype(np.float32)


def of_pixels(kept, shape):
    """Returns how many weights of a dense kernel leave each pixel.

    Args:
        kept: Bool array (pixels and channels, outputs).
        shape: (height, width) or (height, width, channels) of the image.

    Returns:
        Int array (height, width).

    Example:

    >>> of_pixels(np.eye(4, 3, dtype=bool), (2, 2)).tolist()
    [[1, 1], [1, 0]]
    """
    counts = np.count_nonzero(kept, axis=1)
    return counts.reshape(*shape[:2], -1).sum(axis=2)


def of_fate(weights, limits):
    """Returns counts of weights by start and end, kept ones and removed ones.

    Args:
        weights: List of (start, end, kept next or None), of one level.
        limits: Largest magnitudes (start, end) that are drawn.

    Returns:
        (counts of kept, counts of removed), arrays: the end from row to row,
        the start from column to column, what is larger at the border.

    Example:

    >>> weights = [(np.array([0.5, -1]), np.array([1, 1]), None)]
    >>> of_fate(weights, (1, 1))[0].sum(axis=0).nonzero()[0].tolist()
    [0, 42]
    """
    totals = np.zeros((2, _BINS * _BINS), np.int64)
    for start, end, kept in weights:
        place = _bin(end, limits[1]) * _BINS + _bin(start, limits[0])
        kept = np.ones(place.size, bool) if kept is None else kept
        for row, chosen in enumerate((kept, ~kept)):
            totals[row] += np.bincount(place[chosen], minlength=_BINS * _BINS)
    kept, removed = totals.reshape(2, _BINS, _BINS)
    return kept, removed


def _bin(values, limit):
    scaled = (np.asarray(values, np.float32) / limit + 1) * (_BINS / 2)
    return np.clip(scaled, 0, _BINS - 1).astype(np.int64)


def mixed(kept, removed, colors):
    """Returns an RGB image of two counts, each darker where it is larger.

    Args:
        kept: Array of counts; `removed` another.
        removed: Its colour is laid over that of `kept`.
        colors: Two RGB triples in [0, 1].
    """
    most = max(1, kept.max(), removed.max())
    image = np.ones((*kept.shape, 3))
    for counts, color in zip((kept, removed), colors, strict=True):
        shade = (np.log1p(counts) / math.log1p(most))[..., None]
        shade = np.where(counts[..., None] > 0, 0.15 + 0.85 * shade, 0)
        image *= 1 - shade * (1 - np.asarray(color))
    return image.clip(0, 1)  # rounding goes below 0
