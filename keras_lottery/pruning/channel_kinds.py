"""What layers and operations do to the channels of the last axis.

affine       Dense, convolutions: new channels, sums of those that come in
depthwise    channel by channel, several out of each
normalize    batch normalisation: a factor and a term per channel
pointwise    one number to another: activations, `x * 2`
prelu        pointwise, with weights
same         what is constant stays that constant: pooling, dropout
padding      only zero stays constant: zeros come in at the border
merge        several tensors, element by element
concatenate  several tensors, side by side
flatten      every position becomes a channel
reshape      leaves the last axis as it is
barrier      all others: read every channel that comes in, and keep their
             own; nothing is known of them
"""

import keras
import numpy as np

from keras_lottery.pruning import layer_graph

LAYERS = keras.layers


def _layers(*patterns):
    """Returns the layer classes of these names; Keras adds some over time."""
    names = [
        pattern.replace("ND", f"{n}D")
        for pattern in patterns
        for n in ((1, 2, 3) if "ND" in pattern else (0,))
    ]
    return {
        getattr(LAYERS, name): name for name in names if hasattr(LAYERS, name)
    }


TRANSPOSED = tuple(_layers("ConvNDTranspose"))
AFFINE = (*_layers("Dense", "ConvND"), *TRANSPOSED)
DEPTHWISE = tuple(_layers("DepthwiseConvND"))

# Exact classes: a subclass may compute anything.
_OF_LAYER = {
    "affine": AFFINE,
    "depthwise": DEPTHWISE,
    "normalize": (LAYERS.BatchNormalization,),
    "pointwise": _layers("Activation", "ReLU", "LeakyReLU", "ELU"),
    "prelu": (LAYERS.PReLU,),
    "same": _layers(
        *("Identity", "Dropout", "SpatialDropoutND", "AlphaDropout"),
        *("GaussianDropout", "GaussianNoise", "ActivityRegularization"),
        *("MaxPoolingND", "AveragePoolingND", "GlobalMaxPoolingND"),
        *("GlobalAveragePoolingND", "UpSamplingND", "CroppingND"),
    ),
    "padding": _layers("ZeroPaddingND"),
    "merge": _layers(
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
    ),
    "concatenate": (LAYERS.Concatenate,),
    "flatten": (LAYERS.Flatten,),
    "reshape": (LAYERS.Reshape,),
}
KIND_OF_LAYER = {
    each: kind for kind, all_ in _OF_LAYER.items() for each in all_
}

# Operations of `keras.ops` have no public classes: by name.
UNARY = frozenset(
    "Absolute Abs Celu Elu Gelu HardShrink HardSigmoid HardSilu HardTanh "
    "LeakyRelu LogSigmoid Negative Relu Relu6 Selu Sigmoid Silu SoftShrink "
    "Softplus Softsign Square Squareplus Tanh TanhShrink".split()
)
BINARY = frozenset(
    "Add Subtract Multiply Divide TrueDivide Maximum Minimum".split()
)

# Others (softmax, glu, one's own) may look at several channels at once.
ELEMENTWISE = frozenset(
    getattr(keras.activations, name)
    for name in (
        "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu "
        "hard_tanh leaky_relu linear log_sigmoid mish relu relu6 selu sigmoid "
        "silu soft_shrink softplus softsign squareplus tanh tanh_shrink"
    ).split()
    if hasattr(keras.activations, name)
)


def kind(call, times):
    """Returns the kind of a call, one of those above.

    Args:
        call: A `layer_graph.Call`.
        times: How often its operation is called in the model.
    """
    operation = call.operation
    ends = (*call.inputs, *call.outputs)
    if not call.inputs or any(not _has_channels(wire) for wire in ends):
        return "barrier"
    if not isinstance(operation, LAYERS.Layer):
        return _kind_of_operation(call)
    found = KIND_OF_LAYER.get(type(operation), "barrier")
    shared = times > 1 and (operation.weights or found == "reshape")
    data_format = getattr(operation, "data_format", None)
    if shared or data_format == "channels_first" or not _is_plain(call, found):
        return "barrier"
    return found if CONDITIONS.get(found, _always)(call) else "barrier"


def canonical(layer):
    """Returns the kernel of an affine layer as [..., in, out]."""
    kernel = layer.kernel.numpy()
    return oriented(layer, kernel)


def oriented(layer, kernel):
    """Swaps in and out where a layer's kernel has them the other way."""
    turned = isinstance(layer, TRANSPOSED)
    return np.swapaxes(kernel, -1, -2) if turned else kernel


def _kind_of_operation(call):
    name = type(call.operation).__name__
    of_keras = type(call.operation).__module__.startswith("keras.src.ops")
    if not of_keras or layer_graph.is_told(call.kwargs):
        return "barrier"
    tensors = [isinstance(each, layer_graph.Wire) for each in call.args]
    if name in UNARY and tensors == [True]:
        return "pointwise"
    if name not in BINARY or len(tensors) != 2:
        return "barrier"
    if all(tensors):
        return "merge" if _same_rank(call) else "barrier"
    constant = call.args[tensors.index(False)]
    return "pointwise" if np.ndim(constant) == 0 else "barrier"


def _has_channels(wire):
    return len(wire.shape) > 1 and wire.shape[-1]


def _is_plain(call, found):
    """Whether a layer is called on tensors and nothing else."""
    tensors = call.args[0] if len(call.args) == 1 else None
    many = found in ("merge", "concatenate")
    alone = isinstance(tensors, (list, tuple) if many else layer_graph.Wire)
    return alone and not layer_graph.is_told(call.kwargs)


def _always(call):
    del call
    return True


def _sums_only(call):
    """No groups, and a kernel that is what it says."""
    layer = call.operation
    adapted = getattr(layer, "lora_enabled", False)
    quantized = getattr(layer, "quantization_mode", None)
    return getattr(layer, "groups", 1) == 1 and not adapted and not quantized


def _acts_alone(call):
    return call.operation.activation in ELEMENTWISE


def _is_pointwise(call):
    activation = getattr(call.operation, "activation", None)
    return activation is None or activation in ELEMENTWISE


def _is_last(call):
    rank = len(call.outputs[0].shape)
    axis = call.operation.axis
    return isinstance(axis, int) and axis % rank == rank - 1


def _same_rank(call):
    return len({len(wire.shape) for wire in call.inputs}) == 1


def _is_closed(call):
    return None not in call.inputs[0].shape[1:]


def _keeps_last(call):
    before, after = call.inputs[0], call.outputs[0]
    return None not in after.shape[1:] and before.width == after.width


CONDITIONS = {
    "affine": _sums_only,
    "depthwise": _acts_alone,
    "normalize": _is_last,
    "pointwise": _is_pointwise,
    "merge": _same_rank,
    "concatenate": _is_last,
    "flatten": _is_closed,
    "reshape": _keeps_last,
}
