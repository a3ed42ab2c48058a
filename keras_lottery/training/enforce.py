"""Attaching masks to a model, and letting go of them again."""

import contextlib
import weakref

import keras

from keras_lottery.pruning import find
from keras_lottery.pruning import weights
from keras_lottery.training import keras_private
from keras_lottery.training import replicas
from keras_lottery.training import shares
from keras_lottery.training.holding import Attachment
from keras_lottery.training.holding import zeroed_gradient

_ATTACHED = weakref.WeakKeyDictionary()


def attach(model, mask, optimizer=None):
    """Makes `mask` hold on `model` until `detach`.

    Zeroes the removed weights now; from then on the compiled optimizer sees
    masked gradients, and a constraint zeroes after every update. For a loop of
    your own, name its `optimizer`; or pass gradients through
    `masked_gradients`. Attach before the first call of a `tf.function` that
    trains: one that was traced before knows of no mask.

    The mask belongs to this model object: a copy, a clone or a saved file has
    the zeros, and takes `attach(copy, lottery.nonzero_mask(copy))`.

    Args:
        model: A built `keras.Model`.
        mask: A `Mask` of some of its weights.
        optimizer: An optimizer beside the compiled one, or a list of them.

    Raises:
        ValueError: The mask does not fit the model, or an optimizer is none or
            cannot train on several replicas.

    Example:

    >>> import numpy as np, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> mask = lottery.Mask({"dense/kernel": np.eye(4, 2, dtype=bool)})
    >>> attach(model, mask)
    >>> int(np.count_nonzero(model.get_weights()[0]))
    2
    >>> detach(model)
    """
    find.check_fits(model, mask)
    optimizers = _optimizers(model, optimizer)
    for each in optimizers:
        shares.check(each)
    held = _ATTACHED.get(model)
    if held is None or set(held.masks) != set(mask):
        if is_attached(model):
            detach(model)
        held = _ATTACHED[model] = _new_attachment(model, mask)
    if not held.active:
        held.activate()
        _exchange_functions(model, None, held)
    elif not all(map(held.holds, optimizers)):
        # Compiled since, and perhaps traced with gradients unmasked.
        model.train_function = None
    held.set(mask)
    for each in optimizers:
        held.hold(each)


def detach(model):
    """Lets go of the mask that `attach` made hold; the zeros stay.

    Raises:
        ValueError: No mask is attached.
    """
    held = attachment(model)
    held.warn_of_leaks(compiled_optimizer(model))
    held.apply()
    let_go(model)


def let_go(model):
    """As `detach`, whatever the weights are: a ticket may be restored."""
    held = attachment(model)
    if not held.holds(compiled_optimizer(model)):
        model.train_function = None
    held.release()
    _exchange_functions(model, held, None)


def is_attached(model):
    """Returns whether a mask holds on `model`."""
    return model in _ATTACHED and _ATTACHED[model].active


def adopt(model, held):
    """Registers an `Attachment` that somebody else built, and returns it."""
    if is_attached(model):
        raise ValueError(
            f"A mask is attached to {model.name!r} already. Let go of it "
            "first: `pruned.strip()`, or `lottery.detach(model)`."
        )
    _ATTACHED[model] = held
    held.activate()
    _exchange_functions(model, None, held)
    return held


def attachment(model):
    """Returns the `Attachment` of `model`.

    Raises:
        ValueError: No mask is attached.
    """
    if not is_attached(model):
        raise ValueError(
            f"No mask is attached to {model.name!r}: call "
            "`lottery.attach(model, mask)` first."
        )
    return _ATTACHED[model]


@contextlib.contextmanager
def masked(model, mask, optimizer=None):
    """Makes `mask` hold on `model` inside a `with` block.

    Args:
        model: As in `attach`.
        mask: As in `attach`.
        optimizer: As in `attach`.

    Raises:
        ValueError: The mask does not fit, or another one is attached.

    Example:

    >>> import numpy as np, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.compile("adam", "mse")
    >>> mask = lottery.Mask({"dense/kernel": np.eye(4, 2, dtype=bool)})
    >>> with masked(model, mask):
    ...     history = model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    >>> int(np.count_nonzero(model.get_weights()[0]))
    2
    """
    if is_attached(model):
        raise ValueError(
            f"A mask is attached to {model.name!r} already. Let go of it "
            "first: `pruned.strip()`, or `lottery.detach(model)`."
        )
    attach(model, mask, optimizer)
    try:
        yield model
        if is_attached(model):
            attachment(model).warn_if_bypassed(compiled_optimizer(model))
            attachment(model).warn_of_leaks(compiled_optimizer(model))
    finally:
        if is_attached(model):
            attachment(model).apply()
            let_go(model)


def masked_gradients(gradients, model):
    """Returns gradients with those of removed weights at zero.

    Args:
        gradients: List in the order of `model.trainable_variables`.
        model: A model with an attached mask.

    Returns:
        List of the same length; entries without a mask are unchanged.

    Raises:
        ValueError: No mask is attached, or the lengths differ.

    Example:

    >>> import numpy as np, tensorflow as tf, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> attach(model, lottery.Mask({"dense/kernel": np.eye(4, 2, dtype=bool)}))
    >>> gradients = [tf.ones((4, 2)), tf.ones((2,))]
    >>> int(tf.math.count_nonzero(masked_gradients(gradients, model)[0]))
    2
    >>> detach(model)
    """
    held = attachment(model)
    variables = model.trainable_variables
    if len(gradients) != len(variables):
        raise ValueError(
            f"Expected one gradient for each of the {len(variables)} "
            f"trainable variables of {model.name!r}, got {len(gradients)}."
        )
    names = {id(v): name for name, v in held.variables.items()}
    return [
        zeroed_gradient(gradient, held.masks[names[id(variable)]])
        if id(variable) in names
        else gradient
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def _optimizers(model, given):
    """Returns the compiled optimizer, if any, and those that are given."""
    given = given if isinstance(given, (list, tuple)) else [given]
    found = [e for e in (compiled_optimizer(model), *given) if e is not None]
    for each in found:
        if not isinstance(each, keras.optimizers.Optimizer):
            raise ValueError(
                "`optimizer` takes Keras 3 optimizers, such as "
                f"`keras.optimizers.Adam()`; got {each!r:.80}. With any other, "
                "pass gradients through `lottery.masked_gradients`."
            )
    return found


def compiled_optimizer(model):
    """Returns the optimizer of a compiled model, or None."""
    return getattr(model, "optimizer", None)


def _exchange_functions(model, before, now):
    """Puts away what Keras traced so far, and brings back what fits now.

    A traced function keeps the constraints and the method of the optimizer it
    saw. But for batches of a new shape it traces anew, with whatever holds at
    that time. So it must run only where it was made: under one attachment, or
    (None) under no mask. What is put away stays on the model, not on the
    attachment: it refers to the model and would keep it alive.
    """
    if not hasattr(model, "train_function"):
        return
    compiled = keras_private.compilation(model)
    kept = vars(model).get("_lottery_functions", {})
    kept = {**kept, before: (compiled, model.train_function)}
    of, function = kept.get(now, (None, None))
    model.train_function = function if of is compiled else None
    vars(model)["_lottery_functions"] = {
        each: kept[each] for each in (before, now) if each in kept
    }


def _new_attachment(model, mask):
    named = weights.by_name(model)
    with replicas.in_scope(model):
        masks = {
            name: keras.Variable(mask[name], dtype="bool", trainable=False)
            for name in mask
        }
    return Attachment({name: named[name] for name in mask}, masks)
