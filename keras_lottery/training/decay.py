"""Weight decay as the papers have it: a penalty, part of the gradient."""

import math
import numbers

import keras

from keras_lottery.pruning import groups
from keras_lottery.pruning import weights


class WeightDecay(keras.regularizers.L2):
    """The penalty that `decay` sets, told apart from a user's own."""


def decay(model, weight_decay, names=None):
    """Adds `weight_decay * w` to the gradient of every kernel.

    The penalty `weight_decay / 2 * sum(w ** 2)` is part of the loss, so that
    momentum, Adam's moments and clipping see its gradient. (The `weight_decay`
    of Keras's optimizers shrinks weights beside the update instead.) Keras
    adds it to `val_loss` as well.

    It is set on the model's variables: it is in no config, and a model that is
    loaded or cloned has none. Call again then, and to change it; a `compile`
    is not needed.

    Args:
        model: A built `keras.Model`, before `lottery.prune` wraps it.
        weight_decay: Factor >= 0; 0 takes the penalty away again.
        names: None for all kernels that `lottery.prune` would prune, or a list
            of patterns (fnmatch) on the names of trainable weights.

    Raises:
        ValueError: A bad factor, a pattern that fits nothing, or a weight that
            has a regularizer of its own; nothing is set then.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> decay(model, 1e-4)
    >>> len(model.losses)
    1

    Reference: Frankle & Carbin (2019), who train ResNet-18 and VGG-19 with
    1e-4.
    """
    number = isinstance(weight_decay, numbers.Real) and (
        not isinstance(weight_decay, bool)
    )
    if not number or not 0 <= weight_decay < math.inf:
        raise ValueError(
            f"`weight_decay` must be a finite number >= 0, such as 1e-4; got "
            f"{weight_decay!r}."
        )
    chosen = _chosen(model, names)
    for name, variable in chosen.items():
        own = variable.regularizer
        if own is not None and not isinstance(own, WeightDecay):
            raise ValueError(
                f"{name!r} has a regularizer of its own, {own!r}: build the "
                "model without, or leave the weight out of `names`."
            )
    for variable in chosen.values():
        # The gradient of l2 * w ** 2 is 2 * l2 * w.
        variable.regularizer = (
            WeightDecay(weight_decay / 2) if weight_decay else None
        )
    # Functions traced before hold the losses of then.
    model.train_function = model.test_function = None


def _chosen(model, names):
    if names is None:
        return weights.prunable(model)
    names = [names] if isinstance(names, str) else list(names)
    trained = {
        name: variable
        for name, variable in weights.by_name(model).items()
        if variable.trainable
    }
    governed = groups.assign(list(trained), names)
    return {
        name: trained[name] for found in governed.values() for name in found
    }
