"""Batch normalisation folded into the layer before it.

At inference it multiplies each channel by `s = gamma / sqrt(variance +
epsilon)` and adds `beta - s mean`. So does a layer with the kernel `s kernel`
and the bias `s (bias - mean) + beta`: zeros of the kernel stay zeros.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_lottery.pruning import channel_kinds as kinds
from keras_lottery.pruning import layer_graph


@dataclasses.dataclass(frozen=True)
class Affine:
    """The weights of a Dense, convolution or depthwise convolution.

    Fields:
        kernel: As the layer has it, but [..., in, out] for transposed ones.
        bias: One per channel out, or None.
    """

    kernel: np.ndarray
    bias: Any = None


def fold(graph):
    """Returns a graph without the normalisations that fold.

    One folds if it follows, as its only reader, a layer without activation
    that is called once and computes in the same precision of 32 bits or more.

    Args:
        graph: A `layer_graph.Graph`.

    Returns:
        The `Graph`, dict from `id` of every affine or depthwise layer to its
        `Affine`, and the names of the layers that were folded away.

    Reference: Jacob et al. (2018), section 3.2.
    """
    times, readers = graph.times(), _readers(graph)
    weights, made_by, replaced = {}, {}, {}
    calls, folded = [], []
    for call in graph.calls:
        call = _rewired(call, replaced)
        layer = call.operation
        kind = kinds.kind(call, times[id(layer)])
        if kind in ("affine", "depthwise"):
            weights[id(layer)] = _affine(layer)
            made_by[call.outputs[0]] = call
        source = made_by.get(call.inputs[0]) if kind == "normalize" else None
        if source is not None and _folds(source, call, readers):
            key = id(source.operation)
            weights[key] = _folded(source, weights[key], layer)
            # Whoever read the normalisation reads the layer now.
            replaced[call.outputs[0]] = source.outputs[0]
            readers[source.outputs[0]] = readers.get(call.outputs[0], [])
            folded.append(layer.name)
        else:
            calls.append(call)
    kept = dataclasses.replace(graph, calls=tuple(calls))
    return kept, weights, tuple(folded)


def scale_and_shift(norm):
    """Returns what a batch normalisation multiplies by and adds, in float64."""
    mean, variance = map(_exact, (norm.moving_mean, norm.moving_variance))
    scale = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = _exact(norm.gamma) * scale
    shift = -mean * scale
    return scale, shift + _exact(norm.beta) if norm.center else shift


def _readers(graph):
    """Returns dict from `Wire` to the calls and None (the model) that read."""
    readers = {}
    for call in graph.calls:
        for wire in call.inputs:
            readers.setdefault(wire, []).append(call)
    # An output of the model has the name of its layer, which has to stay.
    for wire in layer_graph.wires(graph.outputs):
        readers.setdefault(wire, []).append(None)
    return readers


def _folds(source, call, readers):
    layer, norm = source.operation, call.operation
    alone = len(readers[source.outputs[0]]) == 1
    stays = None in readers.get(call.outputs[0], [])
    precise = layer.compute_dtype in ("float32", "float64")
    same = layer.compute_dtype == norm.compute_dtype
    linear = layer.activation is keras.activations.linear
    return alone and not stays and precise and same and linear


def _affine(layer):
    bias = layer.bias.numpy() if layer.use_bias else None
    return Affine(kinds.canonical(layer), bias)


def _folded(source, affine, norm):
    scale, shift = scale_and_shift(norm)
    bias = 0.0 if affine.bias is None else affine.bias.astype(np.float64)
    kernel = affine.kernel.astype(np.float64)
    per_output = scale.reshape(
        kernel.shape[-2:] if _is_depthwise(source) else -1
    )
    # + 0: a zero times a negative scale is -0.0, which is not stored as zero.
    kernel = kernel * per_output + 0.0
    dtype = affine.kernel.dtype
    return Affine(kernel.astype(dtype), (bias * scale + shift).astype(dtype))


def _is_depthwise(call):
    return type(call.operation) in kinds.DEPTHWISE


def _exact(variable):
    return variable.numpy().astype(np.float64)


def _rewired(call, replaced):
    return dataclasses.replace(
        call,
        args=_replace(call.args, replaced),
        kwargs=_replace(call.kwargs, replaced),
    )


def _replace(structure, replaced):
    return keras.tree.map_structure(
        lambda each: (
            replaced.get(each, each)
            if isinstance(each, layer_graph.Wire)
            else each
        ),
        structure,
    )
