"""Pruning a model that is trained, without training it."""

import numpy as np

from keras_lottery.pruning import find
from keras_lottery.pruning import weights
from keras_lottery.tickets.pruned_model import PrunedModel
from keras_lottery.training import enforce


def sparsify(
    model,
    sparsity,
    *,
    criterion="magnitude",
    allocation="global",
    layers=None,
    data=None,
    seed=0,
    mask=None,
):
    """Sets the weights that matter least to zero, in place, without training.

    Of n weights `n - round(n * sparsity)` are kept. Nothing holds the zeros
    in a later `fit`: train inside `with lottery.masked(model, mask)`. A mask
    that is attached to the model already is narrowed, and holds.

    Args:
        model: A built `keras.Model`, compiled or not.
        sparsity: Fraction removed in all, in [0, 1), or a dict of name pattern
            to fraction (first match wins; others are not pruned).
        criterion: As in `lottery.find_mask`.
        allocation: As in `lottery.find_mask`.
        layers: As in `lottery.prune`.
        data: Given to the criterion.
        seed: Seed of a criterion that draws.
        mask: The `Mask` so far: what it has removed stays removed.

    Returns:
        The `Mask` of what is kept.

    Raises:
        ValueError: As in `lottery.find_mask`, or a `PrunedModel`. The model
            is as it was then.

    Example:

    >>> import keras, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> mask = sparsify(model, 0.75)
    >>> mask.kept, lottery.sparsity(model)
    (2, 0.75)

    Reference: Han et al. (2015), section 3, its pruning step.
    """
    if isinstance(model, PrunedModel):
        raise ValueError(
            "This model is pruned by its `fit`. Sparsify `model.strip()`, or "
            "adopt a mask: `model.adopt_mask(lottery.find_mask(model.inner, "
            "0.8), level=model.level)`."
        )
    held = enforce.attachment(model) if enforce.is_attached(model) else None
    found = find.find_mask(
        model,
        sparsity,
        mask=_so_far(held, mask, layers),
        criterion=criterion,
        allocation=allocation,
        layers=layers,
        data=data,
        seed=seed,
    )
    if held is None:
        _zero(model, found)
    else:
        held.set(found)
    return found


def _so_far(held, mask, layers):
    """Returns the mask to narrow, or None for one that keeps all."""
    if held is None:
        return mask
    if layers is not None:
        raise ValueError(
            f"A mask of {', '.join(held.masks)} is attached to the model, and "
            "that is what is narrowed: leave `layers` out, or let go of it "
            "first with `lottery.detach(model)`."
        )
    return held.mask if mask is None else held.mask & mask


def _zero(model, mask):
    """Zeroes what a mask removes."""
    variables = weights.by_name(model)
    values = {
        name: np.where(mask[name], value := variables[name].numpy(), 0).astype(
            value.dtype
        )
        for name in mask
    }
    for name, value in values.items():
        variables[name].assign(value)
