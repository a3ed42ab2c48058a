"""`tf.data.Dataset`s for the step loop, read as Keras's `fit` reads them."""

import warnings

import tensorflow as tf


class Stream:
    """A dataset that is read on and on; the next batches are made ahead.

    Args:
        dataset: A `tf.data.Dataset` of batches.
        steps_per_epoch: None to read it anew at every epoch. Otherwise one
            iterator goes on from epoch to epoch, until all is read.

    Attributes:
        ended: Whether data ran out inside the current epoch.
    """

    recipe = None
    key = "stream"

    def __init__(self, dataset, steps_per_epoch=None):
        self._dataset = dataset.prefetch(tf.data.AUTOTUNE)
        self._goes_on = steps_per_epoch is not None
        self._iterator, self._read = None, 0
        self.ended = False

    def example(self):
        """Returns a batch, for its shapes and dtypes."""
        return next(iter(self._dataset))

    def start_epoch(self):
        """Begins with the dataset anew, where that is due."""
        length = int(self._dataset.cardinality())
        over = 0 < length <= self._read
        if self._iterator is None or not self._goes_on or over:
            self._iterator, self._read = iter(self._dataset), 0
        self.ended = False

    def call(self, first, count):
        """Returns the arguments of a program of `programs.stream`."""
        del first  # where the iterator stands
        return self._iterator, tf.constant(count, tf.int64)

    def note(self, asked, done):
        """Notes how many steps a call has trained of those asked for."""
        self._read += done
        if done == asked:
            return
        self._iterator, self.ended = None, True
        warnings.warn(
            "The dataset ran out of data inside an epoch, which ends here. It "
            "has to have `steps_per_epoch * epochs` batches: use `.repeat()`.",
            stacklevel=2,
        )
