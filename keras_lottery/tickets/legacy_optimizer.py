"""A `tf_keras` optimizer as the rest of the package sees optimizers.

`training/state.py` and `tickets/rewind.py` read and write variables, and hold
learning rates, of Keras 3 optimizers. A view offers the same of a legacy one,
of the new kind or of `tf_keras.optimizers.legacy`.
"""

import keras
import tensorflow as tf

from keras_lottery import tfmot_bridge

tf_keras = tfmot_bridge.legacy_keras()
_LegacySchedule = tf_keras.optimizers.schedules.LearningRateSchedule


class OptimizerView:
    """Built on construction, so that a snapshot of step 0 has the slots.

    Args:
        optimizer: A `tf_keras` optimizer, of either kind.
        variables: The variables that it trains.
    """

    built = True

    def __init__(self, optimizer, variables):
        self.legacy = optimizer
        self._trainable_variables = []  # no slot is found by name here
        if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
            optimizer._create_all_weights(variables)
        else:
            optimizer.build(variables)

    @property
    def variables(self):
        """Every variable, once: iteration, learning rate and slots."""
        found = list(_variables(self.legacy))
        return list({id(each): each for each in found}.values())

    @property
    def _learning_rate(self):
        leaf = _leaf(self.legacy)
        hyper = getattr(leaf, "_hyper", None)
        rate = leaf._learning_rate if hyper is None else hyper["learning_rate"]
        return Shown(rate) if isinstance(rate, _LegacySchedule) else rate

    @_learning_rate.setter
    def _learning_rate(self, rate):
        given = rate.schedule if isinstance(rate, Shown) else Taken(rate)
        leaf = _leaf(self.legacy)
        if getattr(leaf, "_hyper", None) is None:
            leaf._learning_rate = given
        else:
            leaf._hyper["learning_rate"] = given


class Shown(keras.optimizers.schedules.LearningRateSchedule):
    """A legacy learning-rate schedule, as one of Keras 3."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def __call__(self, step):
        return self.schedule(step)


class Taken(_LegacySchedule):
    """A Keras 3 learning-rate schedule, as a legacy one."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def __call__(self, step):
        return self.schedule(tf.convert_to_tensor(step))


def _variables(optimizer):
    held = optimizer.variables
    # A method in the legacy kind; in the new one a list that can be called.
    yield from held if isinstance(held, list) else held()
    hyper = getattr(optimizer, "_hyper", {})
    for each in [*vars(optimizer).values(), *hyper.values()]:
        if isinstance(each, tf.Variable):
            yield each
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:
        yield from _variables(inner)


def _leaf(optimizer):
    return getattr(optimizer, "inner_optimizer", optimizer)
