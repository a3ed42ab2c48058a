"""What two workers send: small lotteries of theirs, looked through.

Two processes on loopback train under `MultiWorkerMirroredStrategy`, note every
function that ran on all workers, and count in its graph.

    found = distribution_bytes.counted()
    found["lenet"]["step"]["masked"]  # [bytes of a step], of all levels

Plain Keras cannot `fit` under this strategy (keras issue 20585): of it, the
step that it would run is traced, and not run.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import distribution_fit
import distribution_graphs
import keras
import numpy as np
import tensorflow as tf
from step_tasks import KEPT

import keras_lottery as lottery
from keras_lottery.errors import RunError
from keras_lottery.training import feeds
from keras_lottery.training import keras_private
from keras_lottery.training import loop
from keras_lottery.training import workers
from keras_lottery.training.array_feed import ArrayFeed

WORKERS, ROWS, BATCH = 2, 30, 12  # the last batch of a pass has six rows
PASS = 2  # steps of a pass over whole batches
TIMEOUT = 300  # seconds; nothing here takes a fifth of that


class Case:
    """A network and its data, and what is counted of it.

    Args:
        strategy: The strategy in use.
        build: Function () -> model.
        source: `"arrays"`, or of a `tf.data.Dataset`: `"uneven"`, whose last
            batch is short, or `"even"`, which repeats whole batches.
    """

    def __init__(self, strategy, build, source="arrays"):
        self._strategy, self._build, self._source = strategy, build, source
        with strategy.scope():
            self._model = build()
        shape = (ROWS, *self._model.input_shape[1:])
        generator = np.random.default_rng(0)
        self._x = generator.normal(size=shape).astype("float32")
        self._y = generator.integers(0, self._model.output_shape[-1], ROWS)

    def counted(self):
        """Returns dict of what the case has, and sends."""
        with distribution_graphs.Ledger().open() as ledger:
            pruned = self._lottery(ledger)
        loops = ledger.loops()
        mask = pruned.tickets[-1].mask
        weights = pruned.inner.trainable_variables
        return {
            "trained": sum(int(np.prod(each.shape)) for each in weights),
            "prunable": mask.size,
            "kept": [ticket.mask.kept for ticket in pruned.tickets],
            "traces": len(loops),
            "step": {
                "plain Keras": [self._of_keras()],
                "unmasked": sorted({found.each for found in self._unmasked()}),
                "masked": sorted({found.each for found in loops}),
            },
            "call": sorted({found.once for found in loops}) + ledger.pace(),
            "level": ledger.end_of_level(),
        }

    def _lottery(self, ledger):
        with self._strategy.scope():
            masked = lottery.OneShot(1 - KEPT)
            pruned = lottery.prune(self._build(), masked, rewind="weights")
        self._compile(pruned)
        given, told = self._given(), [distribution_graphs.Marks(ledger)]
        pruned.fit(**given, epochs=2, verbose=0, callbacks=told)
        return pruned

    def _of_keras(self):
        """Returns the bytes of a step of Keras's own, which is traced only."""
        model, strategy = self._model, self._strategy
        self._compile(model)
        given = self._given()
        dataset = given["x"]
        if self._source == "arrays":
            # Keras reads arrays as a dataset too; ours reads none.
            whole = self._x[:BATCH], self._y[:BATCH]
            dataset = tf.data.Dataset.from_tensors(whole).repeat()
        batches = iter(strategy.experimental_distribute_dataset(dataset))
        with strategy.scope():
            model.optimizer.build(model.trainable_variables)
        keras_private.build_compiled(model, (self._x[:1], self._y[:1]))

        @tf.function(autograph=False)
        def step(batches):
            strategy.run(model.train_step, args=(next(batches),))

        return distribution_graphs.sent(
            step.get_concrete_function(batches)
        ).once

    def _unmasked(self):
        """Trains one pass by the step loop without masks."""
        model, given = self._model, self._given()
        self._compile(model)
        with distribution_graphs.Ledger().open() as ledger:
            if self._source == "arrays":
                feed = ArrayFeed((self._x, self._y), BATCH, None, True, 0)
            else:
                feed = feeds.DatasetFeed(given["x"], PASS)
                feed = feed.stream(0, self._strategy)
                feed.start_epoch()
            loop.of(model).run(feed, 0, PASS)
        return ledger.loops()

    def _compile(self, model):
        with self._strategy.scope():
            model.compile(
                keras.optimizers.Adam(),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )

    def _given(self):
        """Returns the arguments of `fit` that say what it reads."""
        if self._source == "arrays":
            return {"x": self._x, "y": self._y, "batch_size": BATCH}
        dataset = tf.data.Dataset.from_tensor_slices((self._x, self._y))
        if self._source == "uneven":
            return {"x": dataset.batch(BATCH)}
        dataset = dataset.batch(BATCH, drop_remainder=True).repeat()
        return {"x": dataset, "steps_per_epoch": PASS}


def small(synchronized):
    """Returns a small network with batch normalisation.

    Args:
        synchronized: Of its layer: whether replicas normalise together.
    """
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5),
            keras.layers.BatchNormalization(synchronized=synchronized),
            keras.layers.Dense(3),
        ]
    )


CASES = {  # name: (function () -> model, source)
    "lenet": (lambda: distribution_fit.built("lenet"), "arrays"),
    "conv2": (lambda: distribution_fit.built("conv2"), "arrays"),
    "normalised": (lambda: small(False), "arrays"),
    "normalised, uneven tf.data": (lambda: small(False), "uneven"),
    "normalised, even tf.data": (lambda: small(False), "even"),
    "normalised together": (lambda: small(True), "arrays"),
}


def counted(names=tuple(CASES)):
    """Starts the workers; returns what they have counted, by case.

    Args:
        names: Keys of `CASES`.

    Raises:
        RunError: A worker failed, or counted something else than the other.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = [pathlib.Path(folder, f"{n}.log") for n in range(WORKERS)]
        processes = [
            _start(tf_config, [f"{folder}/{n}.json", *names], logs[n])
            for n, tf_config in enumerate(_cluster())
        ]
        try:
            codes = [each.wait(TIMEOUT) for each in processes]
        finally:
            for each in processes:
                each.kill()
        if any(codes):
            told = "\n".join(log.read_text() for log in logs)
            raise RunError(
                f"The workers ended with {codes}. They said:\n{told}"
            )
        files = pathlib.Path(folder).glob("*.json")
        first, *others = [json.loads(each.read_text()) for each in files]
    if any(other != first for other in others):
        raise RunError(f"The workers counted {first} and {others}.")
    return first


def _cluster():
    """Returns the TF_CONFIG of each worker, on ports that are free now."""
    with contextlib.ExitStack() as stack:
        hosts = []
        for _ in range(WORKERS):
            each = stack.enter_context(socket.socket())
            each.bind(("127.0.0.1", 0))
            hosts.append(f"127.0.0.1:{each.getsockname()[1]}")
    cluster = {"worker": hosts}
    return [
        json.dumps({"cluster": cluster, "task": {"type": "worker", "index": n}})
        for n in range(WORKERS)
    ]


def _start(tf_config, arguments, log):
    given = {"TF_CONFIG": tf_config, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with open(log, "w") as file:
        return subprocess.Popen(
            [sys.executable, __file__, *arguments],
            env={**os.environ, **given},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def main(path, *names):
    """Counts as one of the workers, and leaves what is found in a file."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    found = {name: Case(strategy, *CASES[name]).counted() for name in names}
    pathlib.Path(path).write_text(json.dumps(found))
    workers.meet(strategy)


if __name__ == "__main__":
    main(*sys.argv[1:])
