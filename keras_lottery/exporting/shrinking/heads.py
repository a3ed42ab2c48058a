"""Attention with fewer heads: those that no output row reads.

The output of an attention layer is the sum of what its heads give, each times
its rows of the output kernel. A head whose rows are zero adds exactly nothing,
whatever it attends to.
"""

import keras
import numpy as np

PARTS = ("_query_dense", "_key_dense", "_value_dense", "_gate_dense")


def changes(call, times):
    """Returns the settings and weights of an attention layer of fewer heads.

    Query heads that share a key and value head go only with it, together.

    Args:
        call: A `layer_graph.Call` of any operation.
        times: How often the operation is called in the model.

    Returns:
        Dict of changed settings, and a list of weights in the order of the
        layer's; `({}, None)` where nothing changes.
    """
    layer = call.operation
    if not _knows_heads(call) or times > 1:
        return {}, None
    shared = _key_heads(layer)
    used = _used(layer).reshape(shared, -1).any(1)
    if not used.any():
        used[0] = True
    if used.all():
        return {}, None
    count = int(used.sum())
    if type(layer) is keras.layers.MultiHeadAttention:
        changed = {"num_heads": count}
    else:
        repeats = layer.num_query_heads // shared
        changed = {
            "num_query_heads": count * repeats,
            "num_key_value_heads": count,
        }
    return changed, _weights(layer, used)


def has(operation):
    """Returns whether an operation is attention with heads."""
    return type(operation) in _classes()


def ends(layer):
    """Returns how many features the queries have, and how many heads."""
    shape = tuple(layer._query_dense.kernel.shape)
    return shape[0], shape[-2]


def _classes():
    """Exact classes: a subclass may compute anything."""
    return keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention


def _knows_heads(call):
    """Whether nobody outside of a layer sees its single heads."""
    layer = call.operation
    if not has(layer):
        return False
    told = (*call.args[3:], *call.kwargs.values())
    per_head = any(len(getattr(each, "shape", ())) > 3 for each in told)
    scores = len(call.outputs) > 1
    kernels = [layer._output_dense, *_dense(layer)]
    changed = any(
        getattr(each, "lora_enabled", False)
        or getattr(each, "quantization_mode", None)
        for each in kernels
    )
    plain = all(len(each.kernel.shape) == 3 for each in kernels)
    return plain and not (per_head or scores or changed)


def _dense(layer):
    found = [getattr(layer, part, None) for part in PARTS]
    return [each for each in found if each is not None]


def _key_heads(layer):
    return layer._key_dense.kernel.shape[-2]


def _used(layer):
    """Returns which query heads reach the output."""
    return (layer._output_dense.kernel.numpy() != 0).any((1, 2))


def _weights(layer, used):
    values = {id(each): each.numpy() for each in layer.weights}
    for dense in _dense(layer):
        for variable in dense.weights:  # (in, heads, dim) and (heads, dim)
            value = values[id(variable)]
            values[id(variable)] = _left(value, value.ndim - 2, used)
    output = layer._output_dense.kernel
    output = getattr(layer._output_dense, "_kernel", output)
    values[id(output)] = _left(values[id(output)], 0, used)
    return list(values.values())


def _left(value, axis, used):
    repeats = value.shape[axis] // len(used)
    return np.compress(np.repeat(used, repeats), value, axis)
