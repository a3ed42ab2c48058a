"""`tf.data.Dataset`s for the step loop, read as Keras's `fit` reads them."""

import warnings

import tensorflow as tf


class Stream:
    """A dataset that is read on and on; the next batches are made ahead.

    Args:
        dataset: A `tf.data.Dataset` of batches.
        steps_per_epoch: None to read it anew at every epoch. Otherwise one
            iterator goes on from epoch to epoch, until all is read.
        strategy: What cuts batches into parts for several replicas, or None.
    """

    recipe = None
    key = "stream"

    def __init__(self, dataset, steps_per_epoch=None, strategy=None):
        self._dataset = dataset.prefetch(tf.data.AUTOTUNE)
        several = strategy is not None and strategy.num_replicas_in_sync > 1
        self._distributed = (
            strategy.experimental_distribute_dataset(self._dataset)
            if several
            else self._dataset
        )
        self._goes_on = steps_per_epoch is not None
        self._iterator, self._read = None, 0

    def example(self):
        """Returns a batch, for its shapes and dtypes."""
        spec = self._dataset.element_spec
        flat = tf.nest.flatten(spec)
        if all(isinstance(e, tf.TensorSpec) and e.shape.rank for e in flat):
            return spec  # nothing is read
        return next(iter(self._dataset))

    def start_epoch(self):
        """Begins with the dataset anew, where that is due."""
        if self._iterator is None or not self._goes_on or self._is_read():
            self._iterator, self._read = iter(self._distributed), 0

    def call(self, first, count):
        """Returns the arguments of a program of `programs.stream`."""
        del first  # where the iterator stands
        return self._iterator, tf.constant(count, tf.int64)

    def note(self, asked, done):
        """Notes how many steps a call has trained of those asked for."""
        self._read += done
        if done < asked:
            self._end()

    def ended(self):
        """Returns whether data ran out inside the current epoch."""
        if self._iterator is not None and self._is_read():
            self._end()
        return self._iterator is None

    def _is_read(self):
        return 0 < int(self._dataset.cardinality()) <= self._read

    def _end(self):
        self._iterator = None
        warnings.warn(
            "The dataset ran out of data inside an epoch, which ends here. It "
            "has to have `steps_per_epoch * epochs` batches: use `.repeat()`.",
            stacklevel=2,
        )
