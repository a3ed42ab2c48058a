"""The schedule that a configuration describes."""

from keras_lottery.pruning import schedules


def of(prune):
    """Returns a dict from name pattern to level schedule.

    Args:
        prune: The section `prune` of a configuration.

    Raises:
        ValueError: Rates or sparsities that cannot be.

    Example:

    >>> from keras_lottery.runs import configuration
    >>> prune = configuration.defaults().prune
    >>> prune.rates = (("output/*", 0.1),)
    >>> {pattern: each.rate for pattern, each in of(prune).items()}
    {'output/*': 0.1, '*': 0.2}
    """
    if prune.sparsities:
        if prune.levels > len(prune.sparsities):
            raise ValueError(
                f"prune.levels={prune.levels}, but prune.sparsities lists "
                f"only {len(prune.sparsities)}."
            )
        listed = list(prune.sparsities[: prune.levels])
        return {"*": schedules.ListedSparsities(listed)}
    pairs = _pairs(prune.rates)
    if prune.rate:
        pairs.setdefault("*", prune.rate)
    if not pairs:
        raise ValueError(
            "prune.rate is 0 and prune.rates is empty: nothing is pruned."
        )
    return {
        pattern: schedules.IterativePruning(rate, prune.levels)
        for pattern, rate in pairs.items()
    }


def _pairs(rates):
    try:
        return {str(pattern): rate for pattern, rate in rates}
    except (TypeError, ValueError) as error:
        raise ValueError(
            "prune.rates must be pairs of a pattern and a rate, such as "
            f"(('output/*', 0.1),), got {rates!r}."
        ) from error
