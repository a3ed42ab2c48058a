"""Numbers of a run as people write them."""

import math

from keras_lottery import directions
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


def digits(value, metric):
    """Returns a metric as people write it: percent if it is a fraction.

    Two decimals of a percent, four digits of anything else.

    Example:

    >>> digits(0.96, "accuracy"), digits(0.96, "mae"), digits(1.2e-9, "mse")
    ('96.00', '0.9600', '1.200e-09')
    """
    if directions.is_fraction(metric):
        return f"{100 * value:.2f}"
    short = f"{value:.3e}"
    if not math.isfinite(value):
        return "–"
    exponent = int(short.partition("e")[2])
    if value and not -5 < exponent < 6:
        return short
    return f"{value:,.{max(0, 3 - exponent)}f}"


def with_unit(value, metric):
    """Returns a metric as in a sentence.

    Example:

    >>> with_unit(0.96, "accuracy"), with_unit(12345.6, "mae")
    ('96.00 %', '12,346')
    """
    sign = " %" if directions.is_fraction(metric) else ""
    return f"{digits(value, metric)}{sign}"


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
        kept = percent(next(iter(row.values())).density)
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


def _magnitude(value):
    return math.floor(math.log10(value))


def _cell(point, metric):
    if not point.test.n:
        return "–"
    text = with_unit(point.test.mean, metric)
    step = point.early_step
    return f"{text} @{step.mean:.0f}" if step.n else text
