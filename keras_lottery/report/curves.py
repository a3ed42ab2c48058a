"""Curves: the rows of a run, pooled per kind of arm and level."""

import dataclasses
import math
import re
import statistics

# A control is a function and so a verb; what it makes is what a figure shows.
_KINDS = {
    "ticket": "ticket",
    "reinitialize": "reinitialized",
    "shuffle": "shuffled",
    "randomize": "random",
}
_ORDER = tuple(_KINDS.values())


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean, smallest and largest of `n` numbers; NaN if there are none."""

    mean: float
    low: float
    high: float
    n: int


@dataclasses.dataclass(frozen=True)
class Point:
    """One kind of arm at one level: `n` trainings and what they measured.

    A metric's own `n` is smaller where some of the trainings lack it.
    """

    kind: str
    level: int
    density: float
    n: int
    val_accuracy: Spread
    test_accuracy: Spread
    last_test_accuracy: Spread
    early_step: Spread


@dataclasses.dataclass(frozen=True)
class Winner:
    """The level chosen on validation data, and what it is measured against."""

    ticket: Point
    dense: Point
    control: Point | None

    @property
    def beats_control(self):
        """Whether the reinitialized control is worse on test data."""
        if self.control is None:
            return False
        ticket, control = self.ticket.test_accuracy, self.control.test_accuracy
        return difference(control, ticket) < 0


def kind_of(arm):
    """Returns what an arm is one of: several seeds make one curve.

    Example:

    >>> kind_of("reinitialized_0"), kind_of("shuffle_12"), kind_of("one_shot")
    ('reinitialized', 'shuffled', 'one_shot')
    """
    name = re.sub(r"_\d+$", "", str(arm))
    return _KINDS.get(name, name)


def spread(values):
    """Returns the `Spread` of the numbers among `values`.

    None, NaN, infinities and what is not a number are left out.

    Example:

    >>> spread([1.0, None, 3.0, float("nan")])
    Spread(mean=2.0, low=1.0, high=3.0, n=2)
    """
    found = [v for v in map(number, values) if math.isfinite(v)]
    if not found:
        return Spread(math.nan, math.nan, math.nan, 0)
    return Spread(statistics.mean(found), min(found), max(found), len(found))


def difference(first, second):
    """Returns how much larger the first mean is, where equal means give 0.

    An accuracy is a count over a count, often in float32: whether two means
    are equal must not hang on a last bit.

    Example:

    >>> difference(spread([0.1, 0.3]), spread([0.2]))
    0.0
    """
    return round(first.mean - second.mean, 6) + 0.0


def pool(levels):
    """Pools rows over replicates, and over arms of the same kind.

    Args:
        levels: List of dicts, one per replicate, arm and level.

    Returns:
        List of `Point`, the ticket's first, then by kind and level.

    Example:

    >>> rows = [
    ...     {"arm": "shuffled_0", "level": 1, "density": 0.8, "early_step": 4},
    ...     {"arm": "shuffled_1", "level": 1, "density": 0.8, "early_step": 6},
    ... ]
    >>> pool(rows)[0].early_step
    Spread(mean=5.0, low=4.0, high=6.0, n=2)
    """
    groups = {}
    for row in levels:
        key = kind_of(row["arm"]), int(row["level"])
        groups.setdefault(key, []).append(row)
    points = [_point(*key, rows) for key, rows in groups.items()]
    return sorted(points, key=lambda point: (_rank(point.kind), point.level))


def winning_level(levels, tolerance=0.0):
    """Finds the sparsest ticket as good as the dense network, and as early.

    Means over replicates are compared: `val_accuracy` no lower than the dense
    one minus `tolerance`, `early_step` no later. Chosen on validation data,
    to be reported on test data.

    Args:
        levels: List of dicts, one per replicate, arm and level.
        tolerance: How much lower the validation accuracy may be, at least 0.

    Returns:
        A `Winner`, or None if no level is as good.

    Raises:
        ValueError: A negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"`tolerance` must be >= 0, got {tolerance!r}.")
    points = {(point.kind, point.level): point for point in pool(levels)}
    dense = points.get(("ticket", 0))
    if dense is None:
        return None
    good = [
        point
        for (kind, level), point in points.items()
        if kind == "ticket" and level > 0 and _no_worse(point, dense, tolerance)
    ]
    if not good:
        return None
    ticket = max(good, key=lambda point: point.level)
    control = points.get(("reinitialized", ticket.level))
    return Winner(ticket, dense, control)


def _point(kind, level, rows):
    measured = {
        name: spread(row.get(name) for row in rows)
        for name in (
            "val_accuracy",
            "test_accuracy",
            "last_test_accuracy",
            "early_step",
        )
    }
    density = spread(row.get("density") for row in rows).mean
    return Point(kind, level, density, len(rows), **measured)


def _no_worse(point, dense, tolerance):
    # A replicate that diverged has no numbers: a mean without it would flatter.
    complete = all(
        spread.n >= dense.n
        for each in (point, dense)
        for spread in (each.val_accuracy, each.early_step)
    )
    return (
        complete
        and difference(point.val_accuracy, dense.val_accuracy) >= -tolerance
        and difference(point.early_step, dense.early_step) <= 0
    )


def _rank(kind):
    known = kind in _ORDER
    return (_ORDER.index(kind) if known else len(_ORDER), kind)


def number(value):
    """Returns a value as a float; NaN for what is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
