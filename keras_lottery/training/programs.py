"""The compiled functions of the step loop: many training steps in one call.

Three ways to run the same steps. In graph mode TensorFlow runs one operation
after the other, and weights are updated by fused kernels where those serve.
XLA compiles the whole loop; it needs shapes that are known, so that the row
numbers of a call are drawn outside. A stream reads a `tf.data` iterator.
"""

import contextlib

import keras
import tensorflow as tf

from keras_lottery.training import fused
from keras_lottery.training import holding
from keras_lottery.training import keras_private

ROW_NUMBERS = 2**18  # of one call under XLA: 2 MB
MOST_STEPS = 2000  # of one call under XLA


def graph(model, recipe):
    """Returns a function of (tensors, seeds, first, count) in graph mode.

    It trains `count` steps from step `first`, and returns (`count`, logs).

    Args:
        model: A compiled and built `keras.Model`.
        recipe: A `Recipe`.
    """
    train = _step(model)

    @tf.function(autograph=False)
    def steps(tensors, seeds, first, count):
        def one(index):
            return train(recipe.batch(tensors, seeds, first + index))

        with _fused(model):
            return count, _repeated(model, one, count)

    return steps


def xla(model, recipe):
    """Returns the same function as `graph`, with the loop compiled by XLA.

    It trains `capacity(recipe)` steps a call at most: one shape, one compile.
    Keras's own updates are as fast as fused kernels there.
    """
    train, most = _step(model), capacity(recipe)

    @tf.function(autograph=False, jit_compile=True)
    def loop(tensors, numbers, seeds, first, count):
        def sized(index, rows):
            return train(
                recipe.gathered(
                    tensors, seeds, first + index, numbers[index, :rows]
                )
            )

        def one(index):
            if recipe.last == recipe.batch_size:
                return sized(index, recipe.batch_size)
            is_last = (first + index + 1) % recipe.per_pass == 0
            return tf.cond(
                is_last,
                lambda: sized(index, recipe.last),
                lambda: sized(index, recipe.batch_size),
            )

        return _repeated(model, one, count)

    @tf.function(autograph=False)
    def steps(tensors, seeds, first, count):
        numbers = recipe.numbers_of_many(seeds[0], first, count)
        numbers = tf.pad(numbers, [[0, most - count], [0, 0]])
        numbers = tf.ensure_shape(numbers, [most, recipe.batch_size])
        return count, loop(tensors, numbers, seeds, first, count)

    return steps


def capacity(recipe):
    """Returns how many steps a call under XLA has room for."""
    return max(1, min(MOST_STEPS, ROW_NUMBERS // recipe.batch_size))


def stream(model):
    """Returns a function of (iterator, count) in graph mode.

    It trains `count` steps, or as many as there are batches, and returns (how
    many, logs).
    """
    train, own = _step(model), has_own_step(model)

    @tf.function(autograph=False)
    def steps(iterator, count):
        def body(done, going, logs):
            batch = iterator.get_next_as_optional()
            there = batch.has_value()
            logs = tf.cond(
                there, lambda: train(batch.get_value()), lambda: logs
            )
            return done + tf.cast(there, done.dtype), there, logs

        with _fused(model):
            done, logs = tf.zeros_like(count), {}
            if own:  # which logs there are is known after a step only
                done, logs = done + 1, train(iterator.get_next())
            done, _, logs = tf.while_loop(
                lambda done, going, _: going & (done < count),
                body,
                (done, tf.constant(True), logs),
            )
        return done, _told(model, logs)

    return steps


def has_own_step(model):
    """Returns whether a model trains by a step that is not Keras's."""
    if _is_wrapper(model):
        return model.has_own_step()
    return type(model).train_step is not keras.Model.train_step


def has_own_test_step(model):
    """Returns whether a model is tested by a step that is not Keras's."""
    model = getattr(model, "inner", model) if _is_wrapper(model) else model
    return type(model).test_step is not keras.Model.test_step


def _is_wrapper(model):
    return hasattr(model, "has_own_step")


def _step(model):
    """Returns the function (batch) -> logs of one step."""
    own = has_own_step(model)

    def train(batch):
        logs = model.distribute_strategy.run(model.train_step, args=(batch,))
        # Metrics are read once a call; a step of one's own says others.
        return logs if own else {}

    return train


def _repeated(model, one, count):
    """Runs `one(index)` for every index below `count`; returns the logs."""

    def body(index, logs):
        del logs
        return index + 1, one(index)

    first, logs = tf.zeros_like(count), {}
    if has_own_step(model):  # as in `stream`
        first, logs = body(first, logs)
    _, logs = tf.while_loop(
        lambda index, logs: index < count, body, (first, logs)
    )
    return _told(model, logs)


def _told(model, logs):
    return logs if has_own_step(model) else model.get_metrics_result()


def _fused(model):
    """Has what is traced meanwhile update by fused kernels, where they serve.

    They leave pruned weights at zero by themselves, so that only a user's own
    constraint has to be applied.
    """
    optimizer = model.optimizer
    if fused.reason(optimizer) is not None:
        return contextlib.nullcontext()
    trained = keras_private.trained_by(optimizer)
    kept = fused.update(optimizer, constraints=any(map(_is_bound, trained)))

    def update(optimizer, gradients, variables=None):
        gradients = list(gradients)
        same = variables is None or list(map(id, variables)) == list(
            map(id, trained)
        )
        if same and fused.reason(optimizer, gradients) is None:
            kept(gradients)
        else:
            type(optimizer).apply(optimizer, gradients, variables)

    return holding.updated_by(optimizer, update)


def _is_bound(variable):
    """Whether a user has constrained a variable, beside our masks."""
    constraint = variable.constraint
    if isinstance(constraint, holding.MaskConstraint):
        constraint = constraint.then
    return constraint is not None
