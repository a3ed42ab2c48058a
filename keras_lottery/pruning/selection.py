"""Selection: which weights have the highest scores, without sorting them all.

A sample says between which two scores the threshold lies. One pass over all
scores counts what is above and gathers what is between, so that the threshold
is exact; a second pass marks what is kept. A sample that misleads costs
another pass, never a wrong weight. Scores are computed and read in pieces that
fit into the processor's cache: no array of all of them is ever made.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

PIECE = 2**17  # scores read at a time: 512 KB of float32; a multiple of 8
_FEWEST = 64  # sampled scores; with fewer, everything is gathered
_MARGIN = 4.5  # standard deviations: misses once in 100,000 prunings


class Scores(Mapping):
    """Scores by weight name, computed from other arrays when they are read.

    Args:
        arrays: Dict from weight name to array.
        score: Function of an array, element by element, or None for arrays
            that are scores themselves.

    Example:

    >>> scores = Scores({"a": np.array([-3.0, 2.0])}, np.abs)
    >>> scores["a"].tolist()
    [3.0, 2.0]
    """

    def __init__(self, arrays, score=None):
        self.arrays = arrays
        self.score = score

    def __getitem__(self, name):
        array = np.asarray(self.arrays[name])
        array = array.astype(_dtype_of([array]), copy=False)
        return array if self.score is None else self.score(array)

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self):
        return len(self.arrays)

    def only(self, names):
        """Returns the scores of the weights `names`."""
        return Scores({name: self.arrays[name] for name in names}, self.score)


class Layer(NamedTuple):
    """The scores of one weight as a flat array, and which may be kept."""

    flat: np.ndarray
    packed: np.ndarray  # bits of the current mask, little end first
    kept: int
    dtype: np.dtype  # of the scores as they are compared
    score: object  # None, or a function from what `flat` holds

    def read(self, where):
        """Returns the scores at a slice or an array of positions."""
        part = self.flat[where].astype(self.dtype, copy=False)
        return part if self.score is None else self.score(part)

    def alive(self, start, count):
        """Returns which of `count` weights may be kept, or None for all."""
        if self.kept == len(self.flat):
            return None
        bits = self.packed[start // 8 : (start + count + 7) // 8]
        return np.unpackbits(bits, count=count, bitorder="little").view(bool)

    def pieces(self):
        """Yields (start, scores) for one piece after the other."""
        for start in range(0, len(self.flat), PIECE):
            yield start, self.read(slice(start, start + PIECE))


def layers(scores, mask):
    """Returns a `Layer` for every weight of `mask`, in its order.

    Args:
        scores: Dict from weight name to an array of scores, or `Scores`.
        mask: The current `Mask`.
    """
    if not isinstance(scores, Scores):
        scores = Scores(scores)
    flat = {name: np.asarray(scores.arrays[name]).ravel() for name in mask}
    packed, kept = mask.pack(), mask.kept_by_name
    dtype = _dtype_of(flat.values())
    return {
        name: Layer(flat[name], packed[name], kept[name], dtype, scores.score)
        for name in mask
    }


def highest(layers, keep):
    """Returns which weights have the `keep` highest scores of all layers.

    Of equal scores the earlier layer goes first into the selection, within a
    layer the lower index.

    Args:
        layers: List of `Layer`.
        keep: How many to keep, at most as many as may be kept.

    Returns:
        List of packed bits, one array per layer, as `Mask.unpack` takes them.

    Raises:
        ValueError: The scores cannot be ordered, since they hold NaN.

    Example:

    >>> from keras_lottery.pruning.mask import Mask
    >>> scores = {"a": np.array([3.0, 1.0, 2.0])}
    >>> found = layers(scores, Mask.full(scores))
    >>> highest(list(found.values()), 2)
    [array([5], dtype=uint8)]
    """
    live = sum(layer.kept for layer in layers)
    if keep == 0:
        return [np.zeros_like(layer.packed) for layer in layers]
    if keep == live:
        return [layer.packed for layer in layers]
    return _marked(layers, _threshold(layers, live, keep))


class _Threshold(NamedTuple):
    """The lowest score kept."""

    score: np.generic
    equal: int  # how many scores equal it
    ties: int  # how many of these are kept


def _threshold(layers, live, keep):
    sample, margin = _sample(layers), _MARGIN
    while True:
        low, high = _bracket(sample, 1 - keep / live, margin)
        found = _between(_counted(layers, low, high), keep)
        if found is not None:
            return found
        if math.isinf(margin):
            raise ValueError(
                f"Only some of the {live} scores can be ordered: they hold NaN."
            )
        # Scores in an order that the sample follows: look further around.
        margin = margin * 8 if margin < len(sample) else math.inf


def _sample(layers):
    """Returns the sorted scores of weights drawn over all layers.

    One is drawn from each of n^(2/3) equal stretches: about the number for
    which sorting the sample and what falls between cost the same.
    """
    size = sum(len(layer.flat) for layer in layers)
    count = round(size ** (2 / 3))
    # Drawn, not every n-th: scores may repeat with the shape of a layer.
    drawn = np.arange(count) + np.random.default_rng(0).random(count)
    places = np.minimum((drawn * (size / count)).astype(np.int64), size - 1)
    found, start = [], 0
    for layer in layers:
        end = start + len(layer.flat)
        first, last = np.searchsorted(places, [start, end])
        inside = places[first:last] - start
        bits = layer.packed[inside // 8] >> (inside % 8).astype(np.uint8)
        found.append(layer.read(inside[(bits & 1).view(bool)]))
        start = end
    return np.sort(np.concatenate(found))


def _bracket(sample, fraction, margin):
    """Returns two scores between which the quantile `fraction` must lie."""
    count, low, high = len(sample), -np.inf, np.inf
    if sample.dtype.kind in "iu":
        low, high = np.iinfo(sample.dtype).min, np.iinfo(sample.dtype).max
    if count >= _FEWEST and not math.isinf(margin):
        spread = margin * (1 + math.sqrt(count * fraction * (1 - fraction)))
        first = math.floor(count * fraction - spread)
        last = math.ceil(count * fraction + spread)
        low = sample[first] if first >= 0 else low
        high = sample[last] if last < count else high
    return sample.dtype.type(low), sample.dtype.type(high)


class _Count(NamedTuple):
    """How the scores lie around a bracket of two scores."""

    low: np.generic
    high: np.generic
    above: int
    at_high: int
    at_low: int
    inside: np.ndarray  # without those that equal `low` or `high`


def _counted(layers, low, high):
    above = at_high = at_low = 0
    inside = []
    for layer in layers:
        for start, scores in layer.pieces():
            over, within = scores > high, scores >= low
            alive = layer.alive(start, len(scores))
            if alive is not None:
                over &= alive
                within &= alive
            above += np.count_nonzero(over)
            within ^= over
            found = scores[np.flatnonzero(within)]
            # Many may be equal to a bound; those are counted, not gathered.
            strictly = found[(found > low) & (found < high)]
            equal = np.count_nonzero(found == high)
            at_high += equal
            at_low += len(found) - len(strictly) - equal
            inside.append(strictly)
    return _Count(low, high, above, at_high, at_low, np.concatenate(inside))


def _between(count, keep):
    """Returns the threshold, or None if it is not in the bracket."""
    ties = keep - count.above
    if ties <= 0:
        return None
    if ties <= count.at_high:
        return _Threshold(count.high, count.at_high, ties)
    ties -= count.at_high
    inside = count.inside
    if ties <= len(inside):
        place = len(inside) - ties
        inside.partition(place)
        score = inside[place]
        ties -= np.count_nonzero(inside > score)
        return _Threshold(score, np.count_nonzero(inside == score), ties)
    ties -= len(inside)
    if ties <= count.at_low:
        return _Threshold(count.low, count.at_low, ties)
    return None


def _marked(layers, threshold):
    """Returns packed bits: what is above the threshold, and its first ties."""
    left = threshold.ties
    marked = []
    for layer in layers:
        bits = np.empty_like(layer.packed)
        for start, scores in layer.pieces():
            if threshold.ties == threshold.equal:
                chosen = scores >= threshold.score
            else:
                chosen = scores > threshold.score
                first = _first(scores == threshold.score, layer, start, left)
                chosen[first] = True
                left -= len(first)
            piece = np.packbits(chosen, bitorder="little")
            bits[start // 8 : start // 8 + len(piece)] = piece
        bits &= layer.packed
        marked.append(bits)
    return marked


def _first(equal, layer, start, count):
    """Returns where the first `count` of `equal` are that may be kept."""
    alive = layer.alive(start, len(equal))
    return np.flatnonzero(equal if alive is None else equal & alive)[:count]


def _dtype_of(arrays):
    """Returns the dtype in which scores are compared."""
    # bfloat16 cannot be sorted; float32 holds all of these exactly.
    single = np.dtype(np.float32)
    dtypes = [a.dtype if a.dtype.itemsize >= 4 else single for a in arrays]
    return np.result_type(*dtypes) if dtypes else single
