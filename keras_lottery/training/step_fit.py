"""One Keras training by the step loop: what `fit` does, without iterators.

Callbacks see calls of many steps, as with Keras's `steps_per_execution`. How
many depends on the time that they take, and changes nothing else.
"""

import bisect
import sys

import keras

from keras_lottery.training import compiling
from keras_lottery.training import feeds
from keras_lottery.training import loop
from keras_lottery.training.array_feed import ArrayFeed
from keras_lottery.training.callbacks import hears
from keras_lottery.training.streams import Stream
from keras_lottery.training.validation import Validation

_STEP_HOOKS = (
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_batch_begin",
    "on_batch_end",
)


def reason_against(model, feed, callbacks):
    """Returns why Keras's own `fit` has to train, or None.

    Args:
        model: A compiled `keras.Model`.
        feed: A feed of `feeds`.
        callbacks: The user's.
    """
    if not isinstance(model, keras.Model):
        return "the model is one of tf_keras"
    if isinstance(feed, feeds.KerasFeed):
        return "its input is made in Python, batch by batch"
    if model.run_eagerly:
        return "it is compiled with run_eagerly=True"
    for limit in ("max_epochs", "max_steps_per_epoch"):
        if getattr(keras.config, limit, lambda: None)() is not None:
            return f"keras.config.{limit}() is set"
    if any(isinstance(c, keras.callbacks.BackupAndRestore) for c in callbacks):
        return "BackupAndRestore chooses the epoch to begin with"
    return None


def watching(callbacks):
    """Returns the name of a callback that is called at every step, or None.

    Of a user's own; Keras's count the steps of a call.
    """
    for callback in callbacks:
        if _counts_steps(callback):
            return type(callback).__name__
        home = type(callback).__module__.split(".")[0]
        own = home not in ("keras", "keras_lottery")
        for name in _STEP_HOOKS:
            # Lambdas of Keras's LambdaCallback are a user's own.
            if name in vars(callback) or (own and hears(callback, name)):
                return type(callback).__name__
    return None


class StepFit:
    """Trainings of one model on the same data, one after the other.

    Args:
        model: A compiled `keras.Model` that `reason_against` has nothing
            against.
        feed: An `ArrayFeed` or a `DatasetFeed`.
        epochs: The `Epochs` of a training.
        arguments: Those of `fit`: `verbose` and what concerns validation.

    Attributes:
        wanted: How steps are to be compiled: `"graph"` or `"xla"`.
    """

    def __init__(self, model, feed, epochs, arguments):
        self._model, self._feed, self._epochs = model, feed, epochs
        self._verbose = arguments.get("verbose", "auto")
        self._validation = Validation(model, arguments)
        self.wanted = compiling.mode(model, epochs.steps)

    @property
    def mode(self):
        """How steps are compiled: `"graph"`, too, where XLA could not."""
        return loop.of(self._model, self.wanted).mode

    def __call__(self, first_step, callbacks, stops=(), began=None):
        """Trains from a step to the end; returns the `History`.

        Args:
            first_step: Where to begin; it may lie inside an epoch.
            callbacks: Keras callbacks; a user's own that has hooks for steps
                gets every one of them.
            stops: Steps at which a call has to end, so that they see them.
            began: Where a training that goes on once began: callbacks then see
                the numbers of batches that they would have seen.
        """
        model, epochs = self._model, self._epochs
        hooks = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            add_progbar=self._verbose != 0,
            verbose=self._verbose,
            epochs=epochs.count,
            steps=epochs.per_epoch,
            model=model,
        )
        training = _Training(
            loop.of(model, self.wanted),
            self._source(first_step),
            hooks,
            stops,
            _limit(model, callbacks),
        )
        model.stop_training = False
        step, logs = first_step, {}
        began = first_step if began is None else began
        hooks.on_train_begin()
        for epoch in range(epochs.place(first_step)[0], epochs.count):
            model.reset_metrics()
            hooks.on_epoch_begin(epoch)
            last = (epoch + 1) * epochs.per_epoch
            zero = max(began, epoch * epochs.per_epoch)
            logs = training.epoch(step, last, zero)
            logs |= self._validation(epoch, hooks)
            hooks.on_epoch_end(epoch, logs)
            step = last
            if model.stop_training:
                break
        model.optimizer.finalize_variable_values(model.trainable_variables)
        hooks.on_train_end(logs)
        return model.history

    def _source(self, first_step):
        if isinstance(self._feed, ArrayFeed):
            return self._feed
        return self._feed.stream(first_step, self._model.distribute_strategy)


class _Training:
    """The steps of one training, in calls that its callbacks see.

    Args:
        steps: The `StepLoop`.
        source: An `ArrayFeed` or a `Stream`.
        hooks: Keras's `CallbackList`.
        stops: Steps at which a call has to end.
        limit: Steps of a call at most.
    """

    def __init__(self, steps, source, hooks, stops, limit):
        self._steps, self._source, self._hooks = steps, source, hooks
        self._stops, self._limit = sorted(stops), limit

    def epoch(self, first, last, zero):
        """Trains to the end of an epoch, or to where a callback stops it.

        Args:
            first: Step to begin at.
            last: Step to end at.
            zero: Step that callbacks see as batch 0.
        """
        if isinstance(self._source, Stream):
            self._source.start_epoch()
        step, logs = first, {}
        while step < last and not self._source.ended():
            self._hooks.on_train_batch_begin(step - zero)
            end = self._end(step, last)
            reached, told = self._steps.call(self._source, step, end)
            if reached == step:  # data ran out
                break
            step, logs = reached, told
            self._hooks.on_train_batch_end(step - 1 - zero, logs)
            # Looked at here, as Keras does: one call at least.
            if self._hooks.model.stop_training:
                break
        return dict(logs)

    def _end(self, step, last):
        # A stop asked for before the call: Keras then trains a step.
        limit = 1 if self._hooks.model.stop_training else self._limit
        place = bisect.bisect_right(self._stops, step)
        stop = self._stops[place] if place < len(self._stops) else last
        return min(last, stop, step + limit)


def _limit(model, callbacks):
    """Returns the most steps of a call; the loop has a limit of its own."""
    if watching(callbacks) is not None:
        return 1
    if model.steps_per_execution > 1:
        return model.steps_per_execution
    return sys.maxsize


def _counts_steps(callback):
    """Returns whether a callback of Keras acts every so many steps."""
    every = [getattr(callback, n, None) for n in ("save_freq", "update_freq")]
    return any(isinstance(each, int) for each in every)
