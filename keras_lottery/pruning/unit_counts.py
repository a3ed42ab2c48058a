"""Counts and scores of units whose weights overlap, each weight once.

Weights are summed into tables first, whose axes are units: a weight may be in
the column of one unit and in the row of another.
"""

import numpy as np

from keras_lottery.pruning.mask import Mask


def means(units, scores, mask):
    """Returns the mean score of every unit, and how many weights it has."""
    totals = np.zeros(len(units.groups))
    counts = np.zeros(len(units.groups), int)
    for name, sides in units.sides.items():
        alive, values = mask[name], np.asarray(scores[name])
        if np.isnan(values).any():
            raise ValueError(
                f"The scores of {name!r} cannot be ordered: they hold NaN."
            )
        values = np.where(alive, values, 0)
        totals += _per_unit(_table(values, sides, np.float64), len(totals))
        counts += _per_unit(_table(alive, sides, int), len(totals)).astype(int)
    found = np.where(counts, totals / np.maximum(counts, 1), -np.inf)
    return found, counts


def lost(units, mask, turns, steps, names):
    """Returns how many weights are gone after 0, 1, ... `steps` turns.

    Args:
        units: The `coupling.Units`.
        mask: The `Mask` before.
        turns: The turn at which each unit goes, and at last `steps`: never.
        steps: How many turns there are.
        names: Of the weights that are counted.
    """
    gone = np.zeros(steps + 1)
    for name in [name for name in names if name in units.sides]:
        sides = units.sides[name]
        counts, along = _table(mask[name], sides, int)
        turn = turns[along[0]]
        if len(along) == 2:
            turn = np.minimum(turn[:, None], turns[along[1]])
        gone += np.bincount(turn.ravel(), counts.ravel(), steps + 1)
    return np.concatenate([[0], np.cumsum(gone[:-1])]).astype(int)


def without(units, mask, gone):
    """Returns a `Mask` without the units that are gone; last: False."""
    after = {}
    for name in mask:
        kept = mask[name]
        for side in units.sides.get(name, ()):
            stays = ~gone[side.units]
            kept = kept & stays.reshape(-1, *[1] * (-side.axis - 1))
        after[name] = kept
    return Mask(after)


def _table(array, sides, dtype):
    """Returns the sums over units: an array, and the units along its axes.

    Its axes are those of the sides, in the order of the weight.
    """
    axes = sorted(side.axis for side in sides)
    others = tuple(a for a in range(-array.ndim, 0) if a not in axes)
    if others:
        array = array.sum(others, dtype=dtype)
    by_axis = {side.axis: side.units for side in sides}
    along = []
    for place, axis in enumerate(axes):
        units = by_axis[axis]
        order = np.argsort(units, kind="stable")
        distinct, starts = np.unique(units[order], return_index=True)
        if (order[1:] < order[:-1]).any():
            array = np.take(array, order, place)
        if len(distinct) < len(units):  # large dense kernels are not copied
            array = _summed(array, starts, place, dtype)
        along.append(distinct)
    return array, along


def _summed(array, starts, axis, dtype):
    """Returns `np.add.reduceat`, faster where all parts are of one length."""
    lengths = np.diff([*starts, array.shape[axis]])
    if (lengths != lengths[0]).any():
        return np.add.reduceat(array, starts, axis, dtype)
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    parts = array.reshape(*before, len(starts), lengths[0], *after)
    return parts.sum(axis + 1, dtype=dtype)


def _per_unit(table, count):
    """Returns the sum of all entries that are a unit's; each counts once."""
    array, along = table
    if len(along) == 2:
        one, other = along
        twice = one[:, None] == other  # a channel added to what it came from
        rest = np.where(twice, 0, array) if twice.any() else array
        rows = _gathered(one, array.sum(1, dtype=np.float64), count)
        columns = _gathered(other, rest.sum(0, dtype=np.float64), count)
        return rows + columns
    return _gathered(along[0], array, count)


def _gathered(units, values, count):
    found = np.zeros(count + 1)
    found[units] = values  # each is there once; -1 is the last
    return found[:-1]
