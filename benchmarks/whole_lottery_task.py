"""What every contender of whole_lottery.py has to do, and on what data.

A contender is a script: it gets the task as JSON on its command line, plays the
lottery, and prints what came out as JSON on its last line. Nothing heavy is
imported here, as imports are part of what is measured.
"""

import json
import pathlib
import sys
from typing import NamedTuple

import numpy as np

BATCH, RATE = 60, 1.2e-3
REMOVED, REMOVED_FROM_OUTPUT = 0.2, 0.1  # of what is left, per level
SHAPE, CLASSES = (28, 28, 1), 10
PARTS = ("train_x", "train_y", "validation_x", "validation_y")


class Task(NamedTuple):
    """A lottery.

    Fields:
        data: Folder with the arrays of `make_data`.
        levels: Trainings, the dense one included: one less prunings.
        steps: Steps of each.
        every: Steps between two validations.
        threads: How many threads may compute.
        began: `time.time()` when the process was asked for.
    """

    data: str
    levels: int
    steps: int
    every: int
    threads: int
    began: float = 0.0


def make_data(folder, rows=12_000, validation=5_000, seed=0):
    """Writes images of noise whose labels a linear network can learn.

    Args:
        folder: Where to write one `.npy` file for each of `PARTS`.
        rows: Of the training part; whole batches, as Keras's `fit` counts
            steps through the rows.
        validation: Rows of the other part.
        seed: Of everything.
    """
    generator = np.random.default_rng(seed)
    teacher = generator.standard_normal((np.prod(SHAPE), CLASSES), np.float32)
    for part, count in (("train", rows), ("validation", validation)):
        x = generator.random((count, *SHAPE), np.float32)
        y = ((x.reshape(count, -1) - 0.5) @ teacher).argmax(1)
        np.save(pathlib.Path(folder, f"{part}_x.npy"), x)
        np.save(pathlib.Path(folder, f"{part}_y.npy"), y.astype(np.int64))


def read_data(folder):
    """Returns the arrays in the order of `PARTS`."""
    return [np.load(pathlib.Path(folder, f"{part}.npy")) for part in PARTS]


def load(folder):
    """Returns the data as `keras-lottery run` wants them: three parts.

    No other contender has a test set; this one is small.
    """
    train_x, train_y, x, y = read_data(folder)
    return (train_x, train_y), (x, y), (x[:1000], y[:1000])


def kept(size, level, is_output):
    """Returns how many weights of a kernel are kept at a level."""
    rate = REMOVED_FROM_OUTPUT if is_output else REMOVED
    return size - round(size * (1 - (1 - rate) ** level))


def answer(play):
    """Plays the task of the command line, and prints what came out.

    Args:
        play: Function (task) -> dict with `kept`, the number of weights that
            the last level keeps, `accuracy`, that of its last validation,
            and perhaps `seconds`, where those of the process do not count.
    """
    task = Task(**json.loads(sys.argv[1]))
    print(json.dumps(play(task)), flush=True)
