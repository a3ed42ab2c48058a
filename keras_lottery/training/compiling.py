"""Graph mode or XLA: a fixed table, so that a run can be repeated.

The same numbers come out of both up to rounding, and rounding grows; what is
drawn in a step (dropout) is not the same. So which was used is among the
conditions of a run. The table is made from measurements
(`benchmarks/RESULTS.md`); what was never measured runs in graph mode.
"""

import time

import numpy as np
import tensorflow as tf

from keras_lottery.training import dense_networks
from keras_lottery.training import keras_private
from keras_lottery.training import loop
from keras_lottery.training import programs
from keras_lottery.training import state

MODES = ("graph", "xla")
# By kind of device, and whether the network is a small dense one.
TABLE = {
    ("CPU", True): "xla",
    ("CPU", False): "graph",
    ("GPU", True): "graph",
    ("GPU", False): "graph",
}
# Compiling takes as long as XLA saves in a few thousand steps: a level has to
# have so many steps.
LONG = 500
# Weights. Graph mode over XLA: LeNet-300-100 (0.27 M) 1.02 on one thread, 1.41
# on two (`benchmarks/training_step.py`); a rough look on one thread, 1.00 at
# 1.8 M and 0.93 at 5.6 M, where XLA's products are the slower ones.
SMALL = 1_000_000
_WARM_UP = 100  # steps


def mode(model, steps):
    """Returns `"graph"` or `"xla"`, for the step loop of a model.

    Args:
        model: A compiled `keras.Model`. The `step_mode` of a `PrunedModel`, if
            set, comes before the table.
        steps: Of a level.

    Raises:
        ValueError: A `step_mode` that is not known.

    Example:

    >>> import keras, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> pruned = lottery.prune(model, lottery.IterativePruning(levels=1))
    >>> pruned.compile("sgd", "mse")
    >>> pruned.step_mode = "graph"
    >>> mode(pruned, 10_000)
    'graph'
    """
    asked = getattr(model, "step_mode", None)
    if asked is not None:
        return _checked(asked)
    if steps < LONG or not _can(model):
        return "graph"
    size = sum(np.prod(v.shape) for v in model.trainable_variables)
    small = size <= SMALL and dense_networks.is_dense(model)
    return TABLE.get((device_kind(), small), "graph")


def _checked(asked):
    if asked not in MODES:
        raise ValueError(
            f"step_mode={asked!r} is not known. Expected one of {MODES}, or "
            "None for the one that the package chooses."
        )
    return asked


def _can(model):
    """Returns whether the loop may be tried under XLA."""
    plain = tf.distribute.get_strategy() is model.distribute_strategy
    return (
        plain
        and not tf.distribute.has_strategy()
        and not model.run_eagerly
        and not programs.has_own_step(model)
        and keras_private.supports_jit(model)
    )


def measured(model, feed, rounds=5):
    """Returns the mode that trains faster here and now, by timing both.

    Not the same on every machine, nor always on the same one: a run that is to
    be repeated has to be told which it was. The model is left as it was.

    Args:
        model: A compiled `keras.Model`, its optimizer built.
        feed: An `ArrayFeed`.
        rounds: How often each takes its turn, a call of the loop each.
    """
    before = state.snapshot(model, model.optimizer)
    loops = {mode: loop.StepLoop(model, mode) for mode in MODES}
    for steps in loops.values():
        steps.run(feed, 0, _WARM_UP)  # compiles
    seconds = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode, steps in loops.items():
            began = time.perf_counter()
            reached, _ = steps.call(feed, 0, _WARM_UP)
            seconds[mode].append((time.perf_counter() - began) / reached)
    state.restore(before, model, model.optimizer)
    if loops["xla"].mode != "xla":  # it could not be compiled
        return "graph"
    return min(MODES, key=lambda mode: np.median(seconds[mode]))


def device_kind():
    """Returns `"CPU"`, `"GPU"` or `"TPU"`: where TensorFlow puts a model."""
    for kind in ("TPU", "GPU"):
        if tf.config.list_logical_devices(kind):
            return kind
    return "CPU"
