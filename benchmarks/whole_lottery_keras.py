"""A whole lottery as one writes it in Keras without a tool.

Every level builds a new model with constraints that zero what is pruned,
compiles it, sets the first weights, and trains it with `fit`.
"""

import keras
import numpy as np
import turns
import whole_lottery_task as tasks
from whole_lottery_ours import compiled


class Pruned(keras.constraints.Constraint):
    """Zeroes what a mask has removed, after every update."""

    def __init__(self, mask):
        self.mask = keras.ops.convert_to_tensor(mask, "float32")

    def __call__(self, kernel):
        return kernel * self.mask


def network(masks):
    """Returns LeNet-300-100 whose kernels are held by masks."""
    held = [Pruned(mask) for mask in masks] or [None] * 3
    return keras.Sequential(
        [
            keras.Input(tasks.SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(
                300, activation="relu", kernel_constraint=held[0]
            ),
            keras.layers.Dense(
                100, activation="relu", kernel_constraint=held[1]
            ),
            keras.layers.Dense(tasks.CLASSES, kernel_constraint=held[2]),
        ]
    )


def pruned(kernels, level):
    """Returns masks that keep the largest weights of each kernel."""
    masks = []
    for kernel in kernels:
        count = tasks.kept(kernel.size, level, kernel is kernels[-1])
        magnitudes = np.abs(kernel)
        threshold = np.sort(magnitudes, axis=None)[-count]
        masks.append(magnitudes >= threshold)
    return masks


def play(task):
    turns.limit_threads(task.threads)
    train_x, train_y, *validation = tasks.read_data(task.data)
    first, masks = None, []
    for level in range(task.levels):
        model = compiled(network(masks))
        if first is None:
            first = model.get_weights()
        weights = list(first)
        for place, mask in enumerate(masks):
            weights[2 * place] = first[2 * place] * mask  # biases between
        model.set_weights(weights)
        history = model.fit(
            train_x,
            train_y,
            batch_size=tasks.BATCH,
            epochs=task.steps // task.every,
            steps_per_epoch=task.every,
            validation_data=tuple(validation),
            validation_batch_size=1000,
            verbose=0,
        )
        kept = sum(map(np.count_nonzero, model.get_weights()[::2]))
        masks = pruned(model.get_weights()[::2], level + 1)
    return {
        "kept": int(kept),
        "accuracy": history.history["val_accuracy"][-1],
    }


if __name__ == "__main__":
    tasks.answer(play)
