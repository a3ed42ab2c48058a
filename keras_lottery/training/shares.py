"""Gradients on several replicas, weighed and summed as one device has them.

A batch is cut into one part for each replica. Keras takes the mean loss of
each part over the number of replicas, and clips each part's gradient by itself.
Here gradients are weighed by the rows that they are of, and summed before
anything is done with them: clipping and updates see the gradient of the whole
batch, whatever the number of devices.
"""

import contextlib
import threading
from typing import NamedTuple

import tensorflow as tf

from keras_lottery.training import keras_private

_LOCAL = threading.local()  # replicas are traced in threads of their own


class Share(NamedTuple):
    """How many rows of a batch a replica has.

    Fields:
        rows: Of this replica: int, or int scalar.
        total: Of all replicas: int, or None where only their sum tells.
        sums: Whether the loss is a sum over rows, not a mean.
    """

    rows: object
    total: int | None
    sums: bool = False


@contextlib.contextmanager
def sharing(share):
    """Has `summed` weigh gradients by the rows that they are of.

    Args:
        share: A `Share`.
    """
    before = getattr(_LOCAL, "share", None)
    _LOCAL.share = share
    try:
        yield
    finally:
        _LOCAL.share = before


def summed(gradients):
    """Returns the gradients of the whole batch, from those of one replica.

    Args:
        gradients: List of tensors, `IndexedSlices` and None. Keras has divided
            them by the number of replicas.
    """
    context = tf.distribute.get_replica_context()
    gradients = list(gradients)
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    present = [g for g in gradients if g is not None]
    found = iter(_reduced(context, present) if present else ())
    return [None if g is None else next(found) for g in gradients]


def apply(optimizer, gradients, variables=None):
    """Applies gradients as the class of an optimizer does, once summed."""
    type(optimizer).apply(optimizer, summed(gradients), variables)


@contextlib.contextmanager
def summing(optimizer):
    """Keeps an optimizer from summing gradients that `summed` has summed."""
    stop_summing(optimizer)
    try:
        yield
    finally:
        sum_again(optimizer)


def check(optimizer):
    """Raises a ValueError for what several replicas cannot be trained with."""
    if keras_private.strategy(optimizer).num_replicas_in_sync == 1:
        return
    for leaf in keras_private.leaves(optimizer):
        for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
            if getattr(leaf, name, None):
                raise ValueError(
                    f"{type(leaf).__name__} has {name}={getattr(leaf, name)}: "
                    "Keras takes it in a branch, in which TensorFlow allows no "
                    "step of several replicas. Leave it out and choose a "
                    "larger batch, or train on one device."
                )


def stop_summing(optimizer):
    """Has Keras leave the summing over replicas to `summed`.

    Raises:
        ValueError: Several replicas cannot be trained with it.
    """
    check(optimizer)
    if keras_private.strategy(optimizer).num_replicas_in_sync > 1:
        for leaf in keras_private.leaves(optimizer):
            keras_private.leave_sums_alone(leaf)


def sum_again(optimizer):
    """Undoes `stop_summing`."""
    for leaf in keras_private.leaves(optimizer):
        keras_private.leave_sums_to_keras(leaf)


def _reduced(context, gradients):
    share = getattr(_LOCAL, "share", None)
    add = tf.distribute.ReduceOp.SUM
    if share is None:
        return context.all_reduce(add, gradients)
    factor = _factor(share, context.num_replicas_in_sync)
    if factor is not None:
        gradients = [_times(g, factor) for g in gradients]
        return context.all_reduce(add, gradients)
    rows = tf.cast(share.rows, tf.float32)
    gradients = [_times(g, rows) for g in gradients]
    *gradients, total = context.all_reduce(add, [*gradients, rows])
    factor = context.num_replicas_in_sync / total
    return [_times(g, factor) for g in gradients]


def _factor(share, replicas):
    """Returns what a gradient counts, or None where its sum has to tell."""
    if share.sums:
        return tf.cast(tf.cast(share.rows, tf.int32) > 0, tf.float32)
    if share.total is None:
        return None
    return share.rows * replicas / share.total


def _times(gradient, factor):
    """Returns a gradient times a factor: zero for 0, whatever it was."""
    if isinstance(factor, float) and factor == 1.0:
        return gradient
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(
            _times(gradient.values, factor),
            gradient.indices,
            gradient.dense_shape,
        )
    factor = tf.cast(factor, gradient.dtype)
    return tf.math.multiply_no_nan(gradient, factor)
