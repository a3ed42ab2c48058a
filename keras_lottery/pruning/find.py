"""From a model and a sparsity to a mask. Pure: nothing is changed."""

import warnings

import numpy as np

from keras_lottery import checks
from keras_lottery.errors import LayerCollapseWarning
from keras_lottery.pruning import allocation as allocations
from keras_lottery.pruning import criteria
from keras_lottery.pruning import groups
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.pruning.mask import kept
from keras_lottery.pruning.patterns import NOfM
from keras_lottery.pruning.selection import Scores
from keras_lottery.pruning.structured import Bound


def find_mask(
    model,
    sparsity,
    *,
    mask=None,
    start=None,
    criterion="magnitude",
    allocation="global",
    layers=None,
    data=None,
    seed=0,
    level=None,
):
    """Returns the mask that a criterion finds at a total sparsity.

    Of n weights, `n - round(n * sparsity)` are kept: those with the highest
    scores among the ones that `mask` keeps.

    Args:
        model: A built `keras.Model`; it is not changed.
        sparsity: Fraction removed in all, in [0, 1), or a dict of name
            pattern to fraction (first match wins; others are not pruned).
        mask: The `Mask` so far, or None for one that keeps all.
        start: Dict from name to the weights at the rewind point, for criteria
            that compare with them.
        criterion: A name of `lottery.criteria.CRITERIA` or a function
            `(model, start, data) -> {name: scores}`.
        allocation: A name of `lottery.allocation.ALLOCATIONS`, `"N:M"`, or
            a function `(scores, mask, keep) -> Mask`. Structured ones keep
            the nearest count below.
        layers: Which layers to prune, as in `lottery.prune`.
        data: Given to the criterion.
        seed: Given to a criterion that draws.
        level: Named in the warning when a layer is emptied.

    Returns:
        A `Mask` of the prunable weights.

    Raises:
        ValueError: A sparsity out of range or below that of `mask`, unknown
            names, a model with nothing to prune.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> find_mask(model, sparsity=0.75).kept
    2

    Reference: Frankle & Carbin (2019), section 1.
    """
    # Walking over a model takes longer than pruning a small one: once.
    variables = None if mask is None else _fitted(model, mask)
    before = current_mask(model, None, layers) if mask is None else mask
    wanted = sparsity if isinstance(sparsity, dict) else {"*": sparsity}
    if not wanted:
        raise ValueError("The dict of sparsities is empty.")
    governed = groups.assign(list(before), list(wanted))
    budgets = [
        (names, _keep(before, names, wanted[pattern], pattern))
        for pattern, names in governed.items()
    ]
    return prune_to(
        budgets,
        model,
        before,
        start=start,
        criterion=criterion,
        allocation=allocation,
        data=data,
        seed=seed,
        level=level,
        variables=variables,
    )


def prune_to(
    budgets,
    model,
    before,
    *,
    start,
    criterion,
    allocation,
    data,
    seed,
    level,
    variables=None,
):
    """Returns the mask after each group kept its budget.

    Args:
        budgets: List of (names of the group, how many of its weights to
            keep). A group that has fewer left keeps those.
        model: A built `keras.Model`; it is not changed.
        before: The `Mask` so far.
        variables: The variables of `model` by name, where they are known.

    The others are as in `find_mask`.
    """
    scores = criteria.scores_of(
        criteria.get(criterion, seed),
        model,
        start,
        data,
        before,
        variables=variables,
    )
    after = _spread(scores, before, budgets, allocation, model)
    _warn_of_collapse(before, after, level)
    return after


def budgets_of(governed, sparsities, before):
    """Returns how many weights each group keeps, at total sparsities.

    Args:
        governed: Dict from pattern to names.
        sparsities: Dict from pattern to the fraction removed in all.
        before: The `Mask` so far.

    Returns:
        List of (names, count), one per pattern of `sparsities`.
    """
    sizes = before.sizes
    return [
        (names, kept(sum(sizes[name] for name in names), sparsities[pattern]))
        for pattern, names in governed.items()
        if pattern in sparsities
    ]


def check_reachable(budgets, model, before, allocation):
    """Raises a ValueError unless an allocation can keep as few as it has to.

    Structured ones cannot always: better said before anything is trained.
    Scores are not known yet; units of one layer are of one size, nearly always.

    Args:
        budgets: List of (names, how many to keep), at the last level.
        model: A built `keras.Model`; it is not changed.
        before: The `Mask` so far.
        allocation: As in `find_mask`.
    """
    allocate = allocations.get(allocation)
    if isinstance(allocate, NOfM):
        for names, _ in budgets:
            allocate.check({name: before.shapes[name] for name in names})
    if getattr(allocate, "of_model", None) is not None:
        equal = {
            name: np.broadcast_to(np.float32(0), shape)
            for name, shape in before.shapes.items()
        }
        _spread(Scores(equal), before, budgets, allocation, model)


def _spread(scores, before, budgets, allocation, model):
    allocate = allocations.of_model(allocation, model)
    if isinstance(allocate, Bound):
        return _spread_over_units(scores, before, budgets, allocate)
    ours = allocations.counts_exactly(allocate)
    after = before.pack()
    for names, keep in budgets:
        part = _only(before, names)
        keep = min(keep, part.kept)
        given = scores.only(names)
        # A function of the user's is promised a dict of arrays.
        found = allocate(given if ours else dict(given), part, keep)
        after.update(_checked(found, part, keep).pack())
    return Mask.unpack(after, before.shapes)


def _spread_over_units(scores, before, budgets, allocate):
    """As `_spread`: units may reach from one group into another."""
    names = [name for names, _ in budgets for name in names]
    part = _only(before, names)
    found = allocate.spread(scores.only(names), part, budgets)
    for group, keep in budgets:
        _checked(_only(found, group), _only(before, group), keep)
    return Mask.unpack({**before.pack(), **found.pack()}, before.shapes)


def _only(mask, names):
    packed, shapes = mask.pack(), mask.shapes
    return Mask.unpack(
        {name: packed[name] for name in names},
        {name: shapes[name] for name in names},
    )


def current_mask(model, mask=None, layers=None):
    """Returns `mask`, checked against `model`, or one that keeps everything.

    Raises:
        ValueError: The mask names other weights or shapes than the model has.
    """
    if mask is None:
        return Mask.full(weights.prunable(model, layers))
    check_fits(model, mask)
    return mask


def check_fits(model, mask):
    """Raises a ValueError unless every weight of `mask` is in `model`."""
    _fitted(model, mask)


def _fitted(model, mask):
    """Returns the variables of `model` by name, all of `mask` among them."""
    if not isinstance(mask, Mask):
        raise ValueError(f"Expected a Mask, got {type(mask).__name__}.")
    variables = weights.by_name(model)
    wrong = [
        f"{name}: mask {shape}, model "
        + (str(tuple(variables[name].shape)) if name in variables else "none")
        for name, shape in mask.shapes.items()
        if name not in variables or tuple(variables[name].shape) != shape
    ]
    if wrong:
        raise ValueError(
            f"The mask does not fit {model.name!r}:\n  " + "\n  ".join(wrong)
        )
    return variables


def _keep(before, names, sparsity, pattern):
    checks.fraction("sparsity", sparsity)
    sizes, counts = before.sizes, before.kept_by_name
    size = sum(sizes[name] for name in names)
    left = sum(counts[name] for name in names)
    keep = kept(size, sparsity)
    if keep > left:
        raise ValueError(
            f"The mask keeps {left} of {size} weights of {pattern!r} already; "
            f"sparsity {sparsity} would keep {keep}, and pruning revives none."
        )
    return keep


def _checked(found, part, keep):
    if not isinstance(found, Mask) or found.shapes != part.shapes:
        raise ValueError(
            "The allocation must return a Mask of the weights it was given, "
            f"{part.shapes}; got {found!r}."
        )
    if not found.issubset(part) or found.kept > keep:
        raise ValueError(
            f"The allocation kept {found.kept} weights, {keep} allowed, or "
            "revived removed ones."
        )
    return found


def _warn_of_collapse(before, after, level):
    left = after.kept_by_name
    for name, count in before.kept_by_name.items():
        if count and not left[name]:
            where = "" if level is None else f" at level {level}"
            warnings.warn(
                f"{name!r} has no weight left{where}: nothing passes through "
                "this layer. Prune less, or use allocation='layerwise'.",
                LayerCollapseWarning,
                stacklevel=4,
            )
