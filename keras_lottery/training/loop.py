"""The step loop: many training steps in one call of one compiled function.

Arrays stay on the device and every batch is gathered from its step number, so
that nothing is prepared in Python between two steps. A function is traced once
for a model, a recipe of batches and an attachment of masks: levels, controls
and replicates change values, which are arguments or variables.
"""

import logging
import time

import tensorflow as tf

from keras_lottery.training import agreement
from keras_lottery.training import enforce
from keras_lottery.training import keras_private
from keras_lottery.training import measure
from keras_lottery.training import programs
from keras_lottery.training import replicas

SECONDS = 0.25  # of a call: Ctrl-C and progress are seen at least that often

log = logging.getLogger(__name__)


class StepLoop:
    """Trains a compiled model on a feed, from any step to any other.

    Args:
        model: A compiled `keras.Model`.
        mode: `"graph"` or `"xla"`; streams, and steps on several replicas, run
            in graph mode.

    Attributes:
        mode: The mode that is used: `"graph"`, too, where XLA could not
            compile the training.
    """

    def __init__(self, model, mode="graph"):
        self.mode = mode
        self._model = model
        self._programs = {}
        self._placed = None  # (feed, its tensors on all devices)
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

    def prepare(self, feed):
        """Makes what the first call would: states of metrics, above all."""
        self._program(feed)

    def call(self, feed, first, last):
        """Trains as many steps as one call has, to `last` at most.

        Args:
            feed: An `ArrayFeed`, or a `Stream` that stands at step `first`.
            first: The step to begin with.
            last: The step to end before.

        Returns:
            The step reached, and the logs so far, floats by name. A stream may
            end before.
        """
        steps = self._program(feed)
        count = min(self._per_call, last - first, self._most(feed))
        began = time.perf_counter()
        try:
            done, found = steps(*self._arguments(feed, first, count))
        except tf.errors.OutOfRangeError:
            if feed.recipe is not None:  # arrays do not run out
                raise
            done, found = 0, {}
        feed.note(count, int(done))
        logs = measure.plain(found)
        self._pace(count, time.perf_counter() - began)
        return first + int(done), logs

    def _arguments(self, feed, first, count):
        arguments = feed.call(first, count)
        if replicas.count(self._model) == 1 or feed.recipe is None:
            return arguments
        if self._placed is None or self._placed[0] is not feed:
            strategy = self._model.distribute_strategy
            self._placed = feed, replicas.placed(strategy, feed.tensors)
        return self._placed[1], *arguments[1:]

    def _pace(self, count, seconds):
        """Chooses how many steps the next call has."""
        # Workers call together: what is read at the end of a call is summed.
        strategy = self._model.distribute_strategy
        seconds = agreement.mean(strategy, seconds)
        wanted = max(1, int(SECONDS * count / max(seconds, 1e-6)))
        # The first call traces, and single steps say little: grow by steps.
        self._per_call = min(wanted, 8 * self._per_call)

    def _most(self, feed):
        if self.mode == "xla" and feed.recipe is not None:
            return programs.capacity(feed.recipe)
        return self._per_call

    def _program(self, feed):
        if feed.key not in self._programs:
            if not programs.has_own_step(self._model):
                # A step of one's own says what it takes by being traced.
                keras_private.build_compiled(self._model, feed.example())
            self._programs[feed.key] = self._made(feed)
        return self._programs[feed.key]

    def _made(self, feed):
        if feed.recipe is None:
            return programs.stream(self._model)
        if self.mode == "xla" and programs.has_own_step(self._model):
            log.info("A train_step of one's own is trained in graph mode.")
            self.mode = "graph"
        if self.mode == "xla" and replicas.count(self._model) > 1:
            log.info("Several replicas are trained in graph mode.")
            self.mode = "graph"
        if self.mode == "xla":
            return self._or_graph(feed)
        return programs.graph(self._model, feed.recipe)

    def _or_graph(self, feed):
        """Returns a program under XLA, or one that XLA could not compile."""
        steps = programs.xla(self._model, feed.recipe)
        try:
            # No step is trained: only compiled.
            steps(*feed.call(0, 0))
        except (
            tf.errors.InvalidArgumentError,
            tf.errors.UnimplementedError,
            tf.errors.InternalError,
            tf.errors.NotFoundError,
        ) as error:
            reason = str(error).strip().splitlines()[0]
            log.info("XLA cannot compile this training: %s", reason)
            self.mode = "graph"
            return programs.graph(self._model, feed.recipe)
        return steps


def of(model, mode="graph"):
    """Returns the `StepLoop` of a model under the masks that hold now.

    A traced function keeps the masks and the optimizer that it saw, so there is
    one for each attachment, and new ones after every `compile`.
    """
    held = enforce.attachment(model) if enforce.is_attached(model) else None
    compiled = keras_private.compilation(model)
    loops = vars(model).setdefault("_lottery_loops", {})
    for key, (of_compiled, _) in list(loops.items()):
        other = None not in (key[0], held) and key[0] is not held
        if of_compiled is not compiled or other:
            del loops[key]
    if (held, mode) not in loops:
        loops[held, mode] = compiled, StepLoop(model, mode)
    return loops[held, mode][1]
