"""A small lottery under a distribution strategy, to compare with plain CPU."""

import functools
import time
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.data.digits import load_digits
from keras_lottery.pruning.schedules import IterativePruning
from keras_lottery.tickets.wrap import prune
from keras_lottery.training import strategies

STEPS, LEVELS, BATCH = 20, 2, 60


class Checkup(NamedTuple):
    """What a lottery under a strategy gave.

    Fields:
        kept: Weights kept at each level.
        weights: The trained weights of the last level, flat.
        masks: The masks of the last level, flat.
        seconds: From building to the end.
    """

    kept: tuple
    weights: np.ndarray
    masks: np.ndarray
    seconds: float


@functools.cache
def plain():
    """Returns the `Checkup` of the CPU alone, played once."""
    return _played_in(tf.device("/cpu:0"))


def lottery_under(name):
    """Plays two levels of 20 steps on digits, and returns a `Checkup`.

    Args:
        name: A key of `strategies.STRATEGIES`.
    """
    return _played_in(strategies.scope(strategies.get(name)()))


def _played_in(scope):
    began = time.perf_counter()
    with scope:
        tickets = _played()
    last = tickets[-1]
    values = last.weights("end")
    return Checkup(
        tuple(ticket.mask.kept for ticket in tickets),
        np.concatenate([values[name].ravel() for name in sorted(values)]),
        np.concatenate([last.mask[name].ravel() for name in sorted(last.mask)]),
        time.perf_counter() - began,
    )


def compare(found, plain):
    """Returns (largest difference of weights, share of equal mask entries)."""
    difference = float(np.abs(found.weights - plain.weights).max())
    return difference, float((found.masks == plain.masks).mean())


def _played():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="tanh"),
            keras.layers.Dense(10),
        ]
    )
    pruned = prune(model, IterativePruning(0.2, LEVELS))
    pruned.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images, labels = load_digits().train
    rows = STEPS * BATCH
    pruned.fit(
        images[:rows],
        labels[:rows],
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
    )
    return pruned.tickets
