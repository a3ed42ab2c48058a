"""The step loop: many training steps in one call of one compiled function.

Arrays stay on the device and every batch is gathered from its step number, so
that nothing is prepared in Python between two steps. A function is traced once
for a model, a recipe of batches and an attachment of masks: levels, controls
and replicates change values, which are arguments or variables.
"""

import contextlib
import time

import keras
import tensorflow as tf

from keras_lottery.training import enforce
from keras_lottery.training import fused
from keras_lottery.training import holding
from keras_lottery.training import keras_private

SECONDS = 0.25  # of a call: Ctrl-C and progress are seen at least that often


class StepLoop:
    """Trains a compiled model on an `ArrayFeed`, from any step to any other.

    Args:
        model: A compiled `keras.Model`, not distributed over several replicas.
    """

    def __init__(self, model):
        self._model = model
        self._functions = {}
        self._per_call = 1

    def run(self, feed, first, last, told=lambda step, logs: None):
        """Trains steps `first` to `last`; returns the logs of the last call.

        Args:
            feed: An `ArrayFeed`.
            first: The step to begin with.
            last: The step to end before.
            told: Called after every call of the compiled function with the
                step reached and the logs so far, floats by name.
        """
        logs = {}
        while first < last:
            first, logs = self.call(feed, first, last)
            told(first, logs)
        return logs

    def call(self, feed, first, last):
        """Trains as many steps as one call has, to `last` at most.

        Returns:
            The step reached, and the logs so far, floats by name.
        """
        steps = self._function(feed)
        count = min(self._per_call, last - first)
        began = time.perf_counter()
        found = steps(feed.tensors, feed.seeds, _number(first), _number(count))
        logs = {name: _plain(value) for name, value in found.items()}
        self._pace(count, time.perf_counter() - began)
        return first + count, logs

    def _pace(self, count, seconds):
        """Chooses how many steps the next call has."""
        wanted = max(1, int(SECONDS * count / max(seconds, 1e-6)))
        # The first call traces, and single steps say little: grow by steps.
        self._per_call = min(wanted, 8 * self._per_call)

    def _function(self, feed):
        recipe = feed.recipe
        if recipe not in self._functions:
            first = recipe.batch(feed.tensors, feed.seeds, _number(0))
            keras_private.build_compiled(self._model, first)
            self._functions[recipe] = _compiled(self._model, recipe)
        return self._functions[recipe]


def of(model):
    """Returns the `StepLoop` of a model under the masks that hold now.

    A traced function keeps the masks and the optimizer that it saw, so there is
    one for each attachment, and new ones after every `compile`.
    """
    held = enforce.attachment(model) if enforce.is_attached(model) else None
    compiled = keras_private.compilation(model)
    loops = vars(model).setdefault("_lottery_loops", {})
    for key, (of_compiled, _) in list(loops.items()):
        other = None not in (key, held) and key is not held
        if of_compiled is not compiled or other:
            del loops[key]
    if held not in loops:
        loops[held] = compiled, StepLoop(model)
    return loops[held][1]


def _plain(value):
    value = value.numpy()
    return float(value) if value.ndim == 0 else value


def _number(step):
    return tf.constant(step, tf.int64)


def _compiled(model, recipe):
    own = type(model).train_step is not keras.Model.train_step
    strategy = model.distribute_strategy

    @tf.function(autograph=False)
    def steps(tensors, seeds, first, count):
        def step(number):
            batch = recipe.batch(tensors, seeds, number)
            logs = strategy.run(model.train_step, args=(batch,))
            # Metrics are read once a call; a step of one's own says others.
            return logs if own else {}

        def body(number, logs):
            del logs
            return number + 1, step(number)

        with _fused(model):
            logs = step(first)
            _, logs = tf.while_loop(
                lambda number, logs: number < first + count,
                body,
                (first + 1, logs),
            )
        return logs if own else model.get_metrics_result()

    return steps


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
