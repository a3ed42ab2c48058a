"""What a model costs: the multiply-adds of each of its weights.

Every position of a layer multiplies every entry of its kernel once, so that
`multiply_adds = size * positions` and, of a mask, `kept * positions`. What is
multiplied by padding counts too, as it does in TensorFlow's profiler.
"""

import math

from keras_lottery.pruning import graph
from keras_lottery.pruning import naming


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
        for weight in naming.walk(model)
        if _multiplies(weight)
    }


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
