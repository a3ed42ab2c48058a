"""The state of a training: everything that decides how it goes on."""

from typing import NamedTuple

import keras
import numpy as np

from keras_lottery.pruning import weights
from keras_lottery.training import agreement
from keras_lottery.training import keras_private


class Snapshot(NamedTuple):
    """Copies of all variables at one step of a training.

    Fields:
        model: Dict from name to array: weights, statistics, seed generators.
        optimizer: Tuple of arrays in the optimizer's order, or None.
        recurrent: Tuple of arrays: what stateful RNNs remember. Keras does not
            count it as a variable of theirs.
    """

    model: dict
    optimizer: tuple | None
    recurrent: tuple = ()


def snapshot(model, optimizer=None):
    """Returns a copy of the model's and the optimizer's variables.

    An optimizer that is not built yet is built first, so that the copy at step
    0 holds its fresh slots. Of several replicas, all hold the same after it.

    Args:
        model: A built `keras.Model`.
        optimizer: A `keras.optimizers.Optimizer`, or None.

    Returns:
        A `Snapshot`.
    """
    agreement.settle_statistics(model)
    copies = {
        name: _copy(variable)
        for name, variable in weights.by_name(model).items()
    }
    recurrent = tuple(map(_copy, _recurrent(model)))
    if optimizer is None:
        return Snapshot(copies, None, recurrent)
    if not optimizer.built:
        keras_private.build(optimizer, model.trainable_variables)
    slots = tuple(map(_copy, keras_private.variables(optimizer)))
    return Snapshot(copies, slots, recurrent)


def first(model, optimizer=None):
    """Returns the state of step 0 of a model that holds its first weights.

    However long its optimizer has trained: the copy has fresh slots. A
    learning rate that callbacks have set stays as it is.
    """
    taken = snapshot(model, optimizer)._replace(recurrent=())
    if optimizer is None:
        return taken
    fresh = keras_private.fresh(optimizer, model.trainable_variables)
    return taken._replace(
        optimizer=tuple(map(_copy, keras_private.variables(fresh)))
    )


def restore(taken, model, optimizer=None):
    """Puts every variable back to what it was when `taken` was taken.

    Raises:
        ValueError: The model or the optimizer has other variables than then.
    """
    restore_model(taken.model, model)
    for index, variable in enumerate(_recurrent(model)):
        zeros = np.zeros(variable.shape)  # as it was at first
        variable.assign(taken.recurrent[index] if taken.recurrent else zeros)
    if optimizer is not None and taken.optimizer is not None:
        variables = keras_private.variables(optimizer)
        if len(variables) != len(taken.optimizer):
            raise ValueError(
                f"The optimizer has {len(variables)} variables, the rewind "
                f"point {len(taken.optimizer)}: was the model compiled with "
                "another optimizer in between?"
            )
        for variable, value in zip(variables, taken.optimizer, strict=True):
            variable.assign(value)


def restore_model(values, model):
    """Assigns `values`, a dict from name to array, to the model's variables.

    Raises:
        ValueError: The model has no variable of a name.
    """
    variables = weights.by_name(model)
    unknown = sorted(set(values) - set(variables))
    if unknown:
        raise ValueError(
            f"{model.name!r} has no {', '.join(unknown)}: these values are of "
            "another model."
        )
    for name, value in values.items():
        variables[name].assign(value)


def restore_clock(taken, optimizer, clock):
    """Puts back those of the optimizer's variables that `clock` lists."""
    wanted = {id(variable) for variable in clock}
    for variable, value in zip(
        keras_private.variables(optimizer), taken.optimizer, strict=True
    ):
        if id(variable) in wanted:
            variable.assign(value)


def first_not_finite(model, optimizer=None, begin=()):
    """Returns the name of a variable that holds NaN or infinity, or None.

    A slot that does freezes its weight or spoils it later: the second moment
    of Adam that overflowed never comes back, while weights and loss stay
    finite. What a LossScaleOptimizer skips for its gradients never gets there.

    Args:
        model: A built `keras.Model`.
        optimizer: The optimizer that trains it, or None.
        begin: Dict from name to what variables were before: one that is not
            trained, and was not finite then, is passed.
    """
    named = dict(weights.by_name(model))
    if optimizer is not None and optimizer.built:
        for leaf in keras_private.leaves(optimizer):
            for variable in keras_private.variables(leaf):
                named[f"the optimizer's {name_of(variable)}"] = variable
    for name, variable in named.items():
        if not _is_float(variable) or _all_finite(variable.numpy()):
            continue
        began = name in begin and not _all_finite(np.asarray(begin[name]))
        if variable.trainable or not began:
            return name
    return None


def name_of(variable):
    """Returns what an optimizer calls a variable, of Keras 3 or tf_keras."""
    return getattr(variable, "path", variable.name)


def _recurrent(model):
    """Returns what stateful RNNs remember from batch to batch."""
    if not isinstance(model, keras.layers.Layer):
        return []
    return [
        variable
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN) and layer.stateful
        for variable in keras.tree.flatten(layer.states)
    ]


def _is_float(variable):
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return dtype.startswith(("float", "bfloat"))


def _all_finite(values):
    if values.dtype.itemsize == 1:  # few eights of a byte know infinity
        values = values.astype(np.float32)
    return bool(np.isfinite(values).all())


def _copy(variable):
    return np.array(variable.numpy(), copy=True)
