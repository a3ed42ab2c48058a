"""Groups: which weights follow which schedule."""

import fnmatch

from keras_lottery.pruning import schedules
from keras_lottery.tfmot_bridge import PruningSchedule


def check(schedule):
    """Returns `schedule` as a dict of patterns, or raises.

    Raises:
        ValueError: Not a `PruningSchedule`, an empty dict, or schedules that
            do not fire together.
    """
    grouped = schedule if isinstance(schedule, dict) else {"*": schedule}
    if not grouped:
        raise ValueError("The dict of schedules is empty.")
    for each in grouped.values():
        if not isinstance(each, PruningSchedule):
            raise ValueError(
                "A schedule must be a tfmot PruningSchedule, such as "
                "`lottery.IterativePruning(0.2, 10)`, or a dict of name "
                f"pattern to those; got {each!r}."
            )
    kinds = {isinstance(s, schedules.LevelSchedule) for s in grouped.values()}
    if len(kinds) > 1:
        raise ValueError(
            "Schedules that count in levels and schedules that prune in "
            "place cannot be mixed in one dict."
        )
    if kinds == {True}:
        levels = {key: each.levels for key, each in grouped.items()}
        if len(set(levels.values())) > 1:
            raise ValueError(
                f"All schedules must have the same number of levels: {levels}."
            )
    return dict(grouped)


def counts_in_levels(grouped):
    """Returns whether the schedules of `grouped` are level schedules."""
    return all(
        isinstance(each, schedules.LevelSchedule) for each in grouped.values()
    )


def assign(names, patterns):
    """Returns which names each pattern governs; the first match wins.

    Args:
        names: Names of prunable weights.
        patterns: fnmatch patterns on those names, in order.

    Returns:
        Dict from pattern to list of names. Names that fit none are left out.

    Raises:
        ValueError: A pattern governs nothing.

    Example:

    >>> assign(["a/kernel", "out/kernel"], ["out/*", "*"])
    {'out/*': ['out/kernel'], '*': ['a/kernel']}
    """
    governed = {pattern: [] for pattern in patterns}
    for name in names:
        for pattern in patterns:
            if fnmatch.fnmatchcase(name, pattern):
                governed[pattern].append(name)
                break
    for pattern, members in governed.items():
        if not members:
            raise ValueError(
                f"The pattern {pattern!r} governs no weight that an earlier "
                f"pattern leaves. Prunable weights: {', '.join(names)}."
            )
    return governed


def sparsities(grouped, level):
    """Returns a dict from pattern to total sparsity at `level`."""
    return {key: each.sparsity(level) for key, each in grouped.items()}
