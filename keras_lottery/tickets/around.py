"""A Keras model around another: what it hands on to the one inside."""

from keras_lottery.training.own_methods import OwnMethods


class Around(OwnMethods):
    """A model that is called as the one inside is.

    Attributes:
        inner: The model inside; subclasses set it.
    """

    def call(self, inputs, training=None, mask=None):
        """Calls the wrapped model. (Keras hands `training` on by itself.)"""
        del training, mask
        return self.inner(inputs)

    def build(self, input_shape=None):
        """Does nothing: the wrapped model is built."""
        self.built = True

    @property
    def output_names(self):
        """Names of the outputs, for losses and metrics by name."""
        return getattr(self.inner, "output_names", None)

    def get_layer(self, name=None, index=None):
        """Returns a layer of the wrapped model, as that one finds it."""
        return self.inner.get_layer(name, index)

    def count_params(self):
        """Returns how many parameters the wrapped model has, masks aside."""
        return self.inner.count_params()

    def export(self, filepath, *arguments, **more):
        """Exports the wrapped model as Keras does, zeros and all.

        `lottery.export` writes files that are smaller, and proved.
        """
        return self.inner.export(filepath, *arguments, **more)
