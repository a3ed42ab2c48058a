"""A whole lottery with tfmot's wrappers in legacy Keras, rewound by hand.

tfmot has no lottery. Each level wraps a new model for a constant sparsity, has
it choose masks from the weights as trained, and sets the first weights. The
masks are looked at again every 100 steps, tfmot's default, and stay: removed
weights are zero.
"""

import numpy as np
import turns
import whole_lottery_task as tasks

from keras_lottery import tfmot_bridge

keras = tfmot_bridge.legacy_keras()
prune_low_magnitude = tfmot_bridge.tfmot.sparsity.keras.prune_low_magnitude


def wrapped(layer, level):
    """Returns a layer pruned to the sparsity of a level; plain at level 0."""
    if not level or not hasattr(layer, "units"):
        return layer
    output = layer.units == tasks.CLASSES
    rate = tasks.REMOVED_FROM_OUTPUT if output else tasks.REMOVED
    schedule = tfmot_bridge.ConstantSparsity(
        1 - (1 - rate) ** level, begin_step=0, frequency=100
    )
    return prune_low_magnitude(layer, schedule)


def network(level):
    """Returns LeNet-300-100, compiled, wrapped for a level."""
    layers = [
        keras.layers.Flatten(input_shape=tasks.SHAPE),
        keras.layers.Dense(300, activation="relu"),
        keras.layers.Dense(100, activation="relu"),
        keras.layers.Dense(tasks.CLASSES),
    ]
    model = keras.Sequential([wrapped(layer, level) for layer in layers])
    model.compile(
        keras.optimizers.Adam(tasks.RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def rewind(model, first, last):
    """Has the wrappers choose masks from `last`, then sets `first`."""
    set_weights(model, last)
    for layer in pruned_layers(model):
        layer.pruning_step.assign(0)
        layer.pruning_obj.conditional_mask_update()
        layer.pruning_step.assign(-1)  # as new: `UpdatePruningStep` counts
    set_weights(model, first)
    for layer in pruned_layers(model):
        layer.pruning_obj.weight_mask_op()


def pruned_layers(model):
    kind = tfmot_bridge.wrapper_class()
    return [layer for layer in model.layers if isinstance(layer, kind)]


def set_weights(model, values):
    for variable, value in zip(model.trainable_weights, values, strict=True):
        variable.assign(value)


def play(task):
    turns.limit_threads(task.threads)
    train_x, train_y, *validation = tasks.read_data(task.data)
    first = last = None
    for level in range(task.levels):
        model = network(level)
        if level:
            rewind(model, first, last)
        else:
            first = values(model)
        history = model.fit(
            *(train_x, train_y),
            batch_size=tasks.BATCH,
            epochs=task.steps // task.every,
            steps_per_epoch=task.every,
            validation_data=tuple(validation),
            validation_batch_size=1000,
            callbacks=[tfmot_bridge.UpdatePruningStep()] if level else [],
            verbose=0,
        )
        last = values(model)
    return {
        "kept": int(sum(map(np.count_nonzero, last[::2]))),
        "accuracy": history.history["val_accuracy"][-1],
    }


def values(model):
    return [variable.numpy() for variable in model.trainable_weights]


if __name__ == "__main__":
    tasks.answer(play)
