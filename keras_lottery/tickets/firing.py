"""When schedules prune in a training that nothing interrupts."""

from keras_lottery.pruning import schedules
from keras_lottery.tickets import sparse_start


def firings(settings, steps):
    """Returns {step: {pattern: sparsity}} for all prunings up to `steps`.

    The pruning of step s comes before the s-th batch, as tfmot counts. A level
    schedule, whose `steps_per_level` is known, prunes between two levels.

    Args:
        settings: The `Settings`, checked.
        steps: How many training steps to look at.

    Raises:
        ValueError: One asks for less sparsity than the mask has that the
            settings begin with.
    """
    due = {}
    for pattern, schedule in settings.grouped.items():
        look = _between_levels if settings.in_levels else schedules.firings
        for step, sparsity in look(schedule, steps).items():
            due.setdefault(step, {})[pattern] = sparsity
    sparse_start.check_firings(settings.mask, settings.governed, due)
    return due


def check_some(due, settings, steps):
    """Raises a ValueError if nothing is due in a training of `steps` steps."""
    if not due:
        config = schedules.serialize(settings.grouped)
        raise ValueError(
            f"The schedule would never prune: it fires at none of the {steps} "
            f"steps of this training. Train longer, or change {config}."
        )


def check_lengths(grouped, epochs, steps):
    """Raises a ValueError for level schedules without `steps_per_level`.

    Args:
        grouped: Dict from pattern to schedule.
        epochs: Epochs of the training, which says nothing of levels.
        steps: Steps of an epoch; None if not known.
    """
    for schedule in grouped.values():
        levels = isinstance(schedule, schedules.LevelSchedule)
        if levels and schedule.steps_per_level is None:
            raise ValueError(_without_steps(schedule, epochs * (steps or 0)))


def _without_steps(schedule, steps):
    name = type(schedule).__name__
    each = max(steps // (schedule.levels + 1), 1)
    shared = (
        f" The {steps} steps of this fit are {each} for each of level 0 to "
        f"{schedule.levels}."
    )
    return (
        f"{name} counts in levels, and in plain `fit` nothing says how many "
        f"steps a level has: pass `{name}(..., steps_per_level={each})`."
        f"{shared if steps else ''}"
    )


def _between_levels(schedule, steps):
    """Returns {step: sparsity}; the step is the first one of the level."""
    firsts = {
        level * schedule.steps_per_level + 1: level
        for level in range(1, schedule.levels + 1)
    }
    return {s: schedule.sparsity(n) for s, n in firsts.items() if s <= steps}
