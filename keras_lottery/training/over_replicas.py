"""Keras's own `fit`, `evaluate` and `train_on_batch` on several replicas.

Keras 3 fails under `MultiWorkerMirroredStrategy` (keras issue 20585): it takes
a value of every replica for a tensor, and reduces scalars over an axis. With
these functions it trains, and its gradients are summed as in the step loop.
"""

import keras
import tensorflow as tf

from keras_lottery.training import keras_private
from keras_lottery.training import programs
from keras_lottery.training import replicas


class OverReplicas(keras.Model):
    """A Keras model whose training and test functions serve any strategy."""

    def make_train_function(self, force=False):
        """Makes the function that `fit` calls for some steps."""
        if replicas.count(self) == 1:
            super().make_train_function(force)
        elif self.train_function is None or force:
            own = programs.has_own_step(self)
            self.train_function = _function(self, self.train_step, own)

    def make_test_function(self, force=False):
        """Makes the function that `evaluate` calls for some steps."""
        if replicas.count(self) == 1:
            super().make_test_function(force)
        elif self.test_function is None or force:
            own = programs.has_own_test_step(self)
            self.test_function = _function(self, self.test_step, own)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if replicas.count(self) == 1:
            super()._maybe_symbolic_build(iterator, data_batch)
            return
        batch = data_batch
        if batch is None:
            batch = keras_private.example_of(iterator)
        keras_private.build_compiled(self, batch)


def _function(model, method, own):
    """Returns what Keras expects: a function of an iterator, to logs."""
    run = programs.step(model, method, own)

    @tf.function(autograph=False)
    def step(iterator):
        # `get_next` raises an error at the end of the data, which does not
        # keep the step behind it from having begun on nothing.
        batch = iterator.get_next_as_optional()
        there = batch.has_value()
        with programs.updates(model):
            return there, _only_if(there, lambda: run(batch.get_value()))

    result = tf.function(model.get_metrics_result, autograph=False)

    def function(iterator):
        if not isinstance(iterator, tf.distribute.DistributedIterator):
            iterator = _cut(model, next(iterator))  # of `train_on_batch`
            logs = step(iterator)[1]
            return logs if own else result()
        logs = None
        for _ in range(model.steps_per_execution):
            there, found = step(iterator)
            if not there:
                break
            logs = found
        if logs is None:
            raise StopIteration
        return logs if own else result()

    return function


def _only_if(there, step):
    """Returns the logs of a step that is run only where `there`; else zeros."""
    found = []

    def run():
        found.append(step())
        return found[0]

    def leave():
        # Traced after `run`: what the logs are is known.
        return tf.nest.map_structure(
            lambda each: tf.zeros(each.shape, each.dtype), found[0]
        )

    return tf.cond(there, run, leave)


def _cut(model, batch):
    """Returns an iterator over one batch, a part of it for each replica."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    # Without what is None, which a strategy cannot cut.
    batch = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    batch = tf.nest.map_structure(tf.convert_to_tensor, batch)
    dataset = tf.data.Dataset.from_tensors(batch)
    strategy = model.distribute_strategy
    return iter(strategy.experimental_distribute_dataset(dataset))
