"""Our callbacks, which are of Keras 3, in the `fit` of legacy Keras."""

import keras

from keras_lottery import tfmot_bridge

tf_keras = tfmot_bridge.legacy_keras()


class Relay(tf_keras.callbacks.Callback):
    """Hands what legacy `fit` reports to a Keras 3 callback.

    Args:
        hook: A `keras.callbacks.Callback` of `training/callbacks.py`.
    """

    def __init__(self, hook):
        super().__init__()
        self._hook = hook

    @classmethod
    def of(cls, callback):
        """Returns a relay for a Keras 3 callback, another as it is."""
        legacy = not isinstance(callback, keras.callbacks.Callback)
        return callback if legacy else cls(callback)

    def set_model(self, model):
        """Hands the model on."""
        super().set_model(model)
        self._hook.set_model(model)

    def on_train_begin(self, logs=None):
        """Hands the start on."""
        self._hook.on_train_begin(logs)

    def on_train_end(self, logs=None):
        """Hands the end on."""
        self._hook.on_train_end(logs)

    def on_epoch_begin(self, epoch, logs=None):
        """Hands the epoch on."""
        self._hook.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        """Hands the epoch and its logs on."""
        self._hook.on_epoch_end(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        """Hands the batch on."""
        self._hook.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        """Hands the batch and its logs on."""
        self._hook.on_train_batch_end(batch, logs)
