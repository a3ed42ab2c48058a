"""The compiled functions of the step loop: many training steps in one call.

Three ways to run the same steps. In graph mode TensorFlow runs one operation
after the other, and weights are updated by fused kernels where those serve.
XLA compiles the whole loop; it needs shapes that are known, so that the row
numbers of a call are drawn outside. A stream reads a `tf.data` iterator.

On several replicas (graph mode and streams) the loop is outside, and every step
in it is run on all of them: `replica_steps.py`.
"""

import contextlib
import functools

import keras
import tensorflow as tf

from keras_lottery.training import fused
from keras_lottery.training import holding
from keras_lottery.training import keras_private
from keras_lottery.training import replica_steps
from keras_lottery.training import replicas
from keras_lottery.training import shares

ROW_NUMBERS = 2**18  # of one call under XLA: 2 MB
MOST_STEPS = 2000  # of one call under XLA


def graph(model, recipe):
    """Returns a function of (tensors, seeds, first, count) in graph mode.

    It trains `count` steps from step `first`, and returns (`count`, logs).

    Args:
        model: A compiled and built `keras.Model`.
        recipe: A `Recipe`.
    """
    train = _step_of(model, recipe)

    @tf.function(autograph=False)
    def steps(tensors, seeds, first, count):
        def one(index):
            return train(tensors, seeds, first + index)

        with updates(model):
            return count, _repeated(model, one, count)

    return steps


def xla(model, recipe):
    """Returns the same function as `graph`, with the loop compiled by XLA.

    It trains `capacity(recipe)` steps a call at most: one shape, one compile.
    Keras's own updates are as fast as fused kernels there.
    """
    own, most = has_own_step(model), capacity(recipe)
    train = step(model, model.train_step, own)

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
    own = has_own_step(model)
    train = step(model, model.train_step, own)

    @tf.function(autograph=False)
    def steps(iterator, count):
        def body(done, going, logs):
            batch = iterator.get_next_as_optional()
            there = batch.has_value()
            logs = tf.cond(
                there, lambda: train(batch.get_value()), lambda: logs
            )
            return done + tf.cast(there, done.dtype), there, logs

        with updates(model):
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


def step(model, method, own):
    """Returns the function (batch) -> logs of one step of a model.

    Args:
        model: A compiled and built `keras.Model`.
        method: Its `train_step` or its `test_step`.
        own: Whether that is not Keras's: its logs are then what it says;
            otherwise there are none, as metrics are read once a call.
    """
    logs_of = _logs_of(model, own)
    if replicas.count(model) > 1:
        return replica_steps.of_batch(model, method, logs_of)
    strategy = model.distribute_strategy
    return lambda batch: logs_of(strategy.run(method, args=(batch,)))


def has_own_step(model):
    """Returns whether a model trains by a step that is not Keras's."""
    if _is_wrapper(model):
        return model.has_own_step()
    return type(model).train_step is not keras.Model.train_step


def has_own_test_step(model):
    """Returns whether a model is tested by a step that is not Keras's."""
    if _is_wrapper(model):
        return model.has_own_step() or has_own_test_step(model.inner)
    return type(model).test_step is not keras.Model.test_step


def _is_wrapper(model):
    return hasattr(model, "has_own_step")


def _step_of(model, recipe):
    """Returns the function (tensors, seeds, step) -> logs of one step."""
    own = has_own_step(model)
    if replicas.count(model) > 1:
        return replica_steps.of_recipe(model, recipe, _logs_of(model, own))
    train = step(model, model.train_step, own)
    return lambda *where: train(recipe.batch(*where))


def _logs_of(model, own):
    """Returns a function from what replicas return to the logs of a step."""
    if not own:
        return lambda logs: {}
    if replicas.count(model) == 1:
        return lambda logs: logs
    return functools.partial(replicas.mean, model.distribute_strategy)


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


def updates(model):
    """Has what is traced meanwhile update by fused kernels, where they serve.

    They leave pruned weights at zero by themselves, so that only a user's own
    constraint has to be applied. On several replicas gradients are summed.
    """
    optimizer = model.optimizer
    if fused.reason(optimizer) is not None:
        if replicas.count(model) == 1:
            return contextlib.nullcontext()
        return holding.updated_by(optimizer, shares.apply)
    trained = keras_private.trained_by(optimizer)
    kept = fused.update(optimizer, constraints=any(map(_is_bound, trained)))

    def update(optimizer, gradients, variables=None):
        gradients = shares.summed(gradients)
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
