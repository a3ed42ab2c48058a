"""Curves: the rows of a run, pooled per kind of arm and level."""

import dataclasses
import math
import re
import statistics

from keras_lottery import directions
from keras_lottery import notation

# A control is a function and so a verb; what it makes is what a figure shows.
_KINDS = {
    "ticket": "ticket",
    "one_shot": "one_shot",
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

    The metric is at early stopping on validation and test data, and on test
    data after the last step. Its own `n` is smaller where some of the
    trainings lack it.
    """

    kind: str
    level: int
    density: float
    n: int
    validation: Spread
    test: Spread
    last_test: Spread
    early_step: Spread


@dataclasses.dataclass(frozen=True)
class Winner:
    """The level chosen on validation data, and what it is measured against."""

    ticket: Point
    dense: Point
    control: Point | None
    mode: str = "max"

    @property
    def beats_control(self):
        """Whether the reinitialized control is worse on test data."""
        if self.control is None:
            return False
        return gain(self.control.test, self.ticket.test, self.mode) < 0

    @property
    def overlaps_control(self):
        """Whether the control's best training is as good as the worst."""
        if self.control is None:
            return False
        ticket, control = self.ticket.test, self.control.test
        if self.mode == "max":
            return control.high >= ticket.low
        return control.low <= ticket.high


def kind_of(arm):
    """Returns what an arm is one of: several seeds make one curve.

    Example:

    >>> kind_of("reinitialized_0"), kind_of("shuffle_12"), kind_of("one_shot")
    ('reinitialized', 'shuffled', 'one_shot')
    """
    # An arm may come from anyone's file: nothing in it steers a terminal.
    plain = "".join(c if c.isprintable() else "\ufffd" for c in str(arm))
    name = re.sub(r"_\d+$", "", plain)
    return _KINDS.get(name, name)


def spread(values):
    """Returns the `Spread` of the numbers among `values`.

    None, NaN, infinities and what is not a number are left out.

    Example:

    >>> spread([1.0, None, 3.0, float("nan")])
    Spread(mean=2.0, low=1.0, high=3.0, n=2)
    """
    found = [v for v in map(notation.number, values) if math.isfinite(v)]
    if not found:
        return Spread(math.nan, math.nan, math.nan, 0)
    return Spread(statistics.mean(found), min(found), max(found), len(found))


def difference(first, second):
    """Returns how much larger the first mean is, where equal means give 0.

    An accuracy is a count over a count, often in float32: whether two means
    are equal must not hang on a last bit. Six digits of the larger count, as
    an error may be far below 1, or far above.

    Example:

    >>> difference(spread([0.1, 0.3]), spread([0.2]))
    0.0
    """
    scale = max(abs(first.mean), abs(second.mean))
    if not (first.n and second.n and scale):
        return first.mean - second.mean
    decimals = 6 - math.ceil(math.log10(scale))
    return round(first.mean - second.mean, decimals) + 0.0


def gain(first, second, mode):
    """Returns how much better the first mean is, where `mode` is better.

    Example:

    >>> gain(spread([0.5]), spread([0.25]), "min")
    -0.25
    """
    sign = 1 if mode == "max" else -1
    return sign * difference(first, second)


def pool(levels, metric="accuracy"):
    """Pools rows over replicates, and over arms of the same kind.

    Args:
        levels: List of dicts, one per replicate, arm and level.
        metric: Name without `val_` or `test_`.

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
    points = [_point(*key, rows, metric) for key, rows in groups.items()]
    return sorted(points, key=lambda point: (_rank(point.kind), point.level))


def winning_level(levels, tolerance=0.0, metric="accuracy", mode=None):
    """Finds the sparsest ticket as good as the dense network, and as early.

    Means over replicates are compared: the metric on validation data worse
    than the dense one by no more than `tolerance`, `early_step` no later.
    Chosen on validation data, to be reported on test data.

    Args:
        levels: List of dicts, one per replicate, arm and level.
        tolerance: How much worse the metric may be, at least 0.
        metric: Name without `val_` or `test_`.
        mode: `"max"` or `"min"`; known for common metrics.

    Returns:
        A `Winner`, or None if no level is as good.

    Raises:
        ValueError: A negative tolerance, or a metric whose direction is not
            known.
    """
    if not tolerance >= 0:
        raise ValueError(f"`tolerance` must be >= 0, got {tolerance!r}.")
    mode = directions.mode_of(metric, mode)
    points = {(p.kind, p.level): p for p in pool(levels, metric)}
    dense = points.get(("ticket", 0))
    if dense is None:
        return None
    good = [
        point
        for (kind, level), point in points.items()
        if kind == "ticket"
        and level > 0
        and _no_worse(point, dense, tolerance, mode)
    ]
    if not good:
        return None
    ticket = max(good, key=lambda point: point.level)
    control = points.get(("reinitialized", ticket.level))
    return Winner(ticket, dense, control, mode)


def _point(kind, level, rows, metric):
    columns = {
        "validation": f"val_{metric}",
        "test": f"test_{metric}",
        "last_test": f"last_test_{metric}",
        "early_step": "early_step",
    }
    measured = {
        name: spread(row.get(column) for row in rows)
        for name, column in columns.items()
    }
    density = spread(row.get("density") for row in rows).mean
    return Point(kind, level, density, len(rows), **measured)


def _no_worse(point, dense, tolerance, mode):
    # A replicate that diverged has no numbers: a mean without it would flatter.
    complete = all(
        spread.n >= dense.n
        for each in (point, dense)
        for spread in (each.validation, each.early_step)
    )
    return (
        complete
        and gain(point.validation, dense.validation, mode) >= -tolerance
        # Steps are counted, and so are their means exact.
        and point.early_step.mean <= dense.early_step.mean
    )


def _rank(kind):
    known = kind in _ORDER
    return (_ORDER.index(kind) if known else len(_ORDER), kind)
