"""Contenders of `training_step.py`: ours, Keras's `fit`, and Keras's own step.

Ours is a stretch of the step loop over data on the device. The public API is
`lottery.prune(...).fit(...)`: a round is one level of it with all that comes
with one (rewinding, pruning, the ticket, the callbacks). `fit` trains without
masks, which Keras does not have: in epochs of a round, with what an epoch
costs, or in one epoch without end. Keras's compiled function is called directly
as well: `fit` without callbacks, and as fast as Keras gets.
"""

import keras
import tensorflow as tf
from gate import Gate
from step_tasks import CLASSES
from step_tasks import KEPT
from step_tasks import TASKS
from step_tasks import data

import keras_lottery as lottery
from keras_lottery.models import networks
from keras_lottery.training import enforce
from keras_lottery.training import loop
from keras_lottery.training.array_feed import ArrayFeed

LEVELS = 400  # of the lottery that rounds are taken from: more than are asked
ENDLESS = 10**9  # steps of an epoch


def compiled(network, **settings):
    """Returns a compiled network; its optimizer is built."""
    task = TASKS[network]
    model = networks.get(network)(task.shape, CLASSES)
    model.compile(**_training(task), **settings)
    model.optimizer.build(model.trainable_variables)
    return model


def looped(network, masked=True, mode="graph"):
    """Returns a function that trains by the step loop.

    Args:
        network: A key of `TASKS`.
        masked: Whether `KEPT` of each kernel is kept, by magnitude.
        mode: `"graph"` or `"xla"`.
    """
    task, model = TASKS[network], compiled(network)
    feed = ArrayFeed(data(network), task.batch, None, True, 0)
    if masked:
        mask = lottery.find_mask(model, 1 - KEPT, allocation="layerwise")
        enforce.attach(model, mask)
    steps = loop.of(model, mode)
    return lambda: steps.run(feed, 0, task.steps)


def by_fit_of_ours(network):
    """Returns a function that plays one more level of a lottery.

    `fit` plays all levels in one call, so it runs in a thread that stops at
    the end of each until the next one is asked for. The level that is dense
    comes before the first; after it 80 % of each kernel is pruned.
    """
    task = TASKS[network]
    model = networks.get(network)(task.shape, CLASSES)
    further = [1 - KEPT + n * 1e-4 for n in range(LEVELS)]
    pruned = lottery.prune(
        model, lottery.ListedSparsities(further), allocation="layerwise"
    )
    pruned.compile(**_training(task))
    images, labels = data(network)
    gate = Gate()
    at_end = keras.callbacks.LambdaCallback(
        on_train_end=lambda logs: gate.stop()
    )

    def play():
        pruned.fit(
            images,
            labels,
            batch_size=task.batch,
            steps_per_epoch=task.steps,
            verbose=0,
            callbacks=[at_end],
        )

    return gate.opened_by(play)


def fitted(network, **settings):
    """Returns a function that trains an epoch by Keras's `fit`, unmasked.

    Args:
        network: A key of `TASKS`.
        **settings: Of `compile`.
    """
    task, model = TASKS[network], compiled(network, **settings)
    images, labels = (each[: task.steps * task.batch] for each in data(network))
    return lambda: model.fit(images, labels, batch_size=task.batch, verbose=0)


def fitted_on(network, **settings):
    """Returns a function that goes on with one epoch of `fit`, unmasked."""
    task, model, gate = TASKS[network], compiled(network, **settings), Gate()

    def stop(batch, logs):
        if (batch + 1) % task.steps == 0:
            gate.stop()

    at_end = keras.callbacks.LambdaCallback(on_train_batch_end=stop)

    def play():
        model.fit(
            _batches(network),
            steps_per_epoch=ENDLESS,
            verbose=0,
            callbacks=[at_end],
        )

    return gate.opened_by(play)


def by_function_of_keras(network, steps_per_call):
    """Returns a function that calls what `fit` calls, and nothing around it.

    Args:
        network: A key of `TASKS`.
        steps_per_call: Keras's `steps_per_execution`.
    """
    task = TASKS[network]
    model = compiled(network, steps_per_execution=steps_per_call)
    batches = iter(_batches(network))
    model.make_train_function()

    def train():
        for _ in range(task.steps // steps_per_call):
            logs = model.train_function(batches)
        return float(logs["loss"])

    return train


def _batches(network):
    task = TASKS[network]
    dataset = tf.data.Dataset.from_tensor_slices(data(network))
    dataset = dataset.shuffle(task.rows).batch(task.batch, drop_remainder=True)
    return dataset.repeat().prefetch(tf.data.AUTOTUNE)


def _training(task):
    made = {
        "adam": lambda: keras.optimizers.Adam(task.rate),
        "momentum": lambda: keras.optimizers.SGD(task.rate, momentum=0.9),
    }
    return {
        "optimizer": made[task.optimizer](),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }
