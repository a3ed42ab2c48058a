"""Arrays in memory that can be read from any step.

They are shuffled by a stateless permutation per pass, so the batch of any step
is a function of (seed, step), and rewinding to a step rewinds the data.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import seeds
from keras_lottery.training.recipe import Recipe


class ArrayFeed:
    """Arrays in memory, gathered by row on the device.

    Args:
        data: Structure of arrays with the same first dimension.
        batch_size: Rows per step; the last batch of a pass may be smaller.
        steps_per_epoch: Steps in an epoch; None for one pass over the rows.
        shuffle: Whether each pass has an order of its own.
        seed: Seed of those orders.
        augment: Function (inputs, seed) -> inputs for the first element of
            each batch, or None. Its seed, an int tensor of shape (2,), is a
            function of (`seed`, step).

    Attributes:
        tensors: The arrays on the device.
        seeds: See `Recipe.batch`.
        recipe: The `Recipe`.
        per_epoch: Steps in an epoch.
    """

    def __init__(
        self, data, batch_size, steps_per_epoch, shuffle, seed, *, augment=None
    ):
        self.tensors = as_tensors(data)
        rows = _rows(self.tensors)
        self.recipe = Recipe(rows, int(batch_size), bool(shuffle), augment)
        stream = seeds.stream(seed, "augmentation")
        self.seeds = tf.constant([seed, stream], tf.int64)
        self.per_epoch = steps_per_epoch or self.recipe.per_pass
        self._first = tf.Variable(0, dtype=tf.int64, trainable=False)

    def arguments(self, first_step):
        """Returns the arguments of Keras's `fit` for a level."""
        del first_step
        return {"x": self._dataset, "shuffle": False}

    def check_start(self, first_step):
        """Does nothing: arrays can start anywhere."""

    def start_epoch(self, step):
        """Makes the next pass over the dataset begin with `step`."""
        self._first.assign(step)

    def rows(self, step):
        """Returns the row numbers of the batch of `step`."""
        return self.recipe.numbers(self.seeds[0], tf.cast(step, tf.int64))

    @property
    def key(self):
        """What a program of the step loop is made for."""
        return self.recipe

    def example(self):
        """Returns a batch, for its shapes and dtypes."""
        step = tf.zeros((), tf.int64)
        return self.recipe.batch(self.tensors, self.seeds, step)

    def call(self, first, count):
        """Returns the arguments of a program of the step loop."""
        numbers = (tf.constant(each, tf.int64) for each in (first, count))
        return self.tensors, self.seeds, *numbers

    def note(self, asked, done):
        """Does nothing: arrays do not run out."""

    def ended(self):
        """Returns False: they never do."""
        return False

    @functools.cached_property
    def _dataset(self):
        def batch(index):
            return self.recipe.batch(
                self.tensors, self.seeds, self._first + index
            )

        steps = tf.data.Dataset.range(self.per_epoch)
        return quick_to_start(steps.map(batch).prefetch(2))


def as_tensors(data):
    """Returns arrays as `fit` trains on them: floats of any kind as `floatx`.

    Args:
        data: Structure of arrays.
    """
    data = keras.tree.lists_to_tuples(data)  # tf.data takes no lists
    return tf.nest.map_structure(_as_tensor, data)


def quick_to_start(dataset):
    """Returns the dataset without tf.data's graph rewriting and tuning.

    Keras makes two iterators per epoch. Each cost 9 ms with the rewriting on,
    which gains nothing on a pipeline that only gathers rows.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options)


def _rows(tensors):
    flat = tf.nest.flatten(tensors)
    if any(not each.shape.rank for each in flat):
        raise ValueError(
            "x, y and sample_weight are arrays of rows, one per sample: got a "
            "single value, of shape ()."
        )
    sizes = {int(each.shape[0]) for each in flat}
    if len(sizes) != 1:
        raise ValueError(
            f"x, y and sample_weight differ in rows: {sorted(sizes)}."
        )
    if sizes == {0}:
        raise ValueError("There is nothing to train on: the arrays are empty.")
    return sizes.pop()


def _as_tensor(array):
    """Keras's `fit` trains floats of any kind as `floatx`; so does this."""
    dtype = keras.backend.standardize_dtype(array.dtype)
    if not dtype.startswith(("float", "bfloat")):
        return tf.convert_to_tensor(array)
    if isinstance(array, np.ndarray):
        array = array.astype(keras.backend.floatx(), copy=False)
    return tf.cast(array, keras.backend.floatx())
