"""Rewinds: what the next level starts from, after a pruning."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import keras

from keras_lottery import choices
from keras_lottery.training import keras_private
from keras_lottery.training import state


class Rewind(NamedTuple):
    """One way to start the next level.

    Fields:
        restore: Function `(point, model, optimizer)`; `point` is the
            `Snapshot` of the rewind step.
        starts_at_step: Whether the level trains from the rewind step on, or
            its whole length.
        start: Which weights the ticket calls its start: those of the rewind
            `"point"`, of step `"zero"`, or those the `"level"` began with.
        returns: Parts of the state (`proofs.PARTS`) that are those of the
            rewind point afterwards. Proved after every rewind, bit for bit;
            weights are zero where removed, their slots fresh.
        keeps: Parts that are as the last level ended. Proved in the same way.
    """

    restore: Callable
    starts_at_step: bool
    start: str
    returns: tuple = ()
    keeps: tuple = ()


def everything(point, model, optimizer):
    """Restores weights, statistics, seeds, slots, iteration, learning rate."""
    state.restore(point, model, optimizer)


def clock(point, model, optimizer):
    """Restores the iteration and the learning rate; keeps all else."""
    del model
    if optimizer is not None:
        clock = keras_private.clock_variables(optimizer)
        state.restore_clock(point, optimizer, clock)


def nothing(point, model, optimizer):
    """Restores nothing."""
    del point, model, optimizer


_ALL = ("weights", "others", "slots", "clock")

REWINDS = {
    # Frankle & Carbin (2019) at step 0; Frankle et al. (2020) after it.
    "weights": Rewind(everything, True, "point", returns=_ALL),
    # Renda et al. (2020), section 4: learning rate rewinding.
    "learning_rate": Rewind(
        clock,
        True,
        "level",
        returns=("clock",),
        keeps=("weights", "others", "slots"),
    ),
    # Renda et al. (2020), section 3: the last learning rate, see `held_rate`.
    "fine_tune": Rewind(nothing, False, "level", keeps=_ALL),
    # Frankle & Carbin (2019), appendix B, strategy 2.
    "continue": Rewind(nothing, False, "zero", keeps=_ALL),
    "none": Rewind(nothing, False, "level", keeps=_ALL),
}


def get(identifier):
    """Returns the `Rewind` called `identifier`, or a `Rewind` as it is.

    Example:

    >>> get("weights").start
    'point'
    """
    if isinstance(identifier, Rewind):
        return identifier
    return choices.resolve("rewind", identifier, REWINDS, "a Rewind")


@keras.saving.register_keras_serializable("keras_lottery")
class HeldSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning-rate schedule that stays where it is at its last step.

    `rate(step) = schedule(min(step, last_step))`

    Args:
        schedule: Any `LearningRateSchedule`.
        last_step: The last step of the schedule that is used.
    """

    def __init__(self, schedule, last_step):
        super().__init__()
        self.schedule, self.last_step = schedule, last_step

    def __call__(self, step):
        last = keras.ops.cast(self.last_step, keras.ops.dtype(step))
        return self.schedule(keras.ops.minimum(step, last))

    def get_config(self):
        """Returns the arguments."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "last_step": self.last_step}

    @classmethod
    def from_config(cls, config):
        """Returns the schedule of a config."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["last_step"])


@contextlib.contextmanager
def held_rate(optimizer, steps):
    """Holds the learning rate of step `steps` - 1 from then on.

    Fine-tuning goes on with the last learning rate, while the iteration, which
    Adam's bias correction needs, counts on.
    """
    replaced = []
    for leaf in keras_private.leaves(optimizer):
        rate = keras_private.learning_rate(leaf)
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            keras_private.set_learning_rate(leaf, HeldSchedule(rate, steps - 1))
            replaced.append((leaf, rate))
    try:
        yield
    finally:
        for leaf, rate in replaced:
            keras_private.set_learning_rate(leaf, rate)
