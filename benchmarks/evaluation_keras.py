"""Contenders of `evaluation.py`: ours, and Keras's `evaluate`."""

import keras
import numpy as np
from step_tasks import CLASSES
from step_tasks import TASKS

from keras_lottery.models import networks
from keras_lottery.training import measure


def ours(network, rows, passes):
    """Returns a function that evaluates `rows` rows `passes` times."""
    model, data = _given(network, rows)
    pass_over = measure.measure_on(model, data)

    def evaluate():
        for _ in range(passes):
            pass_over()

    return evaluate


def evaluated(network, rows, passes):
    """Returns a function that does so by Keras, in batches as large."""
    model, data = _given(network, rows)

    def evaluate():
        for _ in range(passes):
            model.evaluate(*data, batch_size=1000, verbose=0)

    return evaluate


def _given(network, rows):
    task, generator = TASKS[network], np.random.default_rng(0)
    model = networks.get(network)(task.shape, CLASSES)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    images = generator.random((rows, *task.shape), np.float32)
    return model, (images, generator.integers(0, CLASSES, rows))
