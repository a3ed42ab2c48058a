"""Saving `fit` on the way: whether, where, and how finely."""

import contextlib

import keras

from keras_lottery.tickets import fit_identity
from keras_lottery.tickets.fit_folder import FitFolder
from keras_lottery.tickets.fit_saver import Saver
from keras_lottery.training import checkpoint
from keras_lottery.training import replicas
from keras_lottery.training import stopping
from keras_lottery.training import workers
from keras_lottery.training.array_feed import ArrayFeed


class Unsaved:
    """Stands where nothing is saved.

    Attributes:
        found_all: Whether what is done so far comes from a folder.
    """

    found_all = False

    def go_on(self, progress, lottery=None):
        """Returns the progress as it is."""
        del lottery
        return progress

    def steps_done(self, first_step):
        """Returns the step that a training begins at: the one given."""
        return first_step

    def stops(self, first_step):
        """Returns no steps at which a call has to end."""
        del first_step
        return ()

    def callbacks(self, steps, curve, masks):
        """Returns no callbacks."""
        del steps, curve, masks
        return []

    def plain(self, columns):
        """Returns the columns of a history as they are."""
        return columns

    def finish(self, ticket):
        """Does nothing."""


@contextlib.contextmanager
def kept(training, folder, steps=None, seconds=None):
    """Yields what saves the trainings of one `fit`.

    Args:
        training: The `Training`.
        folder: Where to save, or None.
        steps: Steps between two checkpoints, or None to go by time.
        seconds: Seconds between two; None for 30.

    Raises:
        ValueError: What is trained cannot be saved on the way.
    """
    if folder is None:
        if steps is not None or seconds is not None:
            raise ValueError(
                "checkpoint_steps and checkpoint_seconds say how often to "
                "save: say where, too, with checkpoint_dir."
            )
        yield Unsaved()
        return
    pruned = training.pruned
    _check(pruned, training.callbacks)
    pruned.hold_optimizer()
    seconds = checkpoint.SECONDS if seconds is None else seconds
    pace = checkpoint.Pace(steps, seconds)
    stem = "level" if pruned.settings.in_levels else "training"
    folder = FitFolder(folder, fit_identity.of(pruned, training), stem)
    with folder.locked(), stopping.heard() as heard, heard.deferred():
        yield Saver(training, folder, pace, _finest(training), heard)
        if heard.asked is not None:  # since the last look
            heard.obey()


def _check(pruned, callbacks):
    if workers.several(pruned.distribute_strategy):
        raise ValueError(
            "checkpoint_dir is for one process; here several train together. "
            "Leave it out and save tickets, or use `keras-lottery run`."
        )
    if any(isinstance(c, keras.callbacks.BackupAndRestore) for c in callbacks):
        raise ValueError(
            "BackupAndRestore and checkpoint_dir both say where training goes "
            "on: leave out the callback."
        )


def _finest(training):
    """Returns where a training can go on: at any `"step"`, or at an `"epoch"`.

    Or only at the beginning of a `"level"`. On several replicas statistics
    agree at the ends of epochs; a `train_step` of one's own makes its metrics
    while it is traced.
    """
    pruned = training.pruned
    feed = training.feed
    if not isinstance(feed, ArrayFeed) and not feed.goes_on(training.epochs):
        return "level"
    plain = replicas.count(pruned) == 1 and not pruned.has_own_step()
    return "step" if training.by_steps and plain else "epoch"
