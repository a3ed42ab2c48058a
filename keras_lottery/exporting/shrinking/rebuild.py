"""A model built once more, with the channels that stay."""

import keras
import numpy as np

from keras_lottery.exporting.shrinking import constants
from keras_lottery.exporting.shrinking import heads
from keras_lottery.exporting.shrinking.features import TakeFeatures
from keras_lottery.pruning import channel_kinds as kinds
from keras_lottery.pruning import layer_graph

# A dense layer that reads at most this share of its inputs may get them picked
# out. Picking one costs as much as some 200 multiply-adds (4.4 and 0.021 ns,
# one thread of an AVX-512 CPU, batch 64): less is done only for wide layers.
FEW = 0.9
PICK = 200


def rebuild(model, found):
    """Returns a new model that computes what another does, and its layers.

    Args:
        model: The original.
        found: The `channels.Channels` of its graph.

    Returns:
        A `keras.Model`, and dict from `id` of an operation to its copy.

    Raises:
        ValueError: A layer cannot be copied.
    """
    builder = _Builder(model, found)
    return builder.build(), builder.copies


def output_names(model):
    """Returns the names that exports of a model give to its outputs."""
    # A Sequential has none; `signature.named_outputs` numbers them then.
    return getattr(model, "output_names", None) or ["output_0"]


class _Builder:
    """Calls copies of all layers, one after the other."""

    def __init__(self, model, found):
        self.model = model
        self.found = found
        self.graph = found.graph
        self.times = found.graph.times()
        self.tensors = {}
        self.copies = {}
        self.names = _names(model, found.graph)

    def build(self):
        wires = layer_graph.wires(self.graph.inputs)
        for wire, tensor in zip(wires, self.model.inputs, strict=True):
            self.tensors[wire] = keras.Input(
                batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name
            )
        for call in self.graph.calls:
            self._call(call)
        inputs = self._replaced(self.graph.inputs)
        outputs = self._replaced(self.graph.outputs)
        outputs = _named(outputs, self.model)
        return keras.Model(inputs, outputs, name=self.model.name)

    def _call(self, call):
        args, kwargs = self._replaced((call.args, call.kwargs))
        key = id(call.operation)
        changes, weights = {}, None
        if key not in self.copies:
            if self.found.kinds[call] == "affine":
                changes, weights, taken = self._affine(call)
                if taken is not None:
                    args = (self._take(call, args[0], taken),)
            elif self.found.kinds[call] != "barrier":
                changes, weights = self._channelwise(call)
            else:
                changes, weights = heads.changes(call, self.times[key])
            changes["name"] = self.names[key]
            self.copies[key] = _copy(call.operation, changes)
        copy = self.copies[key]
        outputs = keras.tree.flatten(copy(*args, **kwargs))
        self.tensors.update(zip(call.outputs, outputs, strict=True))
        if isinstance(copy, keras.layers.Layer) and "name" in changes:
            _fill(call.operation, copy, weights)

    def _affine(self, call):
        """Returns changed settings, weights, and the inputs to pick or None."""
        found, layer = self.found, call.operation
        (given,), (out,) = call.inputs, call.outputs
        units, rows = found.kept(out), found.kept(given)
        read, folds = found.read(call)
        few = isinstance(layer, keras.layers.Dense) and _pays(
            int((rows & read).sum()), int(rows.sum()), int(units.sum())
        )
        taken = rows & read if few else rows
        affine = found.weights[id(layer)]
        folds = folds & ~taken & (found.constants[given] != 0)
        bias = affine.bias
        if folds.any():
            bias = constants.folded_bias(affine, found.constants[given], folds)
        weights = [
            kinds.oriented(layer, affine.kernel[..., taken, :][..., units])
        ]
        if bias is not None:
            weights.append(bias[units])
        size = "units" if isinstance(layer, keras.layers.Dense) else "filters"
        changes = {size: int(units.sum()), "use_bias": bias is not None}
        return changes, weights, np.flatnonzero(taken[rows]) if few else None

    def _take(self, call, tensor, indices):
        layer = call.operation
        taken = set(self.names.values())
        name = _free(f"{self.names[id(layer)]}_inputs", taken)
        return TakeFeatures(indices, name=name, dtype=layer.dtype_policy)(
            tensor
        )

    def _channelwise(self, call):
        """Returns changed settings, and weights along the last axis."""
        kind, layer = self.found.kinds[call], call.operation
        kept = self.found.kept(call.outputs[0])
        if kind == "reshape":
            shape = (*call.outputs[0].shape[1:-1], int(kept.sum()))
            return {"target_shape": shape}, None
        if kind == "depthwise":
            affine = self.found.weights[id(layer)]
            rows = self.found.kept(call.inputs[0])
            weights = [affine.kernel[..., rows, :]]
            if affine.bias is not None:
                weights.append(affine.bias[kept])
            return {"use_bias": affine.bias is not None}, weights
        if not getattr(layer, "weights", None):
            return {}, None
        values = (each.numpy() for each in layer.weights)
        return {}, [
            value[..., kept] if value.shape[-1] == len(kept) else value
            for value in values
        ]

    def _replaced(self, structure):
        return keras.tree.map_structure(
            lambda each: (
                self.tensors[each]
                if isinstance(each, layer_graph.Wire)
                else each
            ),
            structure,
        )


def _pays(read, inputs, units):
    """Whether to pick the inputs that are read for a dense layer."""
    saved = (inputs - read) * units
    return 0 < read <= FEW * inputs and saved > PICK * read


def _copy(operation, changes):
    """Returns a new operation of the same settings, but for some."""
    try:
        if isinstance(operation, keras.layers.Lambda):
            return _copied_lambda(operation, changes["name"])
        config = {**operation.get_config(), **changes}
        return type(operation).from_config(config)
    except Exception as error:  # any code of the user's may run
        why, _, _ = str(error).partition(". ")
        raise ValueError(
            f"{operation.name!r} ({type(operation).__name__}) cannot be copied "
            f"({why}). Give it a `get_config` that says all that its "
            "`__init__` takes, or export with shrink=False."
        ) from error


def _copied_lambda(layer, name):
    """Its own config is code that Keras refuses to load."""
    config = {**layer.get_config(), "name": name}
    for code in ("function", "output_shape", "mask", "arguments"):
        config.pop(code, None)
    shape = layer._output_shape
    return keras.layers.Lambda(
        layer.function, shape, layer.mask, layer.arguments, **config
    )


def _fill(layer, copy, values):
    """Gives a copy its weights: those given, or the original's."""
    if values is None:
        values = [each.numpy() for each in layer.weights]
        for own, other in zip(copy.weights, layer.weights, strict=False):
            own.trainable = other.trainable
    shapes = [tuple(own.shape) for own in copy.weights]
    if shapes != [value.shape for value in values]:
        raise ValueError(
            f"The copy of {layer.name!r} ({type(layer).__name__}) has weights "
            f"{shapes}, expected {[value.shape for value in values]}. Its "
            "`get_config` has to say all that its `__init__` takes; or export "
            "with shrink=False."
        )
    for own, value in zip(copy.weights, values, strict=True):
        own.assign(value)
    for part in copy._flatten_layers():
        if isinstance(part, keras.layers.Normalization):
            part.finalize_state()  # it computes with what it has derived


def _names(model, graph):
    """Returns dict from `id` of an operation to a name that no other has.

    Layers of nested models that share their name with another get the names
    of those models before it. The names of outputs are not taken by others.
    """
    names, seen = {}, set()
    reserved = {tensor.name for tensor in model.inputs}
    reserved.update(output_names(model))
    for call in sorted(graph.calls, key=lambda call: len(call.path)):
        operation = call.operation
        if id(operation) in names:
            continue
        name = operation.name
        # Numbers are the names of a Sequential's outputs, not its layers'.
        own = not call.path and not isinstance(model, keras.Sequential)
        taken = seen if own else seen | reserved
        if name in taken:
            name = "_".join((*call.path, name))
        name = names[id(operation)] = _free(name, taken)
        seen.add(name)
    return names


def _free(name, taken):
    free, number = name, 1
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def _named(outputs, model):
    """Returns outputs whose layers have the names of the original's.

    A nested model that gave its name to an output is not there any more.
    """
    flat = keras.tree.flatten(outputs)
    names = output_names(model)
    made = [tensor._keras_history.operation.name for tensor in flat]
    if made != names and len(set(names)) == len(names):
        flat = [
            tensor
            if own == name
            else keras.layers.Identity(name=name, dtype=tensor.dtype)(tensor)
            for tensor, own, name in zip(flat, made, names, strict=True)
        ]
    return keras.tree.pack_sequence_as(outputs, flat)
