"""What a mask leaves of a model, as rows and as text for people."""

import math
import textwrap

from keras_lottery.pruning import cost
from keras_lottery.pruning import weights

WIDTH = 100
NOT_TIME = (
    "Multiply-adds are not time: a masked network runs as fast as the dense "
    "one."
)


def layer_table(model, mask):
    """Returns what each weight of a mask costs, and all of them together.

    Args:
        model: A built `keras.Model`; it is not changed.
        mask: A `Mask` of weights of the model.

    Returns:
        List of dicts, one per weight of the mask and a last one, `"total"`,
        with the keys name, shape, parameters, nonzero, density, compression
        (parameters / nonzero), multiply_adds and nonzero_multiply_adds (None
        where not known; the total is not, if one of its parts is not). The
        total also has all_parameters (trainable ones, pruned or not) and
        all_compression.

    Example:

    >>> import keras
    >>> from keras_lottery.pruning.find import find_mask
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> row, total = layer_table(model, find_mask(model, 0.5))
    >>> row["shape"], row["nonzero_multiply_adds"], total["all_parameters"]
    ((4, 2), 4, 10)
    """
    variables = weights.by_name(model)
    if unknown := [name for name in mask if name not in variables]:
        raise ValueError(
            f"The mask has weights that the model has not: {unknown}. Names "
            "are those of `weights.by_name(model)`."
        )
    dense, kept = cost.multiply_adds(model), mask.kept_by_name
    rows = []
    for name, shape in mask.shapes.items():
        size, adds = math.prod(shape), dense.get(name)
        # Exact: the multiply-adds are a multiple of the size.
        left = adds and adds * kept[name] // size
        costs = _costs(size, kept[name], adds, left)
        rows.append({"name": name, "shape": shape} | costs)
    others = sum(
        math.prod(variable.shape)
        for name, variable in variables.items()
        if variable.trainable and name not in mask
    )
    return [*rows, _total(rows, others)]


def format_table(rows, unpruned):
    """Returns a table for people: at most 100 columns of plain text.

    In a wide one the numbers are rounded, then the names shortened.

    Args:
        rows: What `layer_table` returns.
        unpruned: Dict from the name of a weight that is not pruned to the
            reason: `weights.unprunable(model)`.

    Returns:
        String of several lines, without a line end at its end.

    Example:

    >>> import keras
    >>> from keras_lottery.pruning.find import find_mask
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> rows = layer_table(model, find_mask(model, 0.5))
    >>> print(format_table(rows, weights.unprunable(model)).splitlines()[-2])
    not pruned: 1 bias (dense/bias)
    """
    *_, total = rows
    others = total["all_parameters"] - total["parameters"]
    lines = [
        *_aligned(rows),
        f"parameters in all: {total['all_parameters']:,} "
        f"({total['parameters']:,} in the mask, {others:,} not pruned)",
        "compression of all parameters: " + _factor(total["all_compression"]),
    ]
    grouped = {}
    for name, reason in unpruned.items():
        grouped.setdefault(reason, []).append(name)
    for reason, names in grouped.items():
        listed = [_middle(name, 40) for name in names[:3]]
        listed += ["..."] if len(names) > 3 else []
        line = f"not pruned: {len(names)} {reason} ({', '.join(listed)})"
        lines += textwrap.wrap(line, WIDTH, subsequent_indent="    ")
    return "\n".join([*lines, NOT_TIME])


def _costs(size, kept, multiply_adds, nonzero_multiply_adds):
    """Returns the columns that a weight and the total have in common."""
    return {
        "parameters": size,
        "nonzero": kept,
        "density": kept / size if size else 1.0,
        "compression": _ratio(size, kept),
        "multiply_adds": multiply_adds,
        "nonzero_multiply_adds": nonzero_multiply_adds,
    }


def _total(rows, others):
    keys = ("parameters", "nonzero", "multiply_adds", "nonzero_multiply_adds")
    columns = [[row[key] for row in rows] for key in keys]
    sums = [None if None in each else sum(each) for each in columns]
    size, kept, *_ = sums
    return {
        "name": "total",
        "shape": (),
        **_costs(*sums),
        "all_parameters": size + others,
        "all_compression": _ratio(size + others, kept + others),
    }


def _ratio(size, kept):
    return size / kept if kept else math.inf


HEAD = (
    ("", "", "para-", "", "", "com-", "multiply-", "nonzero"),
    (
        "weight",
        "shape",
        "meters",
        "nonzero",
        "density",
        "pression",
        "adds",
        "mult-adds",
    ),
)


def _cells(row, number):
    return (
        row["name"],
        _middle("x".join(map(str, row["shape"])), 14),
        number(row["parameters"]),
        number(row["nonzero"]),
        f"{row['density']:.4f}",
        _factor(row["compression"]),
        number(row["multiply_adds"]),
        number(row["nonzero_multiply_adds"]),
    )


def _aligned(rows):
    """Returns the lines of a table; names get the columns that are left.

    Where they would have to be shortened, the numbers are shortened first.
    """
    for number in (_exact, _rounded):
        cells = [*HEAD, *(_cells(row, number) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        others = sum(widths[1:]) + 2 * (len(widths) - 1)
        if widths[0] + others <= WIDTH:
            break
    widths[0] = min(widths[0], WIDTH - others)
    *above, total = [_line(each, widths) for each in cells]
    return [*above, "-" * (widths[0] + others), total]


def _line(cells, widths):
    name = _middle(cells[0], widths[0]).ljust(widths[0])
    numbers = zip(cells[1:], widths[1:], strict=True)
    return "  ".join([name, *(cell.rjust(width) for cell, width in numbers)])


def _exact(value):
    return "-" if value is None else f"{value:,}"


def _rounded(value):
    """Returns four digits and a unit: 1.234M."""
    if value is None or value < 10_000:
        return _exact(value)
    for unit in "KMGT":
        value /= 1000
        if value < 999.95 or unit == "T":
            return f"{value:#.4g}{unit}"


def _factor(value):
    return f"{value:,.2f}" if value < 1e5 else f"{value:.1e}"


def _middle(text, width):
    """Returns `text`, shortened in the middle to at most `width`."""
    if len(text) <= width:
        return text
    head = (width - 2) // 2
    return text[:head] + "..." + text[head + 3 + len(text) - width :]
