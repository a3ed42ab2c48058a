"""Plays an experiment: replicates, and in each the ticket and its controls."""

import contextlib

from keras_lottery.runs import parts
from keras_lottery.runs.player import Player
from keras_lottery.runs.saver import Saver
from keras_lottery.training import determinism
from keras_lottery.training import stopping
from keras_lottery.training import workers

KEEP = ("tickets", "all")


class Silence:
    """Hears how far a run is, and says nothing."""

    def start(self, steps):
        """Told how many steps are to be trained in all."""

    def begin(self, replicate, arm, level, density):
        """Told what is trained next."""

    def advance(self, steps):
        """Told that so many steps are trained."""

    def end(self, row, seconds):
        """Told that a training is done, and what came out."""


def play(experiment, directory, listener=None, *, keep="tickets"):
    """Trains what is not there yet; returns the rows of all that is.

    Args:
        experiment: The `Experiment`.
        directory: Its `RunDirectory`, created.
        listener: Like `Silence`.
        keep: `"tickets"`: of the controls only their numbers are kept;
            `"all"`: their trained tickets too.

    Returns:
        List of dicts: replicate, arm, level, counts and metrics.

    Raises:
        RunError: Another process is working on the run, it cannot be written,
            or training diverged.
        WorkerLostError: A worker that trains with this one ended.
        Preempted: By SIGTERM, after a checkpoint was saved; by Ctrl-C a
            KeyboardInterrupt.
    """
    check_keep(keep)
    listener = listener or Silence()
    with _together(experiment, directory.lock()) as heard:
        directory.recover()
        workers.meet(experiment.strategy)  # all see what is left
        saver = Saver(experiment, directory, heard)
        Player(experiment, directory, saver, listener, keep).play()
        directory.save_tables()
    return directory.rows()


def play_part(experiment, directory, part, listener=None, *, keep="tickets"):
    """Trains what is not there yet of one part; others may be played beside.

    The numbers are those that `play` comes to.

    Args:
        experiment: The `Experiment`.
        directory: Its `RunDirectory`, joined.
        part: A `Part` of the experiment.
        listener: Like `Silence`.
        keep: As in `play`.

    Raises:
        RunError: Another process is working on the part or plays the whole
            run, its tickets are not there, or training diverged.
    """
    check_keep(keep)
    listener = listener or Silence()
    with _together(experiment, directory.lock_part(part)) as heard:
        parts.check_tickets(part, experiment, directory)
        levels = parts.levels(part, experiment)
        directory.recover([(*part, level) for level in levels])
        workers.meet(experiment.strategy)
        saver = Saver(experiment, directory, heard)
        Player(experiment, directory, saver, listener, keep, part).play()
        directory.save_tables_beside()


def check_keep(keep):
    """Raises a ValueError for a `keep` that is not known."""
    if keep not in KEEP:
        raise ValueError(f"`keep` must be one of {KEEP}, got {keep!r}.")


@contextlib.contextmanager
def _together(experiment, lock):
    """Plays under the lock and the strategy, with the other workers."""
    strategy = experiment.strategy
    wanted = experiment.config.train.deterministic
    with (
        lock,
        experiment.scope(),
        workers.watched(strategy),
        determinism.deterministic(wanted),
        stopping.heard() as heard,
    ):
        yield heard
