"""The learning-rate schedule of the papers: a warmup, then drops."""

import math
import numbers

import keras

from keras_lottery import checks


@keras.saving.register_keras_serializable("keras_lottery")
class WarmupAndDrops(keras.optimizers.schedules.LearningRateSchedule):
    """Rises in a line from 0, and falls by a factor at given steps.

    `rate * factor ** (drops passed) * min(1, step / warmup)`

    A drop at step d holds from iteration d on. With a warmup the first step
    has rate 0; without, there is no last factor.

    Args:
        rate: The learning rate after the warmup, above 0.
        warmup: Number of steps until then; 0 for none.
        drops: Increasing steps at which the rate falls.
        factor: What a drop multiplies the rate by, in (0, 1).

    Raises:
        ValueError: A number out of range, or drops that do not increase.

    Example:

    >>> rate = WarmupAndDrops(0.1, warmup=10, drops=[20, 30])
    >>> [f"{float(rate(step)):.3f}" for step in (0, 5, 19, 20, 30)]
    ['0.000', '0.050', '0.100', '0.010', '0.001']

    Reference: Frankle & Carbin (2019), section 4 and appendix I.5.
    """

    def __init__(self, rate, warmup=0, drops=(), factor=0.1):
        self.rate = _between("rate", rate, math.inf)
        self.warmup = checks.whole("warmup", warmup, 0)
        self.drops = _increasing(drops)
        self.factor = _between("factor", factor, 1)

    def __call__(self, step):
        """Returns the rate at `step`, or at each of an array of steps."""
        # Compared as whole numbers: float32 counts to 16.7 million only.
        step = keras.ops.cast(step, "int64")
        drops = keras.ops.convert_to_tensor(self.drops, "int64")
        passed = keras.ops.sum(
            keras.ops.cast(step[..., None] >= drops, "int32"), axis=-1
        )
        rates = [self.rate * self.factor**k for k in range(len(self.drops) + 1)]
        dtype = keras.config.floatx()
        rate = keras.ops.take(keras.ops.convert_to_tensor(rates, dtype), passed)
        if not self.warmup:
            return rate
        warm = keras.ops.minimum(step, self.warmup)
        return rate * (keras.ops.cast(warm, dtype) / self.warmup)

    def get_config(self):
        """Returns the arguments."""
        return {
            "rate": self.rate,
            "warmup": self.warmup,
            "drops": list(self.drops),
            "factor": self.factor,
        }


def _between(name, value, limit):
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 < value < limit:
        raise ValueError(
            f"`{name}` must be above 0 and below {limit}; got {value!r}."
        )
    return float(value)


def _increasing(drops):
    if not isinstance(drops, (tuple, list)):
        raise ValueError(
            f"`drops` must be a list of steps, such as [20000, 25000]; got "
            f"{drops!r}."
        )
    steps = [checks.whole("drops", step, 1) for step in drops]
    if sorted(set(steps)) != steps:
        raise ValueError(f"`drops` must increase; got {list(drops)}.")
    return steps
