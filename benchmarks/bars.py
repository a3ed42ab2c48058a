"""Bars: what is promised, what was measured, and whether that holds.

Every benchmark prints its bars as one kind of table, whose head is `HEAD`, so
that `bench.py` finds them. Bars of time are judged by an interval that holds
the median with 95 %: "<= 1.1" holds when the lower end is not above 1.1,
">= 3" when the upper end is not below 3. A row without a bar is there to know.

Reference: `keras_lottery.exporting.measuring.ratio_interval`.
"""

import datetime
import os
import pathlib
import platform
from importlib import metadata
from typing import NamedTuple

import numpy as np

from keras_lottery.exporting import measuring

HEAD = ("what", "measured", "95 % interval", "n", "bar", "verdict")
PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "torch",
    "tf_keras",
    "tensorflow-model-optimization",
)


class Bar(NamedTuple):
    """A measured figure and what it is held against.

    Fields:
        what: What was measured: `"fit / ours"`.
        measured: The figure.
        low, high: The interval that holds it with 95 %.
        n: How many pairs or samples it is of.
        sign: `"<="` or `">="`, or None for no bar.
        bar: The bar.
        unit: Of the figure; a ratio has none.
    """

    what: str
    measured: float
    low: float
    high: float
    n: int
    sign: str | None = None
    bar: float | None = None
    unit: str = ""

    @property
    def verdict(self):
        """`"holds"`, `"MISSED"`, or `""` without a bar."""
        if self.sign is None:
            return ""
        if self.sign not in ("<=", ">="):
            raise ValueError(
                f"A bar's sign is '<=' or '>=', got {self.sign!r}."
            )
        upper = self.sign == "<="
        held = self.low <= self.bar if upper else self.high >= self.bar
        return "holds" if held else "MISSED"

    @property
    def cells(self):
        """The cells of its row, under `HEAD`."""
        low, high = _number(self.low), _number(self.high)
        unit = f" {self.unit}" if self.unit else ""
        return (
            self.what,
            f"{_number(self.measured)}{unit}",
            f"{low} to {high}",
            str(self.n),
            "" if self.sign is None else f"{self.sign} {self.bar:g}{unit}",
            self.verdict,
        )


def of_pairs(what, first, second, sign=None, bar=None):
    """Returns the `Bar` of first / second, numbers of the same rounds.

    Raises:
        ValueError: Fewer than 6 pairs.

    Example:

    >>> of_pairs("a / b", [2.0] * 6, [1.0] * 6, "<=", 1.9).cells
    ('a / b', '2.00', '2.00 to 2.00', '6', '<= 1.9', 'MISSED')
    """
    found = measuring.ratio_interval(first, second)
    return Bar(what, *found, len(first), sign, bar)


def of_samples(what, samples, sign=None, bar=None, unit="s"):
    """Returns the `Bar` of a median of at least 6 samples."""
    found = measuring.ratio_interval(samples, np.ones(len(samples)))
    return Bar(what, *found, len(samples), sign, bar, unit)


def of_count(what, count, sign=None, bar=None, unit=""):
    """Returns the `Bar` of what is counted and has no interval."""
    return Bar(what, count, count, count, 1, sign, bar, unit)


def table(rows):
    """Returns the table of bars."""
    return markdown(HEAD, [row.cells for row in rows])


def markdown(head, rows):
    """Returns a table of cells.

    Example:

    >>> print(markdown(["a", "b"], [[1, "x"]]))
    | a | b |
    |---|---|
    | 1 | x |
    """
    lines = [head, ["---"] * len(head), *rows]
    text = ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    text[1] = text[1].replace(" ", "")
    return "\n".join(text)


def collected(text):
    """Returns the cells of all rows of tables of bars in a text."""
    head, rows, inside = markdown(HEAD, []).splitlines()[0], [], False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.strip() == head:
            inside = True
        elif inside and not line.startswith("|--"):
            rows.append(tuple(_cells(line)))
    return rows


def times(wall, processor, parts=1, per="a round"):
    """Returns the table of what each contender took, and how many cores.

    Args:
        wall: Dict from name to list of seconds, of rounds.
        processor: The same of the processor's seconds.
        parts: Into how many equal parts a round falls.
        per: What one is: `"a step"`.
    """
    rows = []
    for name, seconds in wall.items():
        part = 1e3 * np.median(seconds) / parts
        cores = np.median(np.divide(processor[name], seconds))
        rows.append([name, f"{part:.3f}", f"{cores:.2f}"])
    return markdown(["contender", f"ms {per} (median)", "cores busy"], rows)


def circumstances(**more):
    """Returns the table of machine, versions and date.

    Args:
        **more: What else a reader must know: threads, rounds.
    """
    rows = [
        ["date", datetime.date.today().isoformat()],
        ["machine", f"{_processor()}, {os.cpu_count()} cores"],
        ["Python", platform.python_version()],
        *[[name, _version(name)] for name in PACKAGES],
        *[[name.replace("_", " "), value] for name, value in more.items()],
    ]
    return markdown(["", ""], rows)


def _number(value):
    """Returns counts as they are, three digits or so of other figures."""
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    places = 2 if abs(value) >= 1 else 3 if abs(value) >= 0.1 else 4
    return f"{value:.{places}f}"


def _cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor():
    found = pathlib.Path("/proc/cpuinfo")
    if found.exists():
        for line in found.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
