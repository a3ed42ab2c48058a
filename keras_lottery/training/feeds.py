"""What a level reads: training data that can start at any step.

Arrays are gathered by row; datasets are streamed; `PyDataset`s, generators,
torch's `DataLoader`s and sparse arrays go to Keras as they are.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import checks
from keras_lottery.training import class_weight as class_weights
from keras_lottery.training import given_data
from keras_lottery.training.array_feed import ArrayFeed
from keras_lottery.training.streams import Stream


class Epochs(NamedTuple):
    """How steps fall into epochs, and where a level starts.

    Fields:
        per_epoch: Steps in a whole epoch.
        count: Number of epochs of a level.
    """

    per_epoch: int
    count: int

    @property
    def steps(self):
        """Steps of a whole level."""
        return self.per_epoch * self.count

    def place(self, step):
        """Returns (epoch, steps of it already done) at the start of `step`."""
        return divmod(step, self.per_epoch)


class DatasetFeed:
    """A `tf.data.Dataset`; its own shuffling decides the order of its rows."""

    def __init__(self, dataset, steps_per_epoch):
        self._dataset = self.source = dataset
        self._given = steps_per_epoch
        self.per_epoch = _given(steps_per_epoch) or given_data.length(dataset)

    def arguments(self, first_step):
        """Returns the arguments of Keras's `fit` for a level."""
        length = int(self._dataset.cardinality())
        done = first_step % length if length > 0 else first_step
        if not done:
            return self._arguments(self._dataset, self._given)
        # One endless stream: Keras keeps its iterator from epoch to epoch.
        stream = self._dataset.skip(done).concatenate(self._dataset.repeat())
        return self._arguments(stream, self.per_epoch)

    def stream(self, first_step, strategy=None):
        """Returns the `Stream` of a level."""
        arguments = self.arguments(first_step)
        return Stream(arguments["x"], arguments["steps_per_epoch"], strategy)

    @staticmethod
    def _arguments(dataset, steps):
        # Keras warns that it does not shuffle datasets, unless told not to.
        return {"x": dataset, "steps_per_epoch": steps, "shuffle": False}

    def start_epoch(self, step):
        """Does nothing: a dataset begins where its iterator stands."""

    def check_start(self, first_step):
        """Does nothing: what comes before is skipped."""

    def goes_on(self, epochs):
        """Returns whether a level can go on inside, with the same batches.

        Not where data runs out inside an epoch, which then ends.
        """
        length = int(self._dataset.cardinality())
        if self._given is None or length < 0:
            return True
        return length % self._given == 0 or length >= epochs.steps


class KerasFeed:
    """Anything else that Keras's `fit` reads: a `PyDataset`, a generator."""

    def __init__(self, source, steps_per_epoch, arguments):
        self.source = source
        batch_size = arguments.get("batch_size")
        self.per_epoch = _given(steps_per_epoch) or given_data.length(
            source, batch_size
        )
        self._arguments = {
            "x": source,
            "steps_per_epoch": steps_per_epoch,
            **arguments,
        }

    def check_start(self, first_step):
        """Raises a ValueError if a level cannot start at a step."""
        if first_step % self.per_epoch:
            raise ValueError(
                f"Step {first_step} lies inside an epoch of {self.per_epoch} "
                "steps, and this kind of input can only start at an epoch. "
                "Use arrays or a tf.data.Dataset, or a rewind_step that is a "
                f"multiple of {self.per_epoch}."
            )

    def arguments(self, first_step):
        """Returns the arguments of Keras's `fit` for a level.

        Raises:
            ValueError: The level starts inside an epoch.
        """
        self.check_start(first_step)
        return self._arguments

    def start_epoch(self, step):
        """Does nothing: Keras starts the input anew at every epoch."""

    def goes_on(self, epochs):
        """Returns whether a level can go on at an epoch: not of a generator."""
        del epochs
        return not hasattr(self.source, "__next__")


def make(
    x,
    y,
    *,
    sample_weight,
    batch_size,
    steps_per_epoch,
    shuffle,
    seed,
    class_weight=None,
):
    """Returns the feed for what a user gave to `fit`.

    Raises:
        ValueError: Rows differ in number, or the length of the input is not
            known and `steps_per_epoch` is missing.
    """
    given_data.check_arrays(x, y, sample_weight)
    if batch_size is not None:
        checks.whole("batch_size", batch_size, 1)
    if isinstance(x, tf.data.Dataset):
        _alone(x, y=y, sample_weight=sample_weight)  # Keras ignores sizes
        if class_weight is not None:
            x = class_weights.of_dataset(x, class_weight)
        return DatasetFeed(x, steps_per_epoch)
    given = [each for each in (x, y, sample_weight) if each is not None]
    flat = tf.nest.flatten(given)  # None inside: an optional input, Keras's
    if all(isinstance(a, (np.ndarray, tf.Tensor)) for a in flat):
        sample_weight = _weighed(y, sample_weight, class_weight)
        data = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        steps = _given(steps_per_epoch)
        return ArrayFeed(data, batch_size or 32, steps, shuffle, seed)
    arguments = {
        "y": y,
        "sample_weight": sample_weight,
        "shuffle": shuffle,
        "class_weight": class_weight,
    }
    if batch_size is not None:
        arguments["batch_size"] = batch_size
    return KerasFeed(x, steps_per_epoch, arguments)


def _alone(dataset, **others):
    """Raises a ValueError for what a dataset holds already, as Keras does."""
    for name, value in others.items():
        if value is not None:
            raise ValueError(
                f"`{name}` is part of the dataset already: x is a "
                f"{type(dataset).__name__}, whose elements are batches of "
                f"(x, y, sample_weight). Leave `{name}` out."
            )


def split(x, y, sample_weight, fraction):
    """Splits off the last `fraction` of the rows for validation, as Keras does.

    Returns:
        ((x, y, sample_weight), validation_data).
    """
    flat = [a for a in tf.nest.flatten((x, y, sample_weight)) if a is not None]
    if not all(isinstance(a, (np.ndarray, tf.Tensor)) for a in flat):
        raise ValueError(
            "`validation_split` needs arrays: pass `validation_data` instead."
        )
    rows = len(flat[0])
    at = int(rows * (1.0 - fraction))
    if not 0 < at < rows:
        raise ValueError(
            f"validation_split={fraction} of {rows} rows leaves one part empty."
        )

    def part(rows):
        return tf.nest.map_structure(
            lambda a: None if a is None else a[rows], (x, y, sample_weight)
        )

    validation = part(slice(at, None))
    return part(slice(at)), tuple(v for v in validation if v is not None)


def _weighed(labels, sample_weight, class_weight):
    if class_weight is None:
        return sample_weight
    if sample_weight is not None:
        raise ValueError(
            "Pass `class_weight` or `sample_weight`, not both: multiply the "
            "weights of the samples by those of their classes."
        )
    return class_weights.of_labels(labels, class_weight)


def _given(steps_per_epoch):
    """Returns the argument, checked; None stays None."""
    if steps_per_epoch is None:
        return None
    return checks.whole("steps_per_epoch", steps_per_epoch, 1)
