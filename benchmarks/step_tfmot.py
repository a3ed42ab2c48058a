"""Contenders of `training_step.py`: tfmot's wrapper on legacy Keras.

The networks of `keras_lottery.models` once more, in `tf_keras`, which tfmot is
made for, wrapped by `prune_low_magnitude` and trained by `fit` with
`UpdatePruningStep`. Masks are updated every 100 steps, tfmot's default. In
epochs of a round, or in one epoch without end.
"""

import tensorflow as tf
from gate import Gate
from step_tasks import CLASSES
from step_tasks import KEPT
from step_tasks import TASKS
from step_tasks import data

from keras_lottery import tfmot_bridge

EVERY = 100  # steps between two updates of the masks
ENDLESS = 10**9  # steps of an epoch

tf_keras = tfmot_bridge.legacy_keras()
layers = tf_keras.layers


def fitted(network):
    """Returns a function that trains an epoch of a wrapped network."""
    task, model = TASKS[network], wrapped(network)
    images, labels = (each[: task.steps * task.batch] for each in data(network))
    update = tfmot_bridge.UpdatePruningStep()

    def train():
        model.fit(
            images,
            labels,
            batch_size=task.batch,
            verbose=0,
            callbacks=[update],
        )

    return train


def fitted_on(network):
    """Returns a function that goes on with one epoch of a wrapped network."""
    task, model, gate = TASKS[network], wrapped(network), Gate()
    dataset = tf.data.Dataset.from_tensor_slices(data(network))
    dataset = dataset.shuffle(task.rows).batch(task.batch, drop_remainder=True)

    def stop(batch, logs):
        if (batch + 1) % task.steps == 0:
            gate.stop()

    def play():
        model.fit(
            dataset.repeat().prefetch(tf.data.AUTOTUNE),
            steps_per_epoch=ENDLESS,
            verbose=0,
            callbacks=[
                tfmot_bridge.UpdatePruningStep(),
                tf_keras.callbacks.LambdaCallback(on_batch_end=stop),
            ],
        )

    return gate.opened_by(play)


def wrapped(network):
    """Returns a network in tfmot's wrapper, compiled."""
    task = TASKS[network]
    schedule = tfmot_bridge.ConstantSparsity(1 - KEPT, 0, frequency=EVERY)
    wrap = tfmot_bridge.tfmot.sparsity.keras.prune_low_magnitude
    model = wrap(NETWORKS[network](task.shape), pruning_schedule=schedule)
    model.compile(
        OPTIMIZERS[task.optimizer](task.rate),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def lenet(shape):
    """Returns LeNet-300-100 in `tf_keras`."""
    return tf_keras.Sequential(
        [
            layers.Flatten(input_shape=shape),
            layers.Dense(300, "relu"),
            layers.Dense(100, "relu"),
            layers.Dense(CLASSES),
        ]
    )


def conv2(shape):
    """Returns Conv-2 in `tf_keras`."""
    return tf_keras.Sequential(
        [
            layers.Conv2D(64, 3, padding="same", activation="relu",
                          input_shape=shape),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(256, "relu"),
            layers.Dense(256, "relu"),
            layers.Dense(CLASSES),
        ]
    )  # fmt: skip


def resnet20(shape):
    """Returns ResNet-20 in `tf_keras`."""
    image = tf_keras.Input(shape)
    x = layers.ReLU()(_convolved(image, 16, 3, 1))
    for channels in (16, 32, 64):
        for block in range(3):
            strides = 2 if channels > 16 and block == 0 else 1
            inside = layers.ReLU()(_convolved(x, channels, 3, strides))
            inside = _convolved(inside, channels, 3, 1)
            if strides > 1:
                x = _convolved(x, channels, 1, strides)
            x = layers.ReLU()(layers.Add()([inside, x]))
    x = layers.GlobalAveragePooling2D()(x)
    return tf_keras.Model(image, layers.Dense(CLASSES)(x))


def _convolved(x, channels, size, strides):
    convolution = layers.Conv2D(
        channels, size, strides, padding="same", use_bias=False
    )
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(convolution(x))


NETWORKS = {"lenet": lenet, "conv2": conv2, "resnet20": resnet20}
OPTIMIZERS = {
    "adam": tf_keras.optimizers.Adam,
    "momentum": lambda rate: tf_keras.optimizers.SGD(rate, momentum=0.9),
}
