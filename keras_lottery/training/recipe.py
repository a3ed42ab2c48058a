"""How the batch of any step is made from arrays in memory."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Recipe(NamedTuple):
    """How the batch of any step is made; equal for all replicates.

    Fields:
        rows: Of the arrays.
        batch_size: Rows per step; the last batch of a pass may be smaller.
        shuffle: Whether each pass has an order of its own.
        augment: Function (inputs, seed) -> inputs, or None.
    """

    rows: int
    batch_size: int
    shuffle: bool
    augment: Callable | None

    @property
    def per_pass(self):
        """Steps in a pass over the rows."""
        return -(-self.rows // self.batch_size)

    @property
    def last(self):
        """Rows of the last batch of a pass."""
        return self.rows - (self.per_pass - 1) * self.batch_size

    def batch(self, tensors, seeds, step):
        """Returns the batch of a step.

        Args:
            tensors: Structure of tensors with `rows` rows.
            seeds: int64 tensor of shape (2,): of the orders, and of what is
                drawn to augment.
            step: int64 scalar.
        """
        return self.gathered(tensors, seeds, step, self.numbers(seeds[0], step))

    def gathered(self, tensors, seeds, step, numbers):
        """Returns the batch of a step, whose row numbers are known."""
        batch = tf.nest.map_structure(lambda t: tf.gather(t, numbers), tensors)
        if self.augment is None:
            return batch
        # A stream of its own: not the numbers that order the rows.
        seed = tf.stack([seeds[1], step])
        if not isinstance(batch, tuple):
            return self.augment(batch, seed)
        return (self.augment(batch[0], seed), *batch[1:])

    def numbers(self, seed, step):
        """Returns the row numbers of the batch of a step."""
        passes, place = step // self.per_pass, step % self.per_pass
        first = place * self.batch_size
        last = tf.minimum(first + self.batch_size, self.rows)
        numbers = self._shuffled(seed, passes, tf.range(first, last))
        if self.last == self.batch_size:
            numbers = tf.ensure_shape(numbers, [self.batch_size])
        return numbers

    def numbers_of_many(self, seed, first, count):
        """Returns the row numbers of steps one after the other.

        Args:
            seed: int64 scalar, of the orders.
            first: int64 scalar, the first step.
            count: int64 scalar.

        Returns:
            int64 tensor of shape (`count`, `batch_size`). Behind those of a
            smaller batch stand others, to be left out.
        """

        def of(step):
            passes, place = step // self.per_pass, step % self.per_pass
            rows = place * self.batch_size + tf.range(
                self.batch_size, dtype=tf.int64
            )
            return self._shuffled(seed, passes, tf.minimum(rows, self.rows - 1))

        return tf.map_fn(of, tf.range(first, first + count))

    def _shuffled(self, seed, passes, rows):
        if not self.shuffle:
            return rows
        return tf.random.experimental.index_shuffle(
            rows,
            seed=tf.cast(tf.stack([seed, passes]), tf.int32),
            max_index=self.rows - 1,
        )
