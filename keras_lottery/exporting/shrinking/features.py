"""A layer that hands on some of its features."""

import keras


@keras.saving.register_keras_serializable("keras_lottery")
class TakeFeatures(keras.layers.Layer):
    """Takes the positions of the last axis that the next layer reads.

    Args:
        indices: Positions, as ints.
        **arguments: What every layer takes.

    Example:

    >>> layer = TakeFeatures([2, 0])
    >>> layer(keras.ops.array([[1.0, 2.0, 3.0]])).numpy().tolist()
    [[3.0, 1.0]]
    """

    def __init__(self, indices, **arguments):
        super().__init__(**arguments)
        self.indices = [int(index) for index in indices]

    def call(self, inputs):
        """Returns the features taken."""
        return keras.ops.take(inputs, self.indices, axis=-1)

    def compute_output_shape(self, input_shape):
        """Returns the shape with the last axis as long as `indices`."""
        return (*input_shape[:-1], len(self.indices))

    def get_config(self):
        """Returns what `from_config` takes."""
        return {**super().get_config(), "indices": self.indices}
