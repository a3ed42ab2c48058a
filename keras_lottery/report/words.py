"""Numbers of a run as people write them."""

from keras_lottery import directions
from keras_lottery import notation
from keras_lottery.report import curves


def heading(text, metric):
    """Returns what stands over numbers without a unit of their own.

    Example:

    >>> heading("test {}, last", "auc"), heading("test {}", "r2_score")
    ('test auc, last (%)', 'test r2 score')
    """
    unit = " (%)" if directions.is_fraction(metric) else ""
    return f"{text.format(label(metric))}{unit}"


def format_table(levels, metric="accuracy"):
    """Returns a metric on test data: a row per level, a column per kind.

    Args:
        levels: List of dicts, one per replicate, arm and level.
        metric: Name without `val_` or `test_`.

    Returns:
        Lines of text, the last of which says what they show.

    Example:

    >>> row = {"arm": "ticket", "level": 0, "density": 1.0, "early_step": 40}
    >>> print(format_table([{**row, "test_accuracy": 0.96}]))
    kept %  ticket
       100  96.00 % @40
    Test accuracy @ step of the lowest validation loss. Means; n: ticket 1.
    """
    points = curves.pool(levels, metric)
    kinds = list(dict.fromkeys(point.kind for point in points))
    width = max([12, *map(len, kinds)])
    lines = ["  ".join(["kept %", *(f"{k:<{width}}" for k in kinds)])]
    for level in sorted({point.level for point in points}):
        row = {p.kind: p for p in points if p.level == level}
        cells = [_cell(row[k], metric) if k in row else "" for k in kinds]
        kept = notation.percent(next(iter(row.values())).density)
        lines.append(
            "  ".join([f"{kept:>6}", *(f"{c:<{width}}" for c in cells)])
        )
    lines.append(
        f"Test {label(metric)} @ step of the lowest validation loss. Means; "
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
    counts = [point.test.n for point in points]
    counts += [point.early_step.n for point in points]
    counts = [n for n in counts if n] or [0]
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low}–{high}"


def label(name):
    """Returns a kind of arm, or a metric, as people read it."""
    return name.replace("_", " ")


def _cell(point, metric):
    if not point.test.n:
        return "–"
    text = notation.with_unit(point.test.mean, metric)
    step = point.early_step
    return f"{text} @{step.mean:.0f}" if step.n else text
