"""The points of a grid, and what a grid can vary."""

from typing import NamedTuple

from keras_lottery.runs import configuration

# A trial keeps to one device, and leaves others to other trials.
STRATEGIES = ("none", "one_device")


class Point(NamedTuple):
    """One point of a grid: a run.

    Fields:
        settings: Dict from setting to value, of what the grid varies.
        config: The whole configuration.
        typed: What `keras-lottery run` is given for it.
    """

    settings: dict
    config: object
    typed: tuple


def said(settings):
    """Returns settings as people write them.

    Example:

    >>> said({"seed": 1, "prune.criterion": "random"})
    'seed=1, prune.criterion=random'
    """
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def check_setting(path):
    """Raises a ValueError for a setting that no grid can vary."""
    outside = configuration.OUTSIDE
    if path in outside or path.partition(".")[0] in outside:
        raise ValueError(
            f"--grid.{path}: {path} does not tell runs apart (more of it "
            "extends a run, or it changes nothing in it), so its values would "
            f"meet in one directory. Use --config.{path}."
        )


def check_strategy(config):
    """Raises a ValueError for a strategy that is over several devices."""
    strategy = config.distribute.strategy
    if strategy not in STRATEGIES:
        raise ValueError(
            f"distribute.strategy={strategy!r}: in a sweep every trial has one "
            f"device of its own; expected one of {', '.join(STRATEGIES)}. "
            "`keras-lottery run` trains one run on several devices."
        )
