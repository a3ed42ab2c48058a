"""A sweep: runs that differ in a grid of settings, trained part by part.

WORKDIR/sweeps/digits-0123456789ab/
    levels.csv               the rows of all its runs, and their settings
    logs/digits-.../replicate_0-ticket.log
"""

import hashlib
import os

import keras
import numpy as np

from keras_lottery import files
from keras_lottery.pruning import weights
from keras_lottery.runs import arms
from keras_lottery.runs import disk
from keras_lottery.runs import formats
from keras_lottery.runs import identity
from keras_lottery.runs import locks
from keras_lottery.runs import parts
from keras_lottery.runs import paths
from keras_lottery.runs import points as grids
from keras_lottery.runs.directory import RunDirectory
from keras_lottery.runs.trials import Trial

# The settings that data are read by, and a network is made from.
_READ_FROM = ("data.", "seed")
_BUILT_FROM = (*_READ_FROM, "model.", "train.loss", "train.optimizer")
# Copies of the weights that a trial holds at most: the network, its gradients,
# two slots, the first weights, the states of a rewind, a ticket's start and
# end, and one being written.
_COPIES = 16
# What TensorFlow takes for traced steps, threads and buffers: at its peak a
# trial of the bundled configs had up to 180 MB more than the rest of the sum.
_RUNTIME = 250_000_000


class Sweep:
    """The runs of a grid.

    Args:
        points: List of `Point`.
        workdir: Where runs are kept.

    Attributes:
        runs: Their `RunDirectory`s, in the order of the points.
        path: The sweep's own directory.

    Raises:
        ValueError: Two points are one run.
    """

    def __init__(self, points, workdir):
        self.points, self.workdir = points, os.fspath(workdir)
        self.runs = [RunDirectory.of(p.config, workdir) for p in points]
        names = [os.path.basename(run.path) for run in self.runs]
        for index, name in enumerate(names):
            if name in names[:index]:
                one = grids.said(points[names.index(name)].settings)
                raise ValueError(
                    f"The grid has one point twice: {one} and "
                    f"{grids.said(points[index].settings)} are the same run. "
                    "Leave one out."
                )
        hexes = hashlib.sha256(identity.canonical(sorted(names))).hexdigest()
        name = f"{points[0].config.name}-{hexes[:12]}"
        self.path = os.path.join(self.workdir, "sweeps", name)

    @property
    def table_path(self):
        """Path of the collected table."""
        return os.path.join(self.path, paths.LEVELS)

    def lock(self):
        """Returns a context that keeps other processes out of the sweep.

        Raises:
            RunError: It cannot be written, or another process is at it.
        """
        os.makedirs(self.path, exist_ok=True)
        return locks.whole(self.path)

    def create(self, command):
        """Makes the directories of the runs.

        Args:
            command: Function from a point to what makes its whole run.
        """
        for point, run in zip(self.points, self.runs):
            run.join(point.config, command(point))

    def trials(self, experiments, command):
        """Returns a `Trial` for every part that is not done.

        Args:
            experiments: Of each point, its `Experiment`.
            command: Function `(point, part)` to what Python is called with.
        """
        found = []
        for point, run, made in zip(self.points, self.runs, experiments):
            missing = [
                part
                for part in parts.of(made)
                if not parts.is_done(part, made, run)
            ]
            found += [
                Trial(
                    self._name(run, part),
                    tuple(command(point, part)),
                    self._log(run, part),
                    self._before(run, part, missing, made),
                )
                for part in missing
            ]
        # Controls wait for tickets: those of all runs come first.
        return sorted(found, key=lambda trial: len(trial.after))

    def rows(self):
        """Returns the rows of all runs, with their settings, in order."""
        return [
            {"run": os.path.basename(run.path), **_columns(point), **row}
            for point, run in zip(self.points, self.runs)
            for row in run.rows()
        ]

    def save_table(self):
        """Writes the collected table."""
        os.makedirs(self.path, exist_ok=True)
        files.write_whole(self.table_path, formats.as_csv(self.rows()))

    def _name(self, run, part):
        return f"{os.path.basename(run.path)}/{part}"

    def _log(self, run, part):
        name = f"replicate_{part.replicate}-{part.arm}.log"
        return os.path.join(self.path, "logs", os.path.basename(run.path), name)

    def _before(self, run, part, missing, experiment):
        """Returns the names of the trials that a part has to wait for."""
        before = [part.tickets] if part != part.tickets else []
        if experiment.config.train.compile == "measure":
            # One process measures; the others find its choice on disk.
            before.append(parts.Part(0, arms.TICKET))
        return tuple(
            self._name(run, each)
            for each in dict.fromkeys(before)
            if each in missing and each != part
        )


def share(experiments):
    """Lets experiments whose networks are built alike share network and data.

    For looking at them only: a grid of 100 learning rates needs one network.

    Args:
        experiments: List of `Experiment`; they are changed.

    Returns:
        Those that had one built, a list.
    """
    built = {}, {}
    for each in experiments:
        first = built[0].setdefault(_inside(each, _READ_FROM), each)
        each.data = first.data
        first = built[1].setdefault(_inside(each, _BUILT_FROM), each)
        each.model = first.model
    return list(built[1].values())


def _inside(experiment, prefixes):
    settings = identity.inside(experiment.config)
    return identity.canonical(
        {k: v for k, v in settings.items() if k.startswith(prefixes)}
    )


def needed_on_disk(sweep, experiments, keep):
    """Returns how many bytes the missing levels of all runs will take."""
    return sum(
        disk.estimate(made, run, keep=keep)
        for made, run in zip(experiments, sweep.runs)
    )


def needed_in_memory(experiment):
    """Estimates the bytes that training takes, beside loaded libraries.

    Data twice, as read and on the device; copies of the weights; what the
    layers of one batch give, forwards and backwards; and TensorFlow's own.

    Args:
        experiment: An `Experiment`.
    """
    data = experiment.data
    parts_of_data = (data.train, data.validation, data.test)
    read = sum(np.asarray(a).nbytes for part in parts_of_data for a in part)
    held = weights.by_name(experiment.model).values()
    count = sum(int(variable.shape.num_elements()) for variable in held)
    batch = experiment.config.train.batch_size * _outputs(experiment.model)
    return _RUNTIME + 2 * read + 4 * (_COPIES * count + 2 * batch)


def _outputs(model):
    """Returns how many numbers the layers give for one sample."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += _outputs(layer)
            continue
        try:
            shape = layer.output.shape
        except (AttributeError, ValueError):  # called more than once, or never
            continue
        total += int(np.prod([size for size in shape if size]))
    return total


def _columns(point):
    return {name: _cell(value) for name, value in point.settings.items()}


def _cell(value):
    return value if isinstance(value, (str, int, float)) else repr(value)
