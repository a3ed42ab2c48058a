"""Checkpoints inside a level of a run, and how a training goes on from one."""

import contextlib
import json
import logging
import time

import numpy as np

from keras_lottery.errors import RunError
from keras_lottery.runs import conditions
from keras_lottery.runs import paths
from keras_lottery.runs import writing
from keras_lottery.training import checkpoint
from keras_lottery.training import enforce
from keras_lottery.training import replicas
from keras_lottery.training import state
from keras_lottery.training import workers
from keras_lottery.training.compiling import MODES

_KINDS = {
    "step": (int,),
    "inside": (bool,),
    "rows": (list,),
    "mode": (str,),
    "seconds": (int, float),
    "conditions": (dict,),
    "changed": (list,),
}

log = logging.getLogger(__name__)


class Saver:
    """Saves the trainings of a run on the way, and puts them back.

    Several processes that train together save only whole levels: what each of
    them holds inside one would have to be agreed upon first.

    Args:
        experiment: The `Experiment`.
        directory: Its `RunDirectory`, locked.
        stopping: The `Stopping` that hears signals.
    """

    def __init__(self, experiment, directory, stopping):
        wanted = experiment.config.checkpoint
        self._experiment, self._directory = experiment, directory
        self._stopping = stopping
        self._pace = checkpoint.Pace(wanted.steps or None, wanted.seconds)
        self._saves = not workers.several(experiment.strategy)
        self._began, self._before = time.time(), 0.0
        self._found, self._changed = None, []

    @contextlib.contextmanager
    def training(self, where, parents):
        """What is trained inside is saved, and goes on from where it was.

        Args:
            where: (replicate, arm, level).
            parents: As `records.pack` takes: a checkpoint of what came from
                other tickets is not used.
        """
        folder = paths.of_level(self._directory.path, *where)
        of = described(self._directory.identity, where, parents)
        self._checkpoints = checkpoint.Checkpoints(folder, of)
        self._found = None
        if self._saves:
            self._found = self._checkpoints.newest(_check_record)
        self._began, self._before = time.time(), 0.0
        self._changed = []
        if not self._saves:
            yield
            return
        with self._stopping.deferred():
            yield

    def times(self):
        """Returns (when this training began, its seconds so far)."""
        return self._began, self._before + time.time() - self._began

    def done(self):
        """Removes the checkpoints of a level that is saved."""
        self._checkpoints.clear()

    def obey(self):
        """Stops between two trainings, where a signal has asked to."""
        if self._stopping.asked is not None:
            self._stopping.obey()

    def find(self, model):
        """Returns the checkpoint that this training goes on from, or None.

        Under other conditions, such as another number of threads, no work is
        lost, but the level's bits are those of neither: its row says so.

        Args:
            model: The `keras.Model`, under its masks.
        """
        found, self._found = self._found, None
        if found is None:
            return None
        record = found.record
        if not _same_masks(model, found.arrays):
            log.warning(
                "The checkpoint of step %d is not used, as it has other masks: "
                "the level is trained from its beginning.",
                record["step"],
            )
            return None
        self._before, self._changed = record["seconds"], record["changed"]
        now = self._conditions(model, record["mode"])
        for name, value in now.items():
            if record["conditions"].get(name) != value:
                was = record["conditions"].get(name)
                self._changed.append(f"{name} {was}, then {value}")
        if self._changed:
            log.warning(
                "Conditions have changed inside this level, so that its last "
                "bits are those of neither: %s.",
                self.changed,
            )
        self._pace.begin(record["step"])
        return found

    @property
    def changed(self):
        """Which conditions have changed inside this training, as text."""
        return "; ".join(self._changed)

    def begin(self, step):
        """Told that a training begins at a step, without a checkpoint."""
        self._pace.begin(step)

    def offer(self, trainer, step, *, inside):
        """Saves if that is due; stops where a signal has asked to.

        Args:
            trainer: The `Trainer`.
            step: How many steps are trained.
            inside: Whether between two validations, so that metrics have
                states that count.
        """
        if not self._saves:
            return
        model = trainer.model
        if inside and replicas.count(model) > 1:
            return  # each has its own statistics until the next validation
        asked = self._stopping.asked is not None
        if not asked and not self._pace.due(step):
            return
        with self._pace.saving(step):
            self._save(trainer, step, inside)
        if asked:
            self._stopping.obey()

    def _save(self, trainer, step, inside):
        model = trainer.model
        _, seconds = self.times()
        record = {
            "step": step,
            "inside": inside,
            "rows": trainer.rows,
            "mode": trainer.mode,
            "seconds": seconds,
            "conditions": self._conditions(model, trainer.mode),
            "changed": self._changed,
        }
        snapshots = {"now": state.snapshot(model, model.optimizer)}
        if trainer.past_point:
            snapshots["point"] = trainer.point
        arrays = {f"mask/{k}": v for k, v in _masks(model).items()}
        if inside:
            arrays |= checkpoint.metric_values(model)
        with writing.explained(self._directory.path, "a checkpoint"):
            self._checkpoints.save(
                checkpoint.Checkpoint(record, snapshots, arrays)
            )

    def _conditions(self, model, mode):
        strategy = self._experiment.config.distribute.strategy
        # As JSON gives it back.
        return json.loads(json.dumps(conditions.of(model, strategy, mode)))


def _check_record(found):
    """Raises a RunError unless a checkpoint is one that `_save` wrote."""
    for name, kinds in _KINDS.items():
        value = found.record.get(name)
        if type(value) not in kinds:
            raise RunError(f"its {name} is {value!r:.80}.")
    if found.record["mode"] not in MODES or "now" not in found.snapshots:
        raise RunError("it is no checkpoint of a run.")


def described(identity, where, parents):
    """Returns what the checkpoints of a training are of, as text."""
    return json.dumps([identity, *where, parents], sort_keys=True)


def _masks(model):
    """Returns the masks that hold, packed; none of a dense network."""
    if not enforce.is_attached(model):
        return {}
    return enforce.attachment(model).mask.pack()


def _same_masks(model, arrays):
    now = {f"mask/{name}": bits for name, bits in _masks(model).items()}
    then = {k: v for k, v in arrays.items() if k.startswith("mask/")}
    return now.keys() == then.keys() and all(
        np.array_equal(now[name], then[name]) for name in now
    )
