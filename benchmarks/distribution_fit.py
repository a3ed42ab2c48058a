"""Contenders of `distribution.py`: `fit` of ours and of Keras, on devices.

Both train by the same call on the same data under the same strategy, and a
round is an epoch of it. Ours is masked: level 0 is stopped after its first
epoch, and level 1, which keeps `KEPT` of each kernel, never ends.
"""

import keras
import numpy as np
import tensorflow as tf
from gate import Gate
from step_tasks import CLASSES
from step_tasks import KEPT
from step_tasks import TASKS

import keras_lottery as lottery
from keras_lottery.models import networks
from keras_lottery.training import strategies

EPOCHS = 10**6  # more than are asked for
WIDTH = {"lenet": 1.0, "conv2": 0.25}
STEPS = {"lenet": 200, "conv2": 50}  # of a round


class Rounds(keras.callbacks.Callback):
    """Stops at the end of every epoch until the next round is asked for."""

    def __init__(self, gate):
        super().__init__()
        self._gate = gate

    def on_epoch_end(self, epoch, logs=None):
        """Ends the level that is dense; stops at the gate in others."""
        if getattr(self.model, "level", None) == 0:
            self.model.stop_training = True
        else:
            self._gate.stop()


def ours(network, devices, streamed=False):
    """Returns a function that trains one more epoch of a masked network.

    Args:
        network: A key of `WIDTH`.
        devices: Of a `MirroredStrategy`; 0 for no strategy.
        streamed: Whether data are a `tf.data.Dataset`, not arrays.
    """

    def pruned():
        model = built(network)
        masked = lottery.OneShot(1 - KEPT)
        return lottery.prune(model, masked, allocation="layerwise")

    return _played(network, devices, streamed, pruned)


def keras_fit(network, devices, streamed=False, steps_per_call=1):
    """Returns a function that does so by Keras, without masks.

    Args:
        network: See `ours`.
        devices: See `ours`.
        streamed: See `ours`.
        steps_per_call: `steps_per_execution`.
    """
    made = {"steps_per_execution": steps_per_call}
    return _played(network, devices, streamed, lambda: built(network), **made)


def built(network):
    """Returns a network, untrained."""
    shape = TASKS[network].shape
    return networks.get(network)(shape, CLASSES, width=WIDTH[network])


def _played(network, devices, streamed, build, **settings):
    with strategies.scope(_strategy(devices)):
        model = build()
        model.compile(
            keras.optimizers.Adam(TASKS[network].rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            **settings,
        )
    given, gate = _data(network, streamed), Gate()

    def play():
        model.fit(**given, epochs=EPOCHS, verbose=0, callbacks=[Rounds(gate)])

    return gate.opened_by(play)


def _strategy(devices):
    """Returns a strategy over logical CPU devices, which it makes."""
    if devices == 0:
        return None
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * devices
    tf.config.set_logical_device_configuration(cpu, parts)
    names = [f"CPU:{number}" for number in range(devices)]
    return tf.distribute.MirroredStrategy(names)


def _data(network, streamed):
    """Returns the arguments of `fit` that say what an epoch reads."""
    task, steps = TASKS[network], STEPS[network]
    rows = steps * task.batch
    generator = np.random.default_rng(0)
    images = generator.random((rows, *task.shape), np.float32)
    labels = generator.integers(0, CLASSES, rows)
    if not streamed:
        return {"x": images, "y": labels, "batch_size": task.batch}
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    dataset = dataset.shuffle(rows).batch(task.batch, drop_remainder=True)
    dataset = dataset.repeat().prefetch(tf.data.AUTOTUNE)
    return {"x": dataset, "steps_per_epoch": steps}
