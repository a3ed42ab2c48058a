"""What `fit` measures at the end of an epoch, without iterators if it can."""

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.training import measure
from keras_lottery.training import programs
from keras_lottery.training.array_feed import as_tensors
from keras_lottery.training.callbacks import hears

_TEST_HOOKS = ("on_test_batch_begin", "on_test_batch_end")


class Validation:
    """What `fit` measures at the end of an epoch.

    Args:
        model: A compiled `keras.Model`.
        arguments: Those of `fit`.
    """

    def __init__(self, model, arguments):
        self._model, self._arguments = model, arguments
        self._data = arguments.get("validation_data")
        self._pass_over = None

    def __call__(self, epoch, hooks):
        """Returns the logs, their names beginning with `val_`."""
        if self._data is None or not self._is_due(epoch):
            return {}
        if self._needs_keras(hooks):
            logs = self._by_keras(hooks)
        else:
            logs = self._by_passing_over(hooks)
        return {f"val_{name}": value for name, value in logs.items()}

    def _is_due(self, epoch):
        frequency = self._arguments.get("validation_freq", 1)
        if isinstance(frequency, int):
            return (epoch + 1) % frequency == 0
        return epoch + 1 in frequency

    def _needs_keras(self, hooks):
        flat = [v for v in tf.nest.flatten(self._data) if v is not None]
        return (
            programs.has_own_test_step(self._model)
            or not all(isinstance(a, (np.ndarray, tf.Tensor)) for a in flat)
            or self._arguments.get("validation_steps") is not None
            or any(
                hears(callback, name)
                for callback in hooks.callbacks
                for name in _TEST_HOOKS
                if not isinstance(callback, keras.callbacks.ProgbarLogger)
            )
        )

    def _by_keras(self, hooks):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(self._data)
        return self._model.evaluate(
            x=x,
            y=y,
            sample_weight=weights,
            batch_size=self._arguments.get("validation_batch_size"),
            steps=self._arguments.get("validation_steps"),
            callbacks=hooks,
            return_dict=True,
        )

    def _by_passing_over(self, hooks):
        if self._pass_over is None:
            packed = keras.utils.unpack_x_y_sample_weight(self._data)
            self._pass_over = measure.measure_on(
                self._model,
                as_tensors(keras.utils.pack_x_y_sample_weight(*packed)),
                self._arguments.get("validation_batch_size") or 32,
            )
        hooks.on_test_begin()
        logs = self._pass_over()
        hooks.on_test_end(logs)
        return logs
