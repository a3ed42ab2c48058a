"""Saves one call of `fit` in a folder, and goes on from there."""

import hashlib
import json
import logging

import keras
import numpy as np

from keras_lottery.tickets import fit_callbacks
from keras_lottery.tickets import fit_resuming
from keras_lottery.tickets import ticket_file
from keras_lottery.training import callback_states
from keras_lottery.training import checkpoint
from keras_lottery.training import keras_private
from keras_lottery.training import state
from keras_lottery.training.array_feed import ArrayFeed

log = logging.getLogger(__name__)


class Saver:
    """Saves one call of `fit` in a folder, and goes on from there.

    Args:
        training: The `Training`.
        folder: The `FitFolder`, locked.
        pace: The `Pace`.
        finest: Where it can go on: at a `"step"`, an `"epoch"`, a `"level"`.
        heard: The `Stopping` that hears signals.

    Attributes:
        found_all: Whether what is done so far comes from the folder.
    """

    def __init__(self, training, folder, pace, finest, heard):
        self._training, self._folder = training, folder
        self._pace, self._finest, self._heard = pace, finest, heard
        self._progress = self._found = self._watch = None
        self._given, self._told = callback_states.given(training.callbacks), ()
        self.found_all = False

    def go_on(self, progress, lottery=None):
        """Puts the model where the folder has it; returns the `Progress`.

        Args:
            progress: That of the model as it is.
            lottery: The `Lottery`; None for a schedule that prunes in place.
        """
        pruned = self._training.pruned
        resumed = fit_resuming.resume(pruned, self._folder, lottery)
        if resumed is None:
            self._progress, self._folder.first = progress, None
            return progress
        self._progress, self._found = resumed.progress, resumed.checkpoint
        self.found_all, pruned.played.after = True, None
        self._recall(resumed.finished)
        if self._found is not None:
            self._training.mode = self._found.record["mode"]
            if self._progress.trained:
                self._recall_callbacks()
                self._found = None
        return self._progress

    def _recall(self, finished):
        """Puts tickets and history of finished levels back."""
        played = self._training.pruned.played
        if self._training.pruned.settings.in_levels:
            played.tickets = []
        for ticket, record in finished:
            if not _is_last(played.tickets, record):
                played.tickets.append(ticket)
            history = record["history"]
            self._training.extend(history["epochs"], history["columns"])

    def steps_done(self, first_step):
        """Returns the step that a training begins at.

        Args:
            first_step: Where it begins if nothing of it was saved.
        """
        if self._found is None:
            return first_step
        return self._found.record["step"]

    def stops(self, first_step):
        """Returns the steps at which a call has to end, to be saved there."""
        every = self._pace.steps
        if every is None or self._finest != "step":
            return ()
        last = self._training.epochs.steps
        return range(first_step + every, last, every)

    def callbacks(self, steps, curve, masks):
        """Returns callbacks for one training, to come after all others.

        Args:
            steps: Its `Steps`.
            curve: Its `Curve`.
            masks: Its `Masks`.
        """
        history = keras.callbacks.History()
        self._watch = fit_callbacks.Watch(steps, curve, masks, history)
        return [history, fit_callbacks.OnTheWay(self)]

    def plain(self, columns):
        """Returns the columns of a history as they come back from a file."""
        return json.loads(json.dumps(columns, default=_plain))

    def finish(self, ticket):
        """Saves a level that is done; only its ticket is kept of it."""
        pruned, progress = self._training.pruned, self._progress
        epochs, columns = self._training.last
        history = {"epochs": epochs, "columns": columns}
        history["clock"] = int(pruned.clock.numpy())
        self._folder.finish(progress.level, ticket, history)
        progress.trained = True
        self._save(self._training.epochs.steps)
        if self._heard.asked is not None:
            self._heard.obey()

    # ------------------------------------------------- told by the callback

    def begun(self):
        """A training has begun: puts back what was saved of it.

        Or saves the first state: a model built anew has other first weights.
        """
        if self._found is not None:
            self._put_back()
        elif self._folder.first is None:
            self._folder.begin(_digest(self._progress.zero))
            self._save(self._watch.steps.step)
        self._pace.begin(self._watch.steps.step)

    def begun_epoch(self):
        """An epoch has begun; if it goes on, so do its metrics."""
        found = self._found
        if found is not None and found.record["inside"]:
            # Once more: callbacks have begun an epoch that had begun.
            self._put_back()
            self._build_metrics()
            checkpoint.restore_metrics(self._training.pruned, found.arrays)
        self._found = None

    def called(self):
        """A call of some steps is done."""
        asked = self._heard.asked is not None
        if self._finest != "step":
            if asked:
                self._heard.obey()  # to go on from the last checkpoint
            return
        step = self._watch.steps.step
        ends = step % self._training.epochs.per_epoch == 0
        if ends or self._training.pruned.stop_training:
            return  # the end of the epoch comes first
        if asked or self._pace.due(step):
            self._save(step, inside=True)
        if asked:
            self._heard.obey()

    def ended_epoch(self, epoch):
        """An epoch is done, and all other callbacks have seen it."""
        epochs = self._training.epochs
        last = epoch + 1 == epochs.count
        if last or self._training.pruned.stop_training:
            return  # the level is done
        asked = self._heard.asked is not None
        step = (epoch + 1) * epochs.per_epoch
        if self._finest != "level" and (asked or self._pace.due(step)):
            self._save(step)
        if asked:
            self._heard.obey()

    # ---------------------------------------------------------------- states

    def _save(self, step, *, inside=False):
        with self._pace.saving(step):
            self._folder.save(self._taken(step, inside))

    def _taken(self, step, inside):
        """Returns the `Checkpoint` of what is trained now."""
        training, progress = self._training, self._progress
        pruned = training.pruned
        now = state.snapshot(pruned.inner, pruned.optimizer)
        snapshots, same = fit_resuming.snapshots(now, progress)
        noted, arrays = callback_states.taken(training.callbacks, self._given)
        self._tell_left_out()
        arrays |= {f"mask/{k}": v for k, v in pruned.mask.pack().items()}
        if inside:
            arrays |= checkpoint.metric_values(pruned)
        record = {
            "level": progress.level,
            "trained": progress.trained,
            "prunings": pruned.level,
            "clock": int(pruned.clock.numpy()),
            "step": step,
            "inside": inside,
            "states": same,
            "callbacks": noted,
            "mode": training.mode,
            **self.plain(self._watch.noted()),
        }
        return checkpoint.Checkpoint(record, snapshots, arrays)

    def _tell_left_out(self):
        """Warns of what callbacks hold that is not kept; of each once."""
        found = callback_states.left_out(self._training.callbacks)
        new = [name for name in found if name not in self._told]
        if new:
            log.warning(
                "Not kept in checkpoints, so as the script makes it when "
                "training goes on: %s. Numbers, text, arrays, and lists, "
                "tuples and dicts of them are kept.", ", ".join(new),
            )  # fmt: skip
        self._told = found

    def _put_back(self):
        fit_resuming.put_back(self._training.pruned, self._found)
        self._watch.put_back(self._found.record)
        self._recall_callbacks()

    def _recall_callbacks(self):
        found = self._found
        callback_states.put_back(
            self._training.callbacks,
            found.record["callbacks"],
            found.arrays,
            self._given,
        )

    def _build_metrics(self):
        feed = self._training.feed
        feed = feed if isinstance(feed, ArrayFeed) else feed.stream(0)
        keras_private.build_compiled(self._training.pruned, feed.example())


def _is_last(found, record):
    """Returns whether a ticket is there, as the last one."""
    if not found:
        return False
    content = ticket_file.pack(found[-1])
    return hashlib.sha256(content).hexdigest() == record["ticket"]


def _plain(value):
    """Returns what JSON can hold for a value of NumPy or TensorFlow."""
    found = np.asarray(value)
    return str(value) if found.dtype == object else found.tolist()


def _digest(taken):
    """Returns the sha256 of a `Snapshot`, shortened."""
    found = hashlib.sha256()
    for name in sorted(taken.model):
        found.update(f"{name} {np.shape(taken.model[name])}".encode())
        found.update(np.ascontiguousarray(taken.model[name]).tobytes())
    for value in taken.optimizer or ():
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()[:32]
