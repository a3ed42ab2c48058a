"""The private names of Keras's optimizers, all in one place.

`pruning/weights.py` holds those of layers. A test runs over the oldest and the
newest Keras that is supported.
"""

import keras
import numpy as np
import tensorflow as tf


def key(optimizer, variable):
    """Returns what identifies `variable` to `optimizer`."""
    return optimizer._var_key(variable)


def trained_by(optimizer):
    """Returns the variables an optimizer was built for, in its order."""
    return list(optimizer._trainable_variables)


def leaves(optimizer):
    """Returns the optimizers that update weights: the inner ones, if any.

    LossScaleOptimizer wraps one optimizer, MultiOptimizer several.
    """
    held = []
    for value in vars(optimizer).values():
        held.extend(value if isinstance(value, (list, tuple)) else [value])
    inner = [v for v in held if isinstance(v, keras.optimizers.Optimizer)]
    if not inner:
        return [optimizer]
    unique = {id(each): each for each in inner}.values()
    return [leaf for each in unique for leaf in leaves(each)]


def averages(leaf):
    """Returns (variable, its moving average) pairs of a leaf with EMA."""
    if not leaf.use_ema:
        return []
    return list(
        zip(
            leaf._trainable_variables,
            leaf._model_variables_moving_average,
            strict=True,
        )
    )


def slots(leaf):
    """Yields (list name, index, variable, slot) for slots shaped like weights.

    Every Keras optimizer keeps its slots in lists aligned with the variables
    it was built for.
    """
    trained = leaf._trainable_variables
    for name, held in vars(leaf).items():
        aligned = isinstance(held, list) and len(held) == len(trained)
        if not aligned or name in ("_variables", "_trainable_variables"):
            continue
        for index, (variable, slot) in enumerate(zip(trained, held)):
            is_slot = isinstance(slot, (keras.Variable, tf.Variable))
            if is_slot and tuple(slot.shape) == tuple(variable.shape):
                yield name, index, variable, slot


def built_values(leaf):
    """Returns the value each slot had when built: {(list name, index): float}.

    Found from a fresh optimizer of the same configuration, built on weights
    of one entry each: a slot's first value does not depend on the size. (An
    optimizer that starts a slot as a copy of the weight finds 0, which is what
    a pruned weight is.)
    """
    fresh = type(leaf).from_config(leaf.get_config())
    stand_ins = [
        keras.Variable(
            np.zeros((1,) * len(v.shape)), dtype=v.dtype, name=v.name
        )
        for v in leaf._trainable_variables
    ]
    fresh.build(stand_ins)
    return {
        (name, index): float(slot.numpy().ravel()[0])
        for name, index, _, slot in slots(fresh)
    }


def clock_variables(optimizer):
    """Returns the variables that say where in its schedule an optimizer is.

    These are its scalars: the iteration, a learning rate that callbacks set,
    Nadam's product of momenta. The loss scale is not one of them.
    """
    return [
        variable
        for leaf in leaves(optimizer)
        for variable in leaf.variables
        if len(variable.shape) == 0
    ]


def learning_rate(leaf):
    """Returns the learning rate as given: a variable, schedule or function."""
    return leaf._learning_rate


def set_learning_rate(leaf, value):
    """Replaces the learning rate, a schedule included."""
    leaf._learning_rate = value


def compile_arguments(model):
    """Returns the arguments `model.compile` was called with, as objects."""
    return dict(model._compile_config.config)
