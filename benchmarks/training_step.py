"""What a training step of a masked network takes, against Keras's `fit`.

LeNet-300-100 on data of MNIST's shape, batch 60, Adam 1.2e-3, 20 % of each
kernel kept. All trainings take turns, a stretch of steps each, in one process;
ratios are of their times in the same round, with the 95 % interval of the
median.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --threads=2 --rounds=60

Not here yet: other networks, PyTorch, tfmot's wrapper, the bare products.
"""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.exporting import measuring
from keras_lottery.models import networks
from keras_lottery.training import enforce
from keras_lottery.training import loop
from keras_lottery.training.feeds import ArrayFeed

ROWS, BATCH, STEPS = 12_000, 60, 200
BARS = {
    "masked loop / unmasked loop": ("<=", 1.10),
    "fit / masked loop": (">=", 3.0),
    "fit, 50 steps a call / masked loop": (">=", 2.0),
}


def data():
    """Returns images and labels that no training can finish with."""
    generator = np.random.default_rng(0)
    x = generator.random((ROWS, 28, 28, 1), np.float32)
    return x, generator.integers(0, 10, ROWS)


def network(**compiled):
    model = networks.get("lenet")((28, 28, 1), 10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1.2e-3), loss, **compiled)
    model.optimizer.build(model.trainable_variables)
    return model


def looped(masked):
    """Returns a function that trains by the step loop."""
    model, feed = network(), ArrayFeed(data(), BATCH, None, True, 0)
    if masked:
        mask = lottery.find_mask(model, 0.8, allocation="layerwise")
        enforce.attach(model, mask)
    steps = loop.of(model)
    return lambda: steps.run(feed, 0, STEPS)


def fitted(**compiled):
    """Returns a function that trains by Keras's `fit`, without masks."""
    model, (x, y) = network(**compiled), data()
    rows = STEPS * BATCH
    return lambda: model.fit(x[:rows], y[:rows], batch_size=BATCH, verbose=0)


def timed(trainings, rounds):
    """Returns dict from name to seconds a round; each warms up first."""
    for train in trainings.values():
        for _ in range(5):
            train()
    seconds = {name: [] for name in trainings}
    for _ in range(rounds):
        for name, train in trainings.items():
            began = time.perf_counter()
            train()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(given.threads)
    tf.config.threading.set_inter_op_parallelism_threads(given.threads)
    seconds = timed(
        {
            "masked loop": looped(masked=True),
            "unmasked loop": looped(masked=False),
            "fit": fitted(),
            "fit, 50 steps a call": fitted(steps_per_execution=50),
        },
        given.rounds,
    )
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, ", end="")
    print(f"{given.threads} thread(s), {given.rounds} rounds of {STEPS} steps")
    for name, each in seconds.items():
        print(f"{name:<24} {np.median(each) / STEPS * 1e3:6.3f} ms a step")
    for name, (sign, bar) in BARS.items():
        first, second = (seconds[part] for part in name.split(" / "))
        ratio, low, high = measuring.ratio_interval(first, second)
        held = low < bar if sign == "<=" else high > bar
        print(
            f"{name:<40} {ratio:.2f} ({low:.2f} to {high:.2f}), bar {sign} "
            f"{bar}: {'holds' if held else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
