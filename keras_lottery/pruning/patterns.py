"""Allocations that leave a pattern in each weight: N of M, and blocks.

They look at no other weight and know nothing of the model. What they keep is
the nearest count that the pattern allows, at most `keep`.
"""

import dataclasses

import numpy as np

from keras_lottery import checks
from keras_lottery.pruning import selection
from keras_lottery.pruning import shares
from keras_lottery.pruning.mask import Mask


@dataclasses.dataclass(frozen=True)
class NOfM:
    """At most n of every m weights in a row; then the lowest, up to `keep`.

    Rows are cut from the start of the axis, the last may be shorter. Along
    the inputs, where hardware with 2:4 multiplies, is axis -2 of dense kernels
    and convolutions, -1 of transposed ones, 0 of an attention's query, key and
    value. If `keep` is more than the pattern allows, the pattern
    decides: "2:4" keeps at most half.

    Args:
        n: How many stay, 1 to `m`.
        m: Of how many.
        axis: Along which axis of each weight.

    Raises:
        ValueError: `n` or `m` out of range; a weight without such an axis.

    Example:

    >>> scores = {"a": np.array([[5.0], [6.0], [7.0], [8.0], [1.0]])}
    >>> mask = NOfM(2, 4)(scores, Mask.full(scores), 5)
    >>> mask["a"].ravel().tolist()
    [False, False, True, True, True]

    Reference: Mishra et al. (2021), section 2.
    """

    n: int
    m: int
    axis: int = -2

    def __post_init__(self):
        checks.whole("m", self.m, 1)
        checks.whole("n", self.n, 1)
        if self.n > self.m:
            raise ValueError(
                f"Of every m={self.m} weights n={self.n} cannot stay: expected "
                "n <= m, as in NOfM(2, 4)."
            )
        if type(self.axis) is not int:
            raise ValueError(f"`axis` takes an int, got {self.axis!r}.")

    @property
    def __name__(self):
        plain = f"{self.n}:{self.m}"
        return plain if self.axis == -2 else f"{plain} (axis={self.axis})"

    def __call__(self, scores, mask, keep):
        """Returns a `Mask` of at most `keep` weights: see the class."""
        shares.check_keep(scores, mask, keep)
        self.check(mask.shapes)
        fits = Mask(
            {
                name: self._best(_ordered(name, scores), mask[name])
                for name in mask
            }
        )
        layers = selection.layers(scores, fits)
        packed = selection.highest(list(layers.values()), min(keep, fits.kept))
        return Mask.unpack(dict(zip(layers, packed, strict=True)), mask.shapes)

    def check(self, shapes):
        """Raises a ValueError for weights that have no such axis.

        Args:
            shapes: Dict from weight name to shape.
        """
        for name, shape in shapes.items():
            if not -len(shape) <= self.axis < len(shape):
                raise ValueError(
                    f"{name!r} has shape {shape}: no axis {self.axis}. Give an "
                    "axis that all pruned weights have, or leave this weight "
                    "out with `layers=[...]`."
                )

    def _best(self, scores, alive):
        """Returns which weights are among the best n of their row."""
        axis, length = self.axis, scores.shape[self.axis]
        rows = [
            np.moveaxis(_padded(array, axis, self.m), axis, 0)
            for array in (scores, alive)
        ]
        scores, alive = (
            row.reshape(-1, self.m, *row.shape[1:]) for row in rows
        )
        kept = np.empty_like(alive)
        for i in range(self.m):
            ahead = np.zeros(alive[:, 0].shape, np.int32)
            for j in range(self.m):
                if i != j:
                    # Of equals the earlier one stays.
                    compare = np.greater_equal if j < i else np.greater
                    ahead += alive[:, j] & compare(scores[:, j], scores[:, i])
            kept[:, i] = alive[:, i] & (ahead < self.n)
        kept = kept.reshape(rows[1].shape)[:length]
        return np.moveaxis(kept, 0, axis)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Blocks of the last two axes go as a whole, the lowest means first.

    A block's score is the mean of the scores of those of its weights that are
    still kept. Blocks are cut from the start of both axes, the last may be
    smaller; every position of a convolution has its own. Of equal scores the
    later block goes first. All layers compete.

    Args:
        shape: (inputs, outputs) of a block, such as (4, 4) or (1, 16).

    Example:

    >>> scores = {"a": np.array([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]])}
    >>> Blocks((2, 2))(scores, Mask.full(scores), 5)["a"].tolist()
    [[False, False, True], [False, False, True]]

    Reference: Narang et al. (2017), section 3.
    """

    shape: tuple = (4, 4)

    def __post_init__(self):
        given = self.shape
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise ValueError(
                "A block has a shape of two ints such as (4, 4), got "
                f"{given!r}."
            )
        for length in given:
            checks.whole("shape", length, 1)
        object.__setattr__(self, "shape", tuple(map(int, given)))

    @property
    def __name__(self):
        return "blocks" if self == Blocks() else f"blocks(shape={self.shape})"

    def __call__(self, scores, mask, keep):
        """Returns a `Mask` of at most `keep` weights: see the class."""
        shares.check_keep(scores, mask, keep)
        tables = {}
        for name in mask:
            alive = mask[name]
            values = np.where(alive, _ordered(name, scores), 0)
            tables[name] = (
                self._sums(values, np.float64),
                self._sums(alive, int),
            )
        totals, counts = (
            np.concatenate([table[i].ravel() for table in tables.values()])
            for i in (0, 1)
        )
        means = np.where(counts, totals / np.maximum(counts, 1), -np.inf)
        order = lowest_first(means)
        lost = np.concatenate([[0], np.cumsum(counts[order])])
        gone = np.zeros(len(order), bool)
        gone[order[: np.searchsorted(lost, mask.kept - keep)]] = True
        return self._without(mask, tables, gone)

    def _sums(self, array, dtype):
        """Returns [..., blocks down, blocks across]: the sum of each."""
        down, across = self.shape
        array = np.atleast_2d(array)
        array = _padded(_padded(array, -2, down), -1, across)
        # Slice by slice: NumPy is slow at sums over a short last axis.
        rows = sum(array[..., i::down, :].astype(dtype) for i in range(down))
        return sum(rows[..., i::across] for i in range(across))

    def _without(self, mask, tables, gone):
        after, start = {}, 0
        for name, (_, counts) in tables.items():
            part = gone[start : start + counts.size].reshape(counts.shape)
            start += counts.size
            for axis, length in zip((-2, -1), self.shape, strict=True):
                part = np.repeat(part, length, axis)
            alive = np.atleast_2d(mask[name])
            rows, columns = alive.shape[-2:]
            kept = alive & ~part[..., :rows, :columns]
            after[name] = kept.reshape(mask[name].shape)
        return Mask(after)


def lowest_first(scores):
    """Returns the order in which units go: rising scores, ties from behind.

    Example:

    >>> lowest_first(np.array([2.0, 1.0, 1.0])).tolist()
    [2, 1, 0]
    """
    return np.lexsort((-np.arange(len(scores)), scores))


def _ordered(name, scores):
    """Returns the scores of a weight, which must not hold NaN."""
    values = np.asarray(scores[name])
    if np.isnan(values).any():
        raise ValueError(
            f"Only some of the scores of {name!r} can be ordered: they hold "
            "NaN."
        )
    return values


def _padded(array, axis, length):
    """Returns an array with an axis filled up to a multiple of a length."""
    missing = -array.shape[axis] % length
    if not missing:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, missing)
    return np.pad(array, widths)
