"""What each of two workers does in `test_workers.py`: python worker.py FOLDER.

It leaves there what it found: arrays in N.npz and all else in N.json, N being
its number. Without TF_CONFIG it is one process on one device.
"""

import contextlib
import json
import os
import sys
import warnings

import keras
import numpy as np
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.errors import RunError
from keras_lottery.training import workers

CLIPPING = {
    "none": {},
    "norm": {"clipnorm": 0.05},
    "all": {"global_clipnorm": 0.1},
}
ROWS, BATCH = 1201, 60  # the last batch of a pass has one row
NUMBER = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))[
    "task"
]["index"]


def data():
    """Returns images without a structure that shuffling would change."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, 20)).astype("float32")
    return x, x[:, :4].argmax(1)


def network(normalized=False):
    """Returns a network of tanh, optionally with batch normalisation."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((20,)), keras.layers.Dense(16, activation="tanh")]
    layers += [keras.layers.BatchNormalization()] if normalized else []
    return keras.Sequential([*layers, keras.layers.Dense(4)])


class Worker:
    """One of the processes, and what it has found."""

    def __init__(self):
        self.strategy = None
        if "TF_CONFIG" in os.environ:
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        self.arrays, self.facts = {}, {}

    def pruned(self, optimizer, normalized=False):
        """Returns a compiled pruned model under the strategy."""
        scope = contextlib.nullcontext()
        if self.strategy is not None:
            scope = self.strategy.scope()
        with scope:
            pruned = lottery.prune(
                network(normalized), lottery.IterativePruning(0.3, levels=2)
            )
            pruned.compile(
                optimizer(),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
        return pruned

    def note(self, name, pruned):
        """Notes the masks of all levels, all variables and the history."""
        for ticket in pruned.tickets:
            for weight, mask in ticket.mask.items():
                where = f"{name}/mask/{ticket.level}/{weight}"
                self.arrays[where] = np.asarray(mask)
        for index, variable in enumerate(pruned.inner.variables):
            self.arrays[f"{name}/variable/{index}"] = variable.numpy()
        self.facts[name] = {
            key: [float(value) for value in column]
            for key, column in pruned.history.history.items()
        }

    def clipping(self):
        """Plays lotteries of 50 steps a level with each kind of clipping."""
        x, y = data()
        for name, clip in CLIPPING.items():
            pruned = self.pruned(
                lambda clip=clip: keras.optimizers.Adam(1e-2, **clip)
            )
            pruned.fit(
                x, y, batch_size=BATCH, steps_per_epoch=25, epochs=2, verbose=0
            )
            self.note(name, pruned)

    def ways(self):
        """Trains on a tf.data.Dataset, validates, tests and predicts."""
        x, y = data()
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
        options = tf.data.Options()
        policy = tf.data.experimental.AutoShardPolicy.DATA
        options.experimental_distribute.auto_shard_policy = policy
        dataset = dataset.with_options(options)
        pruned = self.pruned(lambda: keras.optimizers.RMSprop(1e-2))
        stop = keras.callbacks.EarlyStopping("val_loss", patience=1)
        pruned.fit(
            dataset,
            epochs=2,
            verbose=0,
            validation_data=(x[:131], y[:131]),
            callbacks=[stop],
        )
        self.note("ways", pruned)
        self.facts["evaluate"] = {
            "arrays": pruned.evaluate(x[:131], y[:131], verbose=0),
            "dataset": pruned.evaluate(dataset, verbose=0),
            "one batch": [
                float(v) for v in pruned.test_on_batch(x[:61], y[:61])
            ],
        }
        self.arrays["predict"] = pruned.predict(x[:131], verbose=0)

    def normalized(self):
        """Trains with batch normalisation."""
        x, y = data()
        pruned = self.pruned(lambda: keras.optimizers.SGD(0.1), True)
        pruned.fit(
            x[:120], y[:120], batch_size=60, epochs=2, verbose=0, shuffle=False
        )
        self.note("normalized", pruned)

    def differing(self):
        """Changes one weight on one worker in the middle of level 1."""
        x, y = data()
        pruned = self.pruned(lambda: keras.optimizers.SGD(0.1))

        class Disturb(keras.callbacks.Callback):
            """Adds a little to one weight, on the second worker."""

            def on_epoch_end(self, epoch, logs=None):
                """Changes it."""
                if NUMBER == 1 and pruned.level == 1:
                    bias = pruned.inner.trainable_variables[1]
                    bias.assign(bias.numpy() + np.float32(1e-7))

        try:
            pruned.fit(x, y, batch_size=60, verbose=0, callbacks=[Disturb()])
        except RunError as error:
            self.facts["differing"] = [str(error), len(pruned.tickets)]

    def disagreeing(self):
        """Starts with another plan on each worker."""
        try:
            workers.agree(self.strategy, "the plan", f"plan {NUMBER}")
        except RunError as error:
            self.facts["disagreeing"] = str(error)

    def legacy(self):
        """Plays a lottery on a model of tf_keras."""
        from keras_lottery import tfmot_bridge

        tf_keras = tfmot_bridge.legacy_keras()
        scope = contextlib.nullcontext()
        if self.strategy is not None:
            scope = self.strategy.scope()
        with scope:
            tf_keras.utils.set_random_seed(0)
            dense = tf_keras.layers.Dense
            model = tf_keras.Sequential(
                [dense(16, "tanh", input_shape=(20,)), dense(4)]
            )
            pruned = lottery.prune(model, lottery.IterativePruning(0.3, 2))
            pruned.compile(
                tf_keras.optimizers.Adam(1e-2),
                tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
        x, y = data()
        pruned.fit(x[:1200], y[:1200], batch_size=60, epochs=2, verbose=0)
        for ticket in pruned.tickets:
            for weight, mask in ticket.mask.items():
                where = f"legacy/mask/{ticket.level}/{weight}"
                self.arrays[where] = np.asarray(mask)
        for index, variable in enumerate(pruned.trainable_variables):
            self.arrays[f"legacy/variable/{index}"] = variable.numpy()


def main(folder):
    """Does all of it, and leaves what was found."""
    warnings.simplefilter("ignore")
    worker = Worker()
    worker.clipping()
    worker.ways()
    worker.normalized()
    worker.legacy()
    if worker.strategy is not None:
        worker.disagreeing()
        worker.differing()
    np.savez(os.path.join(folder, f"{NUMBER}.npz"), **worker.arrays)
    with open(os.path.join(folder, f"{NUMBER}.json"), "w") as file:
        json.dump(worker.facts, file)
    workers.meet(worker.strategy)


if __name__ == "__main__":
    main(sys.argv[1])
