"""Schedules: when to prune, and to which total sparsity.

All are `tfmot.sparsity.keras.PruningSchedule`s: `schedule(step)` returns
`(should_prune, sparsity)`. Those here count in levels, one complete training
each, and fire when a level ends: at `level * steps_per_level`.
"""

import abc
import copy
import reprlib

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import checks
from keras_lottery import tfmot_bridge
from keras_lottery.tfmot_bridge import PruningSchedule


class LevelSchedule(PruningSchedule):
    """What `IterativePruning`, `OneShot` and `ListedSparsities` share.

    Subclasses provide `levels` (prunings in all), `sparsity(level)` (the
    total after so many) and `get_config`.
    """

    steps_per_level = None

    @property
    @abc.abstractmethod
    def levels(self):
        """Number of prunings; level 0 is dense."""

    @abc.abstractmethod
    def sparsity(self, level):
        """Returns the total sparsity after `level` prunings."""

    def __call__(self, step):
        """Returns whether level ends at `step`, and the sparsity from then on.

        Raises:
            ValueError: `steps_per_level` was never filled in.
        """
        if self.steps_per_level is None:
            name = type(self).__name__
            raise ValueError(
                f"{name} counts in levels, and how many steps a level has is "
                f"not known yet. Pass `{name}(..., steps_per_level=1000)`; "
                "`lottery.prune` fills it in by itself."
            )
        table = [self.sparsity(level) for level in range(self.levels + 1)]
        step = tf.cast(step, tf.int64)
        done = tf.minimum(step // self.steps_per_level, self.levels)
        fires = (step % self.steps_per_level == 0) & (
            (step > 0) & (step // self.steps_per_level <= self.levels)
        )
        return fires, tf.gather(tf.constant(table, tf.float32), done)

    def with_steps_per_level(self, steps):
        """Returns a copy of this schedule whose levels have `steps` steps.

        Raises:
            ValueError: This schedule names another number of steps.
        """
        if self.steps_per_level not in (None, steps):
            raise ValueError(
                f"The schedule says steps_per_level={self.steps_per_level}, "
                f"but a level trains for {steps} steps. Leave it out, or make "
                "the two agree."
            )
        filled = copy.copy(self)
        filled.steps_per_level = _steps(steps)
        return filled

    def _configured(self, **config):
        config["steps_per_level"] = self.steps_per_level
        return {"class_name": type(self).__name__, "config": config}


class IterativePruning(LevelSchedule):
    """Removes a fraction of what is left, level after level.

    `sparsity(level) = 1 - (1 - initial_sparsity) * (1 - rate) ** level`

    Args:
        rate: Fraction of the remaining weights to remove per level, in (0, 1).
        levels: Number of prunings, at least 1.
        steps_per_level: Training steps per level; `fit` fills it in.
        initial_sparsity: Fraction removed at level 0 already, in [0, 1): that
            of the `mask` which `lottery.prune` starts from.

    Example:

    >>> f"{IterativePruning(rate=0.2, levels=10).sparsity(2):.2f}"
    '0.36'

    Reference: Frankle & Carbin (2019), section 2.
    """

    def __init__(
        self,
        rate=0.2,
        levels=10,
        steps_per_level=None,
        initial_sparsity=0.0,
    ):
        self.rate = checks.fraction("rate", rate)
        self.initial_sparsity = checks.fraction(
            "initial_sparsity", initial_sparsity
        )
        if not self.rate:
            raise ValueError("`rate` must be above 0: it would prune nothing.")
        self._levels = checks.whole("levels", levels, 1)
        checks.fraction("rate and levels", self.sparsity(self._levels))
        self.steps_per_level = _steps(steps_per_level)

    @property
    def levels(self):
        """Number of prunings; level 0 is dense."""
        return self._levels

    def sparsity(self, level):
        """Returns `1 - (1 - initial_sparsity) * (1 - rate) ** level`."""
        if not level:  # as given, not 1 - (1 - it)
            return self.initial_sparsity
        return 1 - (1 - self.initial_sparsity) * (1 - self.rate) ** level

    def get_config(self):
        """Returns the arguments, as tfmot's schedules do."""
        # Left out where it is 0: tickets and folders from before have none.
        begun = {"initial_sparsity": self.initial_sparsity}
        return self._configured(
            rate=self.rate,
            levels=self.levels,
            **(begun if self.initial_sparsity else {}),
        )


class OneShot(LevelSchedule):
    """Prunes once, after one complete training.

    Args:
        sparsity: Fraction of the weights to remove, in [0, 1).
        steps_per_level: Training steps per level; `fit` fills it in.

    Example:

    >>> OneShot(0.9).sparsity(1)
    0.9

    Reference: Frankle & Carbin (2019), section 1, one-shot pruning.
    """

    levels = 1

    def __init__(self, sparsity, steps_per_level=None):
        self._sparsity = checks.fraction("sparsity", sparsity)
        self.steps_per_level = _steps(steps_per_level)

    def sparsity(self, level):
        """Returns the sparsity asked for, or 0 at level 0."""
        return self._sparsity if level else 0.0

    def get_config(self):
        """Returns the arguments, as tfmot's schedules do."""
        return self._configured(sparsity=self._sparsity)


class ListedSparsities(LevelSchedule):
    """Prunes to each of a list of total sparsities in turn.

    Args:
        sparsities: Increasing fractions removed in all, each in [0, 1).
        steps_per_level: Training steps per level; `fit` fills it in.

    Example:

    >>> ListedSparsities([0.5, 0.75, 0.9]).sparsity(3)
    0.9
    """

    def __init__(self, sparsities, steps_per_level=None):
        if isinstance(sparsities, (str, int, float)) or not len(sparsities):
            raise ValueError(
                "`sparsities` must be a list of one or more fractions, such "
                f"as [0.5, 0.75, 0.9]; got {sparsities!r}."
            )
        self.sparsities = [checks.fraction("sparsities", s) for s in sparsities]
        if sorted(set(self.sparsities)) != self.sparsities:
            raise ValueError(
                "`sparsities` are totals and must increase from one level to "
                f"the next; got {self.sparsities}."
            )
        self.steps_per_level = _steps(steps_per_level)

    @property
    def levels(self):
        """Number of prunings; level 0 is dense."""
        return len(self.sparsities)

    def sparsity(self, level):
        """Returns the total sparsity listed for `level`; 0 at level 0."""
        return self.sparsities[level - 1] if level else 0.0

    def get_config(self):
        """Returns the arguments, as tfmot's schedules do."""
        return self._configured(sparsities=list(self.sparsities))


SCHEDULES = {
    "IterativePruning": IterativePruning,
    "OneShot": OneShot,
    "ListedSparsities": ListedSparsities,
    "ConstantSparsity": tfmot_bridge.ConstantSparsity,
    "PolynomialDecay": tfmot_bridge.PolynomialDecay,
}


def serialize(schedule):
    """Returns the JSON form of a schedule, or of a dict of them."""
    if isinstance(schedule, dict):
        return {pattern: serialize(each) for pattern, each in schedule.items()}
    return schedule.get_config()


def deserialize(config, custom_objects=None):
    """Returns what `serialize` was given.

    Nothing that a config names is imported.

    Args:
        config: `{"class_name": ..., "config": ...}`, or a dict of patterns.
        custom_objects: Dict from class name to class, for own schedules.

    Raises:
        ValueError: It is of no schedule that is known, or with arguments that
            this one does not take.

    Example:

    >>> deserialize(OneShot(0.5).get_config()).sparsity(1)
    0.5
    """
    if isinstance(config, dict) and set(config) != {"class_name", "config"}:
        return {
            pattern: _one(each, custom_objects)
            for pattern, each in config.items()
        }
    return _one(config, custom_objects)


def _one(config, custom_objects):
    """Returns the schedule of a config that may come from anybody."""
    if not isinstance(config, dict) or set(config) != {"class_name", "config"}:
        raise ValueError(
            'A schedule is written as {"class_name": ..., "config": ...}, got '
            f"{reprlib.repr(config)}."
        )
    name = config["class_name"]
    found = _class(name, {**SCHEDULES, **(custom_objects or {})})
    try:
        return found.from_config(config["config"])
    except (ArithmeticError, TypeError) as error:
        raise ValueError(
            f"{name} does not take {reprlib.repr(config['config'])}: {error}"
        ) from error


def _class(name, known):
    """Returns the class of schedules of a name; other classes are none."""
    found = None
    if isinstance(name, str):
        registered = keras.saving.get_registered_object
        found = known.get(name) or registered(name)
    if not isinstance(found, type) or not issubclass(found, PruningSchedule):
        raise ValueError(
            f"Unknown schedule {reprlib.repr(name)}. Expected one of "
            f"{', '.join(known)}; pass your own in `custom_objects`."
        )
    return found


def firings(schedule, steps):
    """Returns when a schedule prunes within `steps` training steps.

    tfmot counts from 1: the firing of step s comes before the s-th batch.

    Args:
        schedule: Any `PruningSchedule`.
        steps: How many training steps to look at.

    Returns:
        Dict from step (1 to `steps`) to total sparsity, only where it fires.

    Example:

    >>> from keras_lottery.tfmot_bridge import ConstantSparsity
    >>> list(firings(ConstantSparsity(0.5, begin_step=2, frequency=3), 9))
    [2, 5, 8]
    """

    # Not `tf.map_fn`: where the schedule raises, that leaves a caching device
    # behind, and no MirroredStrategy can be entered in this process any more.
    @tf.function(autograph=False)
    def look():
        def one(step, fires, sparsities):
            fire, sparsity = schedule(step)
            at = tf.cast(step, tf.int32) - 1
            fires = fires.write(at, tf.cast(fire, tf.bool))
            sparsities = sparsities.write(at, tf.cast(sparsity, tf.float32))
            return step + 1, fires, sparsities

        first = tf.constant(1, tf.int64)  # as tfmot counts
        found = (
            tf.TensorArray(tf.bool, steps),
            tf.TensorArray(tf.float32, steps),
        )
        _, *found = tf.while_loop(
            lambda step, *_: step <= steps, one, (first, *found)
        )
        return [each.stack() for each in found]

    fires, sparsities = (each.numpy() for each in look())
    # float32 fractions such as 0.8 are not the float64 that was asked for:
    # the shortest decimal that gives the same float32 is.
    return {
        int(i) + 1: float(str(np.float32(sparsities[i])))
        for i in np.flatnonzero(fires)
    }


def _steps(value):
    if value is None:
        return None
    return checks.whole("steps_per_level", value, 1)
