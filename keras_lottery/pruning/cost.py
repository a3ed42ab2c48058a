"""What a model costs: parameters and multiply-adds, dense and under a mask.

Every position of a layer multiplies every entry of its kernel once, so that
`multiply_adds = size * positions` and, of a mask, `kept * positions`. What is
multiplied by padding counts too, as it does in TensorFlow's profiler.
"""

import math
import textwrap

from keras_lottery.pruning import graph
from keras_lottery.pruning import weights

WIDTH = 100
NOT_TIME = (
    "Multiply-adds are not time: a masked network runs as fast as the dense "
    "one."
)


def multiply_adds(model):
    """Returns the multiply-adds that each weight takes part in, for a sample.

    Additions of biases, normalizations, activations and products of two
    activations (attention scores) are left out. Layers unknown to this file
    are taken for dense ones if a matrix fits their input and their output.

    Args:
        model: A built `keras.Model`; it is not changed.

    Returns:
        Dict from the name of every weight of rank 2 or more that is not a bias
        to an int, or to None where it is not known.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> multiply_adds(model)
    {'dense/kernel': 8}
    """
    by_layer = {}
    for call in graph.calls(model) or ():
        by_layer.setdefault(id(call.layer), []).append(call)
    return {
        weight.name: _of_weight(weight, by_layer.get(id(weight.layer), ()))
        for weight in weights.walk(model)
        if _multiplies(weight)
    }


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
    dense, kept = multiply_adds(model), mask.kept_by_name
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


def _dense(call, shape):
    return _product(call.outputs[0][:-1])


def _custom(call, shape):
    """A layer of the user's own: dense if the kernel fits in and output."""
    if len(shape) != 2 or not call.outputs or not call.outputs[0]:
        return None
    fits_inputs = any(each and each[-1] == shape[0] for each in call.inputs)
    fits_output = call.outputs[0][-1] == shape[1]
    return _dense(call, shape) if fits_inputs and fits_output else None


def _einsum(call, shape):
    """The product of the axes that the input has and the kernel has not.

    An ellipsis stands for the axes of the input that have no letter.
    """
    inputs, rest = call.layer.equation.replace(" ", "").split(",")
    kernel = rest.split("->")[0]
    before, _, after = inputs.partition("...")
    axes = call.inputs[0]
    unnamed = len(axes) - len(before) - len(after)
    letters = [*before, *[""] * unnamed, *after]
    others = [
        axis
        for letter, axis in zip(letters, axes, strict=True)
        if not letter or letter not in kernel
    ]
    return _product(others)


def _convolution(call, shape):
    return _product(_spatial(call.layer, call.outputs[0]))


def _transposed_convolution(call, shape):
    return _product(_spatial(call.layer, call.inputs[0]))


def _cell(call, shape):
    return _product(call.inputs[0][:-1])


def _embedding(call, shape):
    """A lookup multiplies nothing; reversed, it is not known which table."""
    reversed_ = len(call.outputs[0]) == len(call.inputs[0])
    return None if reversed_ else 0


# By class name, looked up along the base classes: some are not exported.
RULES = {
    "Dense": _dense,
    "EinsumDense": _einsum,
    "BaseConv": _convolution,
    "BaseDepthwiseConv": _convolution,
    "BaseSeparableConv": _convolution,
    "BaseConvTranspose": _transposed_convolution,
    "SimpleRNNCell": _cell,
    "GRUCell": _cell,
    "LSTMCell": _cell,
    "ConvLSTMCell": _convolution,
    "Embedding": _embedding,
}
KERNELS = (
    "kernel",
    "recurrent_kernel",
    "depthwise_kernel",
    "pointwise_kernel",
    "embeddings",
)


def _multiplies(weight):
    variable = weight.variable
    trained = variable.trainable or not weight.layer.trainable
    matrix = len(variable.shape) >= 2
    return trained and matrix and "bias" not in variable.name.lower()


def _of_weight(weight, calls):
    """Returns the multiply-adds of a weight over all calls of its layer."""
    rule = _rule(weight)
    if rule is None or not calls:
        return None
    shape = tuple(weight.variable.shape)
    total = 0
    for call in calls:
        known = None not in (call.times, *call.inputs, *call.outputs)
        positions = rule(call, shape) if known else None
        if positions is None:
            return None
        total += math.prod(shape) * positions * call.times
    return total


def _rule(weight):
    for each in type(weight.layer).__mro__:
        if rule := RULES.get(each.__name__):
            return rule if weight.variable.name in KERNELS else None
    of_keras = type(weight.layer).__module__.startswith("keras.")
    return None if of_keras else _custom


def _spatial(layer, shape):
    last = layer.data_format == "channels_last"
    return shape[1:-1] if last else shape[2:]


def _product(axes):
    return None if None in axes else math.prod(axes)


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
