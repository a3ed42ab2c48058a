"""Channels that are one constant for all inputs, and what they become.

A unit without incoming weights gives `activation(bias)` whatever it sees; so
does what follows it, up to a layer that sums it with others.
"""

import keras
import numpy as np

from keras_lottery.exporting.shrinking import folding
from keras_lottery.pruning import channel_kinds as kinds


def constants(call, kind, given, weights):
    """Returns the constants that come out of a call: NaN for all others.

    Args:
        call: A `layer_graph.Call`.
        kind: Its kind, not "barrier".
        given: The constants of every tensor that comes in.
        weights: Dict from `id` of a layer to its `folding.Affine`.
    """
    found = RULES[kind](call, given, weights)
    return np.where(np.isfinite(found), found, np.nan)


def foldable(call, given):
    """Returns which channels are constants that fold into the bias, exactly.

    Where a kernel wider than 1 reaches over a border, it finds zeros there:
    only 0 is the same constant everywhere.

    Args:
        call: An affine or depthwise call.
        given: The constants of the tensor that comes in.
    """
    layer = call.operation
    inside = getattr(layer, "padding", "valid") == "valid"
    points = all(size == 1 for size in getattr(layer, "kernel_size", ()))
    everywhere = inside or points
    if everywhere and type(layer) not in kinds.TRANSPOSED:
        return ~np.isnan(given)
    return given == 0


def reaches(affine):
    """Returns [in, out] bools: which pairs a weight connects."""
    kernel = affine.kernel
    return (kernel != 0).reshape(-1, *kernel.shape[-2:]).any(0)


def _summed(affine):
    """Returns [in, out]: the sum of a kernel over its positions."""
    kernel = affine.kernel.astype(np.float64)
    return kernel.reshape(-1, *kernel.shape[-2:]).sum(0)


def folded_bias(affine, constants, folds):
    """Returns the bias with the constants of some channels added, float64.

    Args:
        affine: The `folding.Affine` of an affine layer.
        constants: One per channel that comes in.
        folds: Bool array, which of them.
    """
    values = np.where(folds, constants, 0.0)
    return _bias(affine) + values @ _summed(affine)


def _bias(affine):
    return 0.0 if affine.bias is None else affine.bias.astype(np.float64)


def _affine(call, given, weights):
    (given,) = given
    if call.operation.activation not in kinds.ELEMENTWISE:
        return np.full(call.outputs[0].width, np.nan)
    affine = weights[id(call.operation)]
    folds = foldable(call, given)
    found = folded_bias(affine, given, folds)
    varies = reaches(affine)[~folds].any(0)
    return _activated(call, np.where(varies, np.nan, found))


def _depthwise(call, given, weights):
    (given,) = given
    affine = weights[id(call.operation)]
    times = call.outputs[0].width // len(given)
    folds = np.repeat(foldable(call, given), times)
    values = np.where(folds, np.repeat(given, times), 0.0)
    found = _bias(affine) + values * _summed(affine).reshape(-1)
    varies = reaches(affine).reshape(-1)
    return _activated(call, np.where(varies & ~folds, np.nan, found))


def _activated(call, values):
    return _applied(call.operation.activation, values, call.outputs[0])


def _normalized(call, given, weights):
    del weights
    scale, shift = folding.scale_and_shift(call.operation)
    return np.where(scale == 0, shift, given[0] * scale + shift)


def _pointwise(call, given, weights):
    del weights
    wire = call.inputs[0]

    def apply(tensor):
        return call.operation(
            *[tensor if each is wire else each for each in call.args]
        )

    return _applied(apply, given[0], wire)


def _prelu(call, given, weights):
    """Above zero nothing changes; below, only one slope for all places."""
    del weights
    alpha = call.operation.alpha.numpy()
    alone = alpha.size == alpha.shape[-1]
    below = given[0] * alpha.reshape(-1) if alone else np.nan
    return np.where(given[0] < 0, below, given[0])


def _unchanged(call, given, weights):
    del call, weights
    return given[0]


def _padded(call, given, weights):
    del call, weights
    return np.where(given[0] == 0, given[0], np.nan)


def _merged(call, given, weights):
    del weights
    operation = call.operation
    if any("float" not in wire.dtype for wire in call.inputs):
        return np.full(call.outputs[0].width, np.nan)
    given = np.broadcast_arrays(*given)
    tensors = [
        _tensor(np.nan_to_num(values), wire)
        for values, wire in zip(given, call.inputs, strict=True)
    ]
    layer = isinstance(operation, keras.layers.Layer)
    found = _values(operation(tensors) if layer else operation(*tensors))
    found = np.where(np.isnan(given).any(0), np.nan, found)
    if type(operation).__name__ == "Multiply":
        found = np.where((np.stack(given) == 0).any(0), 0.0, found)
    return found


def _joined(call, given, weights):
    del call, weights
    return np.concatenate(given)


def _tiled(call, given, weights):
    del weights
    return np.tile(given[0], call.outputs[0].width // len(given[0]))


def _applied(function, values, wire):
    """Returns a function of the values, NaN for those that are not known."""
    if np.isnan(values).all() or "float" not in wire.dtype:
        return np.full(len(values), np.nan)
    found = _values(function(_tensor(np.nan_to_num(values), wire)))
    return np.where(np.isnan(values), np.nan, found)


def _tensor(values, wire):
    shape = (1,) * (len(wire.shape) - 1) + (-1,)
    return keras.ops.cast(values.reshape(shape), wire.dtype)


def _values(tensor):
    found = keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float64"))
    return found.reshape(-1)


RULES = {
    "affine": _affine,
    "depthwise": _depthwise,
    "normalize": _normalized,
    "pointwise": _pointwise,
    "prelu": _prelu,
    "same": _unchanged,
    "padding": _padded,
    "merge": _merged,
    "concatenate": _joined,
    "flatten": _tiled,
    "reshape": _unchanged,
}
