"""Replicas that hold the same: proved by checksums, and made so where needed.

Weights, masks and slots are equal on every replica because all of them apply
the same sums. After every level this is checked. The statistics of batch
normalisation are not: Keras has every replica keep those of its own rows. They
are replaced by their mean before anything is measured, kept or exported.
"""

import zlib

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.errors import RunError
from keras_lottery.pruning import weights
from keras_lottery.training import keras_private
from keras_lottery.training import replicas


def settle(model, optimizer, masks):
    """Makes the replicas of a model agree, and proves that they do.

    Does nothing for a model on one replica.

    Args:
        model: A built `keras.Model`.
        optimizer: The optimizer that trains it, or None.
        masks: Dict from name to the variable of a mask.

    Raises:
        RunError: Weights, masks or slots differ between replicas.
    """
    if replicas.count(model) == 1:
        return
    settle_statistics(model)
    named = dict(weights.by_name(model))
    named |= {f"the mask of {name}": v for name, v in masks.items()}
    if optimizer is not None and optimizer.built:
        held = keras_private.variables(optimizer)
        named |= {f"optimizer: {variable.path}": variable for variable in held}
    check_same(model, named)


def check_same(model, named):
    """Raises a RunError unless variables are the same on all replicas.

    Args:
        model: The model, of Keras 3 or tf_keras, whose strategy has them.
        named: Dict from what to call a variable in the error to the variable.
    """
    found = _differing(model, named) if replicas.count(model) > 1 else {}
    if found:
        told = ", ".join(list(found)[:3])
        raise RunError(
            f"{len(found)} variables are not the same on all replicas "
            f"({told}; checksums {list(found.values())[0]}). The masks of this "
            "level would not be those of one network: it is not kept. A layer "
            "or train_step of your own that assigns weights has to assign the "
            "same on every replica; if there is none, a device is not sound."
        )


def settle_statistics(model):
    """Gives variables that are not trained, and differ, the same value.

    Floats the mean over replicas, others that of the first replica.

    Args:
        model: A built `keras.Model`.
    """
    if replicas.count(model) == 1:
        return
    named = {
        name: variable
        for name, variable in weights.by_name(model).items()
        if not variable.trainable
    }
    differing = [named[name] for name in _differing(model, named)]
    floats = [variable for variable in differing if _is_float(variable)]
    for variable in differing:
        if not _is_float(variable):
            variable.assign(variable.numpy())
    if floats:
        _average(model.distribute_strategy, floats)


def first(variables, arrays):
    """Returns the bool arrays that the first replica has, on every worker.

    Args:
        variables: The variables that they are for, under one strategy.
        arrays: List of bool arrays, of the same shapes on every worker.
    """
    strategy = replicas.strategy_of(variables)
    if strategy is None or replicas.workers(strategy) == 1:
        return arrays
    joined = np.concatenate([array.ravel() for array in arrays])
    packed = tf.constant(np.packbits(joined).astype(np.int32))
    sent = replicas.result(strategy, _of_first, packed).numpy()
    bits = np.unpackbits(sent.astype(np.uint8), count=joined.size)
    ends = np.cumsum([array.size for array in arrays])[:-1]
    parts = np.split(bits.astype(bool), ends)
    return [p.reshape(a.shape) for p, a in zip(parts, arrays, strict=True)]


def mean(strategy, number):
    """Returns the mean of a number over replicas, on every worker."""
    if replicas.workers(strategy) == 1:
        return number
    return float(replicas.result(strategy, _mean, tf.constant(float(number))))


def _of_first(value):
    context = tf.distribute.get_replica_context()
    is_first = tf.equal(context.replica_id_in_sync_group, 0)
    value = tf.where(is_first, value, tf.zeros_like(value))
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _mean(value):
    context = tf.distribute.get_replica_context()
    # What is computed here has a device; an argument has none.
    value = tf.identity(value)
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, value)


def _differing(model, named):
    """Returns the checksums by replica of variables that differ, by name."""
    named = {
        name: variable
        for name, variable in named.items()
        if _is_mirrored(variable)
    }
    if not named:
        return {}
    found = _digests(model.distribute_strategy, list(named.values()))
    columns = dict(zip(named, found.T.tolist(), strict=True))
    return {n: column for n, column in columns.items() if len(set(column)) > 1}


def _digests(strategy, variables):
    """Returns int checksums: a row for each replica, the same on every worker.

    On the host: a traced function of all variables takes 20 s to make for a
    ResNet-50.
    """
    copies = [
        strategy.experimental_local_results(_value(variable))
        for variable in variables
    ]
    rows = [list(map(digest, copy)) for copy in zip(*copies, strict=True)]
    found = np.array(rows, np.int64)
    if replicas.workers(strategy) > 1:
        found = tf.constant(found)
        found = replicas.result(strategy, replicas.gathered, found).numpy()
    return found.reshape(-1, len(variables))


def digest(tensor):
    """Returns the CRC-32 of a tensor's bytes: one bit that differs is seen.

    Example:

    >>> a, b = tf.constant([1.0, 2.0]), tf.constant([2.0, 1.0])
    >>> digest(a) == digest(a), digest(a) == digest(b)
    (True, False)
    """
    array = np.ascontiguousarray(tensor.numpy()).reshape(-1)
    return zlib.crc32(array.view(np.uint8))


def _average(strategy, variables):
    def on_a_replica():
        for variable in variables:
            value = tf.convert_to_tensor(variable.value)
            variable.value.assign(_mean(value))

    replicas.compiled(strategy, on_a_replica)()


def _value(variable):
    """Returns TensorFlow's variable of one of Keras 3, or of tf_keras."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def _is_mirrored(variable):
    value = _value(variable)
    writes = tf.VariableSynchronization.ON_WRITE
    return (
        isinstance(value, tf.distribute.DistributedValues)
        and value.synchronization == writes
    )


def _is_float(variable):
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return dtype.startswith(("float", "bfloat"))
