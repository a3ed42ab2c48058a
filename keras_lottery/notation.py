"""Numbers as people write them."""

import math

from keras_lottery import directions


def percent(fraction):
    """Returns a density as people write it: plain, one decimal, no sign.

    Example:

    >>> percent(1.0), percent(0.1342), percent(0.00126), percent(None)
    ('100', '13.4', '0.13', '–')
    """
    value = 100 * number(fraction)
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


def number(value):
    """Returns a value as a float; NaN for what is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _magnitude(value):
    return math.floor(math.log10(value))
