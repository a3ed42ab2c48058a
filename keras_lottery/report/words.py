"""Numbers of a run as people write them."""

import math

from keras_lottery.report import curves


def percent(fraction):
    """Returns a density as people write it: plain, one decimal, no sign.

    Example:

    >>> percent(1.0), percent(0.1342), percent(0.00126), percent(None)
    ('100', '13.4', '0.13', '–')
    """
    value = 100 * curves.number(fraction)
    if not math.isfinite(value):
        return "–"
    # Below one percent two digits that count, however far down they are.
    decimals = 1 if value >= 1 or value <= 0 else 1 - _magnitude(value)
    return f"{value:.{decimals}f}".removesuffix(".0")


def format_table(levels):
    """Returns test accuracies as text: a row per level, a column per kind.

    Example:

    >>> row = {"arm": "ticket", "level": 0, "density": 1.0, "early_step": 40}
    >>> print(format_table([{**row, "test_accuracy": 0.96}]))
    kept %  ticket
       100  96.00 % @40
    Test accuracy @ step of the lowest validation loss. Means; n: ticket 1.
    """
    points = curves.pool(levels)
    kinds = list(dict.fromkeys(point.kind for point in points))
    width = max([12, *map(len, kinds)])
    lines = ["  ".join(["kept %", *(f"{k:<{width}}" for k in kinds)])]
    for level in sorted({point.level for point in points}):
        row = {p.kind: p for p in points if p.level == level}
        cells = [_cell(row[k]) if k in row else "" for k in kinds]
        kept = percent(next(iter(row.values())).density)
        lines.append(
            "  ".join([f"{kept:>6}", *(f"{c:<{width}}" for c in cells)])
        )
    lines.append(
        "Test accuracy @ step of the lowest validation loss. Means; "
        f"n: {trainings(points)}."
    )
    return "\n".join(line.rstrip() for line in lines)


def trainings(points):
    """Returns how many trainings are behind each point, kind by kind.

    Example:

    >>> rows = [{"arm": "one_shot", "level": 1, "early_step": 4}] * 2
    >>> trainings(curves.pool(rows))
    'one shot 2'
    """
    kinds = list(dict.fromkeys(point.kind for point in points))
    return ", ".join(
        f"{label(kind)} {sample([p for p in points if p.kind == kind])}"
        for kind in kinds
    )


def sample(points):
    """Returns the number of trainings behind a mark, or its range: `2–3`."""
    counts = [point.test_accuracy.n for point in points]
    counts += [point.early_step.n for point in points]
    counts = [n for n in counts if n] or [0]
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low}–{high}"


def label(kind):
    """Returns a kind of arm as people read it."""
    return kind.replace("_", " ")


def _magnitude(value):
    return math.floor(math.log10(value))


def _cell(point):
    if not point.test_accuracy.n:
        return "–"
    text = f"{point.test_accuracy.mean:.2%}".replace("%", " %")
    step = point.early_step
    return f"{text} @{step.mean:.0f}" if step.n else text
