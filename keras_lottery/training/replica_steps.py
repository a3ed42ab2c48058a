"""One training step over several replicas: how a batch is cut, and weighed."""

import tensorflow as tf

from keras_lottery.training import keras_private
from keras_lottery.training import replicas
from keras_lottery.training import shares


def of_recipe(model, recipe, logs_of):
    """Returns a function (tensors, seeds, step) -> logs for arrays in memory.

    Every replica gathers its own rows. What is drawn to augment is drawn for
    the whole batch by each of them, so that it does not depend on their number.

    Args:
        model: A compiled `keras.Model`.
        recipe: A `Recipe`.
        logs_of: Function of what the replicas return, to logs.

    Raises:
        ValueError: A replica would have no rows of a batch where shapes have to
            be the same on all: on a TPU.
    """
    strategy = model.distribute_strategy
    sums = keras_private.sums_losses(model)

    def on_a_replica(tensors, seeds, step, numbers):
        first, rows, share = _part(numbers.shape[0], sums)
        if recipe.augment is None:
            numbers = replicas.cut(numbers, first, rows)
            batch = recipe.gathered(tensors, seeds, step, numbers)
        else:
            batch = recipe.gathered(tensors, seeds, step, numbers)
            batch = replicas.cut(batch, first, rows)
        return _stepped(model, model.train_step, batch, share)

    def sized(tensors, seeds, step, rows):
        numbers = recipe.numbers(seeds[0], step)
        numbers = tf.ensure_shape(numbers, [rows])
        arguments = (tensors, seeds, step, numbers)
        return logs_of(strategy.run(on_a_replica, args=arguments))

    def one(tensors, seeds, step):
        if recipe.last == recipe.batch_size:
            return sized(tensors, seeds, step, recipe.batch_size)
        return tf.cond(
            (step + 1) % recipe.per_pass == 0,
            lambda: sized(tensors, seeds, step, recipe.last),
            lambda: sized(tensors, seeds, step, recipe.batch_size),
        )

    return one


def of_batch(model, step, logs_of):
    """Returns a function (batch) -> logs for batches that a strategy has cut.

    Args:
        model: A compiled `keras.Model`.
        step: Its `train_step` or its `test_step`.
        logs_of: As in `of_recipe`.
    """
    strategy = model.distribute_strategy
    sums = keras_private.sums_losses(model)

    def on_a_replica(batch):
        rows = _rows(batch)
        total = None
        if isinstance(rows, int):  # the same on all replicas
            total = rows * strategy.num_replicas_in_sync
        else:
            batch = tf.nest.map_structure(_with_a_row, batch)
        share = shares.Share(rows, total, sums)
        return _stepped(model, step, batch, share)

    def run(batch):
        return logs_of(strategy.run(on_a_replica, args=(batch,)))

    return run


def _part(rows, sums):
    """Returns the first row of this replica, how many it has, its `Share`."""
    several = tf.distribute.get_replica_context().num_replicas_in_sync
    replica = replicas.this_replica()
    if replica is not None:
        first, last = replicas.bounds(rows, several, replica)
        share = shares.Share(last - first, rows, sums)
        # A replica without rows takes one that counts for nothing.
        return (first, last - first, share) if share.rows else (0, 1, share)
    each, more = divmod(rows, several)
    if more:
        raise ValueError(
            f"A batch of {rows} rows cannot be cut into {several} equal parts, "
            "which a TPU needs. Choose a batch size that is a multiple of "
            f"{several}, and so many rows that the last batch of a pass is too."
        )
    context = tf.distribute.get_replica_context()
    first = tf.cast(context.replica_id_in_sync_group, tf.int32) * each
    return first, each, shares.Share(each, rows, sums)


def _stepped(model, step, batch, share):
    """Runs a step; a batch that counts for nothing leaves metrics alone."""
    with shares.sharing(share):
        if isinstance(share.rows, int) and share.rows:
            return step(batch)
        there = tf.cast(share.rows, tf.int32) > 0
        return replicas.counted(model, lambda: step(batch), there)


def _rows(batch):
    first = next(t for t in tf.nest.flatten(batch) if t is not None)
    known = first.shape[0]
    return tf.shape(first)[0] if known is None else known


def _with_a_row(tensor):
    """Returns a part of a batch with at least one row: zeros, if it has none.

    The statistics of no rows are not numbers, and would stay.
    """
    if not isinstance(tensor, tf.Tensor) or not tensor.shape.rank:
        return tensor
    missing = tf.maximum(0, 1 - tf.shape(tensor)[0])
    padding = [[0, missing], *[[0, 0]] * (len(tensor.shape) - 1)]
    padded = tf.pad(tensor, padding)
    padded.set_shape(tensor.shape)
    return padded
