"""What reliability costs: checkpoints, and deterministic operations.

Checkpoints: a run of LeNet-300-100 on Fashion-MNIST (two levels, no controls)
with one due every second, 30 times as often as by default, against the same run
without any. Beside it how long one checkpoint takes, for LeNet and for a
ResNet-50 with Adam: by time none is written before 50 times as long has passed.

Deterministic operations: steps with and without them, in turns, in one process.
On CPU TensorFlow's operations are deterministic anyway; on GPUs, where they
cost something, we have run nothing.

    python benchmarks/reliability.py                  # about 10 minutes
    python benchmarks/reliability.py --pairs=6

Data as for the config `fashion_lenet` (TFDS_DATA_DIR).
"""

import argparse
import contextlib
import os
import tempfile
import time

import bars
import keras
import numpy as np

from keras_lottery.models import networks
from keras_lottery.runs import configuration
from keras_lottery.runs import directory
from keras_lottery.runs import experiment
from keras_lottery.runs import play
from keras_lottery.training import checkpoint
from keras_lottery.training import determinism
from keras_lottery.training import loop
from keras_lottery.training import state
from keras_lottery.training.array_feed import ArrayFeed

BAR = 1.02
NEVER, OFTEN = 1e9, 1.0
STEPS = 1500
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Network, shape of an input, how steps are compiled, steps of a turn.
TRAINED = {
    "LeNet, graph": ("lenet", (28, 28, 1), "graph", 600),
    "LeNet, XLA": ("lenet", (28, 28, 1), "xla", 600),
    "Conv-2, graph": ("conv2", (32, 32, 3), "graph", 12),
}


def lottery_seconds(chosen, seconds):
    """Returns how long a run takes with a checkpoint every so many seconds."""
    chosen.config.checkpoint.seconds = seconds
    with tempfile.TemporaryDirectory() as workdir:
        run = directory.RunDirectory.of(chosen.config, workdir)
        run.create(chosen.config)
        began = time.perf_counter()
        play.play(chosen, run)
        return time.perf_counter() - began


def of_checkpoints(pairs):
    """Returns the bar of runs with checkpoints against runs without."""
    config = configuration.load("fashion_lenet")
    config.replicates, config.prune.levels = 1, 1
    config.train.steps, config.eval_every = STEPS, 500
    config.controls.names, config.export.enabled = (), False
    chosen = experiment.Experiment(config)
    saved, save = [], checkpoint.Checkpoints.save

    def counted(self, found):
        saved.append(found)
        save(self, found)

    checkpoint.Checkpoints.save = counted
    lottery_seconds(chosen, NEVER)  # traces
    with_, without = [], []
    for turn in range(pairs):
        both = [(with_, OFTEN), (without, NEVER)]
        for found, seconds in both if turn % 2 else reversed(both):
            found.append(lottery_seconds(chosen, seconds))
    checkpoint.Checkpoints.save = save
    print(
        f"{len(saved)} checkpoints in {sum(with_):.0f} s of {pairs} runs, "
        f"{sum(without):.0f} s without\n"
    )
    what = f"LeNet run, a checkpoint every {OFTEN:g} s / none"
    return bars.of_pairs(what, with_, without, "<=", BAR)


def of_one_checkpoint(name, model, rounds):
    """Returns the figure of how long one checkpoint of a model takes."""
    model.compile("adam", LOSS)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        kept = checkpoint.Checkpoints(folder, "benchmark")
        for _ in range(rounds):
            began = time.perf_counter()
            taken = state.snapshot(model, model.optimizer)
            kept.save(checkpoint.Checkpoint({}, {"now": taken}, {}))
            found.append(time.perf_counter() - began)
        names = os.listdir(folder)
        size = os.path.getsize(os.path.join(folder, names[0]))
    return bars.of_samples(
        f"one checkpoint, {name}, {size / 1e6:.1f} MB", found
    )


def of_determinism(name, pairs):
    """Returns the bar of deterministic steps against any."""
    network, shape, mode, steps = TRAINED[name]
    model = networks.get(network)(shape, 10)
    model.compile("adam", LOSS)
    generator = np.random.default_rng(0)
    images = generator.random((6000, *shape), np.float32)
    labels = generator.integers(0, 10, 6000)
    feed = ArrayFeed((images, labels), 60, None, True, 0)
    trained = loop.StepLoop(model, mode)
    trained.run(feed, 0, steps)  # traces
    with_, without = [], []
    for turn in range(pairs):
        both = [(with_, True), (without, False)]
        for found, wanted in both if turn % 2 else reversed(both):
            context = determinism.deterministic(wanted)
            with context if wanted else contextlib.nullcontext():
                began = time.perf_counter()
                trained.run(feed, 0, steps)
                found.append(time.perf_counter() - began)
    return bars.of_pairs(f"deterministic / any, {name}", with_, without)


def main():
    """Measures and prints all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=33)
    pairs = parser.parse_args().pairs
    print("## Reliability\n")
    rows = [of_determinism(name, pairs) for name in TRAINED]
    lenet = networks.get("lenet")((28, 28, 1), 10)
    rows.append(of_one_checkpoint("LeNet with Adam", lenet, pairs))
    resnet = keras.applications.ResNet50(weights=None)
    rows.append(of_one_checkpoint("ResNet-50 with Adam", resnet, 7))
    rows.append(of_checkpoints(pairs))
    print(bars.table(rows))


if __name__ == "__main__":
    main()
