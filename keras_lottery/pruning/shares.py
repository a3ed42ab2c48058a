"""Budgets: split into shares, and checked before they are spent."""


def apportion(total, shares, capacities):
    """Splits `total` in proportion to `shares`, exactly, within capacities.

    Largest remainders in whole-number arithmetic; of equal remainders the
    earlier one gets the unit. What a full one cannot take, the others share.

    Args:
        total: Int, at most the sum of `capacities`.
        shares: List of ints >= 0, the proportions.
        capacities: List of ints >= 0, the most that each can take.

    Returns:
        List of ints that sum to `total`.

    Example:

    >>> apportion(10, [1, 1, 1], [10, 10, 2])
    [4, 4, 2]
    """
    if not 0 <= total <= sum(capacities):
        raise ValueError(f"Cannot split {total} into {capacities}.")
    given = [None] * len(shares)
    while True:
        open_ = [i for i, value in enumerate(given) if value is None]
        rest = total - sum(value for value in given if value is not None)
        if not any(shares[i] for i in open_):
            shares = [1] * len(shares)
        whole = sum(shares[i] for i in open_)
        full = [i for i in open_ if rest * shares[i] > capacities[i] * whole]
        if not full:
            break
        for i in full:
            given[i] = capacities[i]
    for i in open_:
        given[i] = rest * shares[i] // whole
    remainders = sorted(open_, key=lambda i: -(rest * shares[i] % whole))
    for i in remainders[: total - sum(given)]:
        given[i] += 1
    return given


def check_keep(scores, mask, keep):
    """Raises a ValueError unless `keep` weights of `mask` can be chosen."""
    if set(scores) != set(mask):
        raise ValueError(
            f"Scores are of {sorted(scores)}, the mask is of {sorted(mask)}."
        )
    if not 0 <= keep <= mask.kept:
        raise ValueError(
            f"Cannot keep {keep} weights: the mask has {mask.kept} left, and "
            "pruning revives none."
        )
