"""A whole lottery by `lottery.prune(...).fit(...)`, as a user writes it."""

import keras
import turns
import whole_lottery_task as tasks

import keras_lottery as lottery


def network():
    """Returns LeNet-300-100."""
    return keras.Sequential(
        [
            keras.Input(tasks.SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(300, activation="relu"),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(tasks.CLASSES, name="output"),
        ]
    )


def compiled(model):
    """Compiles a model for the task and returns it."""
    model.compile(
        keras.optimizers.Adam(tasks.RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def play(task):
    turns.limit_threads(task.threads)
    train_x, train_y, *validation = tasks.read_data(task.data)
    prunings = task.levels - 1
    rates = {"output/*": tasks.REMOVED_FROM_OUTPUT, "*": tasks.REMOVED}
    pruned = lottery.prune(
        network(),
        {
            name: lottery.IterativePruning(rate, levels=prunings)
            for name, rate in rates.items()
        },
        allocation="layerwise",
    )
    history = compiled(pruned).fit(
        train_x,
        train_y,
        batch_size=tasks.BATCH,
        epochs=task.steps // task.every,
        steps_per_epoch=task.every,
        validation_data=tuple(validation),
        validation_batch_size=1000,
        verbose=0,
    )
    return {
        "kept": pruned.tickets[-1].mask.kept,
        "accuracy": history.history["val_accuracy"][-1],
    }


if __name__ == "__main__":
    tasks.answer(play)
