"""How `PrunedModel.fit` plays: one Keras training per level."""

import logging

import keras

from keras_lottery import checks
from keras_lottery import seeds
from keras_lottery.tickets import in_place
from keras_lottery.tickets import lottery as lotteries
from keras_lottery.tickets import search
from keras_lottery.training import agreement
from keras_lottery.training import callbacks as hooks
from keras_lottery.training import early_stopping
from keras_lottery.training import feeds
from keras_lottery.training import step_fit
from keras_lottery.training import workers

log = logging.getLogger(__name__)


class Played:
    """What `fit` has done so far; not part of a saved model."""

    def __init__(self):
        self.tickets = []
        self.progress = lotteries.Progress()
        self.after = None
        self.compiled_for = None  # the optimizer that the inner model steps by


def fit(
    pruned,
    keras_fit,
    x=None,
    y=None,
    *,
    batch_size=None,
    epochs=1,
    verbose="auto",
    callbacks=None,
    validation_split=0.0,
    validation_data=None,
    shuffle=True,
    class_weight=None,
    sample_weight=None,
    initial_epoch=0,
    steps_per_epoch=None,
    **validation,
):
    """Plays the lottery on a `PrunedModel`; see its `fit`.

    Args:
        pruned: The `PrunedModel`.
        keras_fit: `keras.Model.fit` bound to it.
        **validation: `validation_steps` and others, for Keras.
    """
    if validation_split and validation_data is None:
        (x, y, sample_weight), validation_data = feeds.split(
            x, y, sample_weight, validation_split
        )
    feed = feeds.make(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        shuffle=shuffle,
        class_weight=class_weight,
        seed=seeds.stream(pruned.settings.seed, "data order"),
    )
    epochs = feeds.Epochs(feed.per_epoch, checks.whole("epochs", epochs, 1))
    if batch_size is not None:
        validation.setdefault("validation_batch_size", batch_size)
    arguments = {
        "epochs": epochs.count,
        "verbose": verbose,
        "validation_data": validation_data,
        **validation,
    }
    training = Training(
        pruned, keras_fit, feed, epochs, _as_list(callbacks), arguments
    )
    training.initial_step = initial_epoch * feed.per_epoch
    play = _in_levels if pruned.settings.in_levels else in_place.play
    with workers.watched(pruned.distribute_strategy):
        play(pruned, training)
    pruned.history = training.history
    return training.history


class Training:
    """One call of `fit`: the same data and callbacks, level after level."""

    def __init__(self, pruned, keras_fit, feed, epochs, callbacks, arguments):
        self.pruned, self.keras_fit = pruned, keras_fit
        self.feed, self.epochs = feed, epochs
        self.callbacks, self.arguments = callbacks, arguments
        self.initial_step = 0
        self._train = self._stepping() or self._by_keras
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
        first_step = max(first_step, self.initial_step)
        steps = hooks.Steps(self.feed, self.epochs, first_step, at or {})
        curve = hooks.Curve(steps)
        masks = hooks.Masks()
        guard = hooks.StopOnDivergence(steps, where)
        settle = hooks.Settle(
            lambda: agreement.settle_statistics(self.pruned.inner)
        )
        told = [settle, steps, guard, curve, masks, *before, *self.callbacks]
        history = self._train(first_step, told, {*(at or ()), *stops})
        self._extend(history, masks)
        return early_stopping.summarize(curve.rows)

    def _stepping(self):
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

    def _by_keras(self, first_step, callbacks, stops):
        """Trains from a step to the end; returns the `History`.

        Args:
            first_step: Where to begin.
            callbacks: Keras callbacks; the second is a `Steps`.
            stops: Steps that the callbacks have to see.
        """
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

    def _extend(self, history, masks):
        columns = {
            **history.history,
            "level": masks.levels,
            "sparsity": masks.sparsities,
        }
        self.history.epoch.extend(history.epoch)
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


def _in_levels(pruned, training):
    played, settings = pruned.played, pruned.settings
    lottery = settings.lottery(
        pruned.inner,
        training.epochs.steps,
        optimizer=lambda: pruned.optimizer,
    )
    progress = played.progress
    if progress.begin is None:  # nothing trained by this object yet
        progress.level = pruned.level
    _check_can_go_on(pruned, progress, lottery)
    training.feed.check_start(lottery.first_step(1))  # refused now, or never
    pruned.hold_optimizer()
    if played.after is not None:
        progress.continue_after(played.after, lottery)
        played.after = None

    def train(level, first_step, capture):
        pruned.note_level(level)
        training.announce()
        at = {}
        if level == 0 and lottery.rewind_step:
            at[lottery.rewind_step] = capture
        metrics = training.run(first_step, f"level {level}", at)
        if level == 0 and progress.point is None and lottery.rewind_step:
            raise ValueError(
                f"Level 0 was stopped before rewind_step={lottery.rewind_step}"
                " was reached, so there is no point to rewind to."
            )
        return metrics

    with lottery.held_rate(pruned):
        attachment = pruned.attachment
        for found in search.levels(lottery, train, attachment, progress):
            played.tickets.append(found)


def _check_can_go_on(pruned, progress, lottery):
    if progress.finished(lottery.levels):
        raise ValueError(
            f"All {lottery.levels} levels are played. Look at "
            "`pruned.tickets`, prune `pruned.strip()` further, or train one "
            "ticket on: `with lottery.masked(model, ticket.mask): "
            "model.fit(...)`."
        )
    loaded = progress.level > 0 and progress.point is None
    more = progress.level < lottery.levels and pruned.played.after is None
    if loaded and more:
        raise ValueError(
            f"This model was loaded at level {progress.level}, and the point "
            "that later levels rewind to is not in a .keras file. Continue "
            "from a ticket: `pruned.continue_from(Ticket.load(path))`."
        )


def _as_list(callbacks):
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        raise ValueError(
            "Pass `callbacks` as a list: a CallbackList is bound to one "
            "training, and a lottery is many."
        )
    return (
        list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    )
