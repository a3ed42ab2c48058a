"""Allocations: how a budget of kept weights spreads over the layers.

An allocation is a function `(scores, mask, keep) -> Mask`. `scores` and `mask`
have the same names; exactly `keep` weights are kept, all of them kept by `mask`
before. The lowest scores go; of equal scores the higher flat index goes first
(over all layers in the mask's order, C order within a layer).
"""

import numpy as np

from keras_lottery import choices
from keras_lottery.pruning import selection
from keras_lottery.pruning.mask import Mask


def global_(scores, mask, keep):
    """Keeps the `keep` highest scores of all layers together.

    Args:
        scores: Dict from weight name to an array of scores; higher is kept.
        mask: The current `Mask`; what it has removed stays removed.
        keep: How many weights to keep, at most `mask.kept`.

    Returns:
        A `Mask` with exactly `keep` weights.

    Example:

    >>> scores = {"a": np.array([3.0, 1.0]), "b": np.array([2.0])}
    >>> mask = global_(scores, Mask.full(scores), 2)
    >>> mask["a"].tolist(), mask["b"].tolist()
    ([True, False], [True])

    Reference: Frankle & Carbin (2019), appendix I.1.
    """
    _check(scores, mask, keep)
    layers = selection.layers(scores, mask)
    packed = selection.highest(list(layers.values()), keep)
    return Mask.unpack(dict(zip(layers, packed, strict=True)), mask.shapes)


def layerwise(scores, mask, keep):
    """Keeps the same fraction of every layer: `keep * size_l / size`.

    Fractions of a weight are settled by largest remainders, so that the total
    is exact; a layer that has fewer weights left than its share keeps them
    all, and the others share the rest.

    Example:

    >>> scores = {"a": np.array([3.0, 1.0]), "b": np.array([2.0, 9.0])}
    >>> layerwise(scores, Mask.full(scores), 2)["b"].tolist()
    [False, True]

    Reference: Frankle & Carbin (2019), figure 2.
    """
    return _by_share(scores, mask, keep, mask.sizes)


def erdos_renyi(scores, mask, keep):
    """Keeps a density proportional to `(n_in + n_out) / (n_in * n_out)`.

    A layer whose density would pass 1 stays dense and the others share the
    rest. Of a kernel of rank above 2 the last two dimensions count.

    Reference: Mocanu et al. (2018), section 3.
    """
    shares = {
        name: sum(shape[-2:]) * int(np.prod(shape[:-2], dtype=np.int64))
        for name, shape in _at_least_rank_two(mask).items()
    }
    return _by_share(scores, mask, keep, shares)


def erdos_renyi_kernel(scores, mask, keep):
    """Keeps a density proportional to `sum(shape) / prod(shape)`.

    As `erdos_renyi`, with every dimension of a convolution's kernel counted.

    Reference: Evci et al. (2020), section 3 (ERK).
    """
    shares = {name: sum(s) for name, s in _at_least_rank_two(mask).items()}
    return _by_share(scores, mask, keep, shares)


ALLOCATIONS = {
    "global": global_,
    "layerwise": layerwise,
    "erdos_renyi": erdos_renyi,
    "erdos_renyi_kernel": erdos_renyi_kernel,
}


def get(identifier):
    """Returns the allocation called `identifier`, or a callable as it is.

    Example:

    >>> get("layerwise") is layerwise
    True
    """
    return choices.resolve(
        "allocation",
        identifier,
        ALLOCATIONS,
        "a function (scores, mask, keep) -> Mask",
    )


def apportion(total, shares, capacities):
    """Splits `total` in proportion to `shares`, exactly, within capacities.

    Largest remainders in whole-number arithmetic; of equal remainders the
    earlier one gets the unit. What a full one cannot take, the others share.

    Args:
        total: Int, at most the sum of `capacities`.
        shares: List of ints >= 0, the proportions.
        capacities: List of ints >= 0, the most that each can take.

    Returns:
        List of ints that sum to `total`.

    Example:

    >>> apportion(10, [1, 1, 1], [10, 10, 2])
    [4, 4, 2]
    """
    if not 0 <= total <= sum(capacities):
        raise ValueError(f"Cannot split {total} into {capacities}.")
    given = [None] * len(shares)
    while True:
        open_ = [i for i, value in enumerate(given) if value is None]
        rest = total - sum(value for value in given if value is not None)
        if not any(shares[i] for i in open_):
            shares = [1] * len(shares)
        whole = sum(shares[i] for i in open_)
        full = [i for i in open_ if rest * shares[i] > capacities[i] * whole]
        if not full:
            break
        for i in full:
            given[i] = capacities[i]
    for i in open_:
        given[i] = rest * shares[i] // whole
    remainders = sorted(open_, key=lambda i: -(rest * shares[i] % whole))
    for i in remainders[: total - sum(given)]:
        given[i] += 1
    return given


def _by_share(scores, mask, keep, shares):
    _check(scores, mask, keep)
    left = mask.kept_by_name
    quotas = apportion(
        keep, [shares[name] for name in mask], [left[name] for name in mask]
    )
    packed = {}
    layers = selection.layers(scores, mask)
    for (name, layer), quota in zip(layers.items(), quotas, strict=True):
        (packed[name],) = selection.highest([layer], quota)
    return Mask.unpack(packed, mask.shapes)


def _at_least_rank_two(mask):
    return {name: (1,) * (2 - len(s)) + s for name, s in mask.shapes.items()}


def _check(scores, mask, keep):
    if set(scores) != set(mask):
        raise ValueError(
            f"Scores are of {sorted(scores)}, the mask is of {sorted(mask)}."
        )
    if not 0 <= keep <= mask.kept:
        raise ValueError(
            f"Cannot keep {keep} weights: the mask has {mask.kept} left, and "
            "pruning revives none."
        )
