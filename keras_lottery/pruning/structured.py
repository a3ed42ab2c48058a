"""Allocations of units that leave a smaller dense network: channels, heads.

They need the model, to know which parts of which weights go together: asked by
name, `lottery.prune` and `find_mask` bind them to it. Units are removed as a
whole, the lowest first, until at most `keep` weights are left; of every group
of units (a layer, or layers whose outputs are added) one stays. A unit's score
is the mean of the scores of those of its weights that are still kept; of equal
ones the later unit goes first. Weights that lie in no unit are kept.
"""

import dataclasses

import numpy as np

from keras_lottery.pruning import coupling
from keras_lottery.pruning import shares
from keras_lottery.pruning import unit_counts

SPREADS = ("global", "layerwise")


@dataclasses.dataclass(frozen=True)
class _OfUnits:
    """What filters, channels and heads have in common.

    Args:
        spread: `"layerwise"`: every layer loses the same share of its units;
            `"global"`: all units compete. Wide layers have small weights, so
            that competing they lose almost all: a ResNet-14 on digits with a
            quarter of its weights is then 15 to 75 points worse.
    """

    spread: str = "layerwise"

    def __post_init__(self):
        if self.spread not in SPREADS:
            raise ValueError(
                "`spread` is one of 'global', 'layerwise'; got "
                f"{self.spread!r}."
            )

    @property
    def __name__(self):
        name = type(self).__name__.lower()
        return name if self == type(self)() else f"{name}(spread='global')"

    def __call__(self, scores, mask, keep):
        """Raises a ValueError: without the model the units are not known."""
        raise ValueError(
            f"{type(self).__name__} has to know the model. Give it as "
            f"`allocation={self.__name__!r}` to `lottery.prune` or "
            "`find_mask`, or bind it: `.of_model(model)(scores, mask, keep)`."
        )

    def of_model(self, model):
        """Returns the function `(scores, mask, keep) -> Mask` for a model.

        Raises:
            ValueError: The graph of the model is not known.
        """
        return Bound(
            self, getattr(coupling, type(self).__name__.lower())(model)
        )


class Filters(_OfUnits):
    """Output channels go, with those of the layers they are added to.

    The rows that read them stay, so that batch normalisation and biases may
    still pass a constant on. To make tensors smaller, take `Channels`.

    Example:

    >>> import keras
    >>> from keras_lottery.pruning.find import find_mask
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> model.add(keras.layers.Dense(1))
    >>> kernel = np.array([[1.0, 5.0]] * 3)
    >>> model.layers[0].set_weights([kernel, np.zeros(2)])
    >>> mask = find_mask(model, 0.3, allocation=Filters())
    >>> mask["dense/kernel"][0].tolist()
    [False, True]

    Reference: Li et al. (2017), section 3.1.
    """


class Channels(_OfUnits):
    """Channels go, in all that makes and reads them: smaller dense tensors.

    `lottery.export(..., shrink=True)` leaves out what they were in: kernels,
    depthwise kernels, biases and normalisation.

    Example:

    >>> import keras
    >>> from keras_lottery.pruning.find import find_mask
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    >>> model.add(keras.layers.Dense(1))
    >>> find_mask(model, 0.5, allocation=Channels()).kept_by_name
    {'dense/kernel': 6, 'dense_1/kernel': 2}

    Reference: Fang et al. (2023), section 3; Li et al. (2017), section 3.1.
    """


class Heads(_OfUnits):
    """Attention heads go: slices of the query, key, value, output kernels.

    Query heads that share a key and value head go with it, together.

    Example:

    >>> import keras
    >>> from keras_lottery.pruning.find import find_mask
    >>> x = keras.Input((5, 8))
    >>> y = keras.layers.MultiHeadAttention(4, key_dim=2)(x, x)
    >>> mask = find_mask(keras.Model(x, y), 0.5, allocation=Heads())
    >>> sorted(set(mask.kept_by_name.values()))
    [32]

    Reference: Michel et al. (2019), section 2.
    """


class Bound:
    """An allocation of the units of one model.

    Args:
        allocation: A `Filters`, `Channels` or `Heads`.
        units: The `coupling.Units` of the model.
    """

    def __init__(self, allocation, units):
        self.allocation = allocation
        self.units = units

    def __call__(self, scores, mask, keep):
        """Returns a `Mask` of at most `keep` weights.

        Args:
            scores: Dict from weight name to an array of scores.
            mask: The current `Mask`; what it has removed stays removed.
            keep: How many weights to keep at most.

        Raises:
            ValueError: So few cannot be kept by removing units.
        """
        shares.check_keep(scores, mask, keep)
        return self.spread(scores, mask, [(list(mask), keep)])

    def spread(self, scores, mask, budgets):
        """Returns the `Mask` after each group of weights kept its budget.

        Group after group; a unit that reaches into several goes from all, so
        that one may keep fewer. A group that keeps all of its weights is not
        reached into.

        Args:
            scores: As for a call.
            mask: The current `Mask`.
            budgets: List of (names of the group, how many of its weights to
                keep at most).
        """
        sizes = mask.sizes
        open_ = {
            name
            for names, keep in budgets
            for name in names
            if keep < sum(sizes[each] for each in names)
        }
        units = self.units.within(open_)
        for names, keep in budgets:
            left = sum(mask.kept_by_name[name] for name in names)
            if left > keep:
                mask = self._pruned(units, scores, mask, names, left - keep)
        return mask

    def _pruned(self, units, scores, mask, names, least):
        """Returns a `Mask` with at least so many weights of `names` fewer."""
        units = units.reaching(names)
        order = self._order(
            *unit_counts.means(units, scores, mask), units.groups
        )
        turns = np.full(len(units.groups) + 1, len(order))  # never
        turns[order] = np.arange(len(order))
        lost = unit_counts.lost(units, mask, turns, len(order), names)
        if lost[-1] < least:
            if not units.sides:
                raise ValueError(_none(self.units, names))
            raise ValueError(_too_few(units, mask, names, least, lost[-1]))
        gone = turns < np.searchsorted(lost, least)
        return unit_counts.without(units, mask, gone)

    def _order(self, means, counts, groups):
        """Returns the units that may go, first those that are gone."""
        alive = counts > 0
        order = np.lexsort((-np.arange(len(means)), means, alive))
        places, sizes = _places(order, groups)
        # The last of a group has its best unit: it stays, if it is alive.
        best = (places == sizes - 1) & alive[order]
        if self.allocation.spread == "layerwise":
            # Every group is at the same share, to half a unit.
            by_share = np.argsort((places + 0.5) / sizes, kind="stable")
            order, best = order[by_share], best[by_share]
        return order[~best]


def _places(order, groups):
    """Returns of each unit in an order its place in its group, and its size."""
    groups = groups[order]
    places = np.empty(len(order), int)
    by_group = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    places[by_group] = np.arange(len(order)) - starts[groups[by_group]]
    return places, sizes[groups]


def _too_few(units, mask, names, least, most):
    counts = mask.kept_by_name
    left = sum(counts[name] for name in names)
    inside = sum(counts[name] for name in names if name in units.sides)
    return (
        f"Cannot keep as few as {left - least:,} of {left:,} weights by "
        f"removing {units.what}: they can remove {most:,}, the least that can "
        f"be kept is {left - most:,}. {inside:,} weights are in kernels that "
        f"have {units.what}.{_whole(units)} Prune less, or prune only the "
        "layers that have them: `layers=[...]`, or a dict of name pattern to "
        "schedule."
    )


def _none(units, names):
    outside = [name for name in units.sides if name not in names]
    inside = any(name in names for name in units.sides)
    where = f" (they are also in {_listed(outside)})" if inside else ""
    return (
        f"No {units.what} lie whole in the weights that are pruned here, "
        f"{_listed(list(names))}{where}.{_whole(units)} Prune the layers that "
        "belong together, or take another allocation: 'blocks' and '2:4' work "
        "on every weight."
    )


def _whole(units):
    if not units.whole:
        return ""
    return f" Layers that need all of their channels: {_listed(units.whole)}."


def _listed(names):
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
