"""One call of `fit`: the trainings that it consists of."""

import logging

import keras

from keras_lottery.tickets.fit_checkpoints import Unsaved
from keras_lottery.training import agreement
from keras_lottery.training import callbacks as hooks
from keras_lottery.training import early_stopping
from keras_lottery.training import step_fit

log = logging.getLogger(__name__)


class Training:
    """One call of `fit`: the same data and callbacks, level after level.

    Attributes:
        history: Keras's `History` over all levels.
        initial_step: Where a level begins that would begin before.
        last: (epochs, columns of the history) of the last training.
        saver: What saves on the way; see `fit_checkpoints`.
    """

    def __init__(self, pruned, keras_fit, feed, epochs, callbacks, arguments):
        self.pruned, self.keras_fit = pruned, keras_fit
        self.feed, self.epochs = feed, epochs
        self.callbacks, self.arguments = callbacks, arguments
        self.initial_step, self.saver = 0, Unsaved()
        self._stepping = self._step_fit()
        self._train = self._stepping or self._by_keras
        self.history = keras.callbacks.History()
        self.history.set_model(pruned)
        self.history.history, self.history.epoch = {}, []

    def run(self, first_step, where, at=None, before=(), stops=()):
        """Trains once, from a step to the end; returns the metrics.

        Args:
            first_step: Where to start; it may lie inside an epoch.
            where: What to call this training, in errors.
            at: Dict from step to a function called when it is done.
            before: Callbacks that come before the user's.
            stops: Steps between which they have to be called.
        """
        began = max(first_step, self.initial_step)
        first_step = self.saver.steps_done(began)
        steps = hooks.Steps(self.feed, self.epochs, first_step, at or {})
        curve = hooks.Curve(steps)
        masks = hooks.Masks()
        guard = hooks.StopOnDivergence(steps, where)
        settle = hooks.Settle(
            lambda: agreement.settle_statistics(self.pruned.inner)
        )
        told = [settle, steps, guard, curve, masks, *before, *self.callbacks]
        told += self.saver.callbacks(steps, curve, masks)
        stops = {*(at or ()), *stops, *self.saver.stops(first_step)}
        history = self._train(first_step, told, stops, began)
        self._note(history, masks)
        return early_stopping.summarize(curve.rows)

    @property
    def by_steps(self):
        """Whether the step loop trains, and not Keras's own `fit`."""
        return self._stepping is not None

    @property
    def mode(self):
        """How steps are compiled; None where Keras decides."""
        return self._stepping.mode if self.by_steps else None

    @mode.setter
    def mode(self, wanted):
        if self.by_steps and wanted is not None:
            self._stepping.wanted = wanted

    def _step_fit(self):
        """Returns the `StepFit`, or None where Keras's own `fit` has to train.

        It trains as `_by_keras` does.
        """
        pruned = self.pruned
        why = step_fit.reason_against(pruned, self.feed, self.callbacks)
        if why is not None:
            log.info("Keras's own fit trains, step by step: %s.", why)
            return None
        name = step_fit.watching(self.callbacks)
        if name is not None:
            log.info(
                "%s has a hook for every step, so that each step is a call of "
                "its own: for a small network that takes longer than the step.",
                name,
            )
        pruned.hold_optimizer()
        return step_fit.StepFit(pruned, self.feed, self.epochs, self.arguments)

    def _by_keras(self, first_step, callbacks, stops, began):
        """Trains from a step to the end; returns the `History`.

        Args:
            first_step: Where to begin.
            callbacks: Keras callbacks; the second is a `Steps`.
            stops: Steps that the callbacks have to see.
            began: Ignored: what Keras trains goes on at the ends of epochs.
        """
        del began
        self._check_steps({first_step, *stops})
        return self.keras_fit(
            **self.feed.arguments(first_step),
            **self.arguments,
            initial_epoch=self.epochs.place(first_step)[0],
            callbacks=[*callbacks, hooks.CutEpoch(callbacks[1])],
        )

    def announce(self):
        """Says which level begins, where Keras shows progress."""
        if self.arguments["verbose"] not in (0, "0"):
            mask = self.pruned.mask
            print(
                f"Level {self.pruned.level}: {mask.kept:,} of {mask.size:,} "
                f"weights ({mask.density:.1%})"
            )

    def _note(self, history, masks):
        columns = self.saver.plain(
            {
                **history.history,
                "level": masks.levels,
                "sparsity": masks.sparsities,
            }
        )
        self.last = list(history.epoch), columns
        self.extend(*self.last)

    def extend(self, epochs, columns):
        """Adds the epochs of a training to the history.

        Args:
            epochs: List of their numbers.
            columns: Dict from name to list.
        """
        self.history.epoch.extend(epochs)
        for name, column in columns.items():
            self.history.history.setdefault(name, []).extend(column)

    def _check_steps(self, wanted):
        """Keras calls back once per call: steps inside one cannot be met."""
        a_call = self.pruned.steps_per_execution
        for step in wanted:
            inside = step % self.epochs.per_epoch
            if inside % a_call or (inside and self.epochs.per_epoch % a_call):
                raise ValueError(
                    f"Step {step} lies inside a call of steps_per_execution="
                    f"{a_call} steps. Compile with steps_per_execution=1, or "
                    "choose a step between two calls."
                )
