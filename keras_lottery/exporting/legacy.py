"""tf_keras models, wrapped by tfmot or not, as a `Network`.

Legacy Keras has no call that takes weights as arguments. So the model is
traced once, and in its graph every read of a variable becomes an argument.
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from keras_lottery import tfmot_bridge
from keras_lottery.exporting.network import Network
from keras_lottery.pruning import naming
from keras_lottery.tickets import legacy_masks
from keras_lottery.tickets import legacy_mirror

READS = ("ReadVariableOp", "ResourceGather")


def network(model):
    """Returns the `Network` of a tf_keras model; see `network.of`.

    Raises:
        ValueError: What the model is called on is not known, or a layer uses
            a variable other than by reading it.
    """
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            f"What {model.name!r} is called on is not known: wrap it for "
            "export, `inputs = tf_keras.Input(shape); tf_keras.Model(inputs, "
            "model(inputs))`."
        )
    mirror = legacy_mirror.reflect(model)
    weights = _weights(model, mirror)
    if legacy_masks.wrappers(model):  # they assign to weights at every call
        model = tfmot_bridge.strip_pruning(model)
    names = list(model.input_names)
    specs = {
        name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name)
        for name, tensor in zip(names, model.inputs, strict=True)
    }
    traced = tf.function(
        lambda given: named_outputs(
            model, model(_arranged(model, given, names), training=False)
        ),
        autograph=False,
    ).get_concrete_function(specs)
    graph, reads = _with_arguments(traced, _names(mirror, traced))
    return Network(weights, specs, _caller(traced, graph, reads))


def named_outputs(model, outputs):
    """Returns {name: tensor} of what a legacy model returned."""
    if isinstance(outputs, dict):
        return dict(outputs)
    flat = tf.nest.flatten(outputs)
    return dict(zip(model.output_names, flat, strict=True))


def _arranged(model, given, names):
    structure = getattr(model, "input", None)
    if isinstance(structure, dict):
        return {key: given[t.node.layer.name] for key, t in structure.items()}
    flat = [given[name] for name in names]
    return flat if isinstance(structure, (list, tuple)) else flat[0]


def _weights(model, mirror):
    """Returns all variables as arrays; what a wrapper removes is zero."""
    found = {w.name: np.asarray(w.variable) for w in naming.walk(mirror)}
    if legacy_masks.wrappers(model):
        # tfmot lets the last step of a training move what it has removed.
        for name, mask in legacy_masks.TfmotMasks(model, mirror).mask.items():
            found[name] = np.where(mask, found[name], found[name].dtype.type(0))
    return found


def _names(mirror, traced):
    """Returns dict from the placeholder of a handle to a weight's name."""
    by_handle = {
        id(weight.variable.value.handle): weight.name
        for weight in naming.walk(mirror)
        if hasattr(weight.variable.value, "handle")
    }
    return {
        inner.op.name: by_handle.get(id(outer))
        for outer, inner in traced.graph.captures
    }


def _with_arguments(traced, names):
    """Returns the graph, and dict from each read to the weight's name."""
    source = traced.graph.as_graph_def()
    graph = graph_pb2.GraphDef(versions=source.versions)
    graph.library.CopyFrom(source.library)
    reads = {}
    for node in source.node:
        # They order what changes variables, and inference changes none.
        inputs = [each for each in node.input if not each.startswith("^")]
        places = [each.split(":")[0] for each in inputs]
        captured = [each for each in places if each in names]
        if captured and node.op not in READS:
            raise ValueError(
                f"The model uses {names[captured[0]] or 'a resource'!r} in a "
                f"{node.op} ({node.name}), and a legacy export can only turn "
                f"reads of variables ({', '.join(READS)}) into values. Build "
                "the model with Keras 3 (`import keras`)."
            )
        added = graph.node.add()
        if node.op == "ReadVariableOp" and captured:
            reads[node.name] = names[captured[0]]
            _placeholder(added, node.name, node.attr["dtype"].type)
        elif captured:
            reads[f"{node.name}_table"] = names[captured[0]]
            _placeholder(added, f"{node.name}_table", node.attr["dtype"].type)
            _gather(graph, node, inputs[1])
        else:
            added.CopyFrom(node)
            added.input[:] = inputs
    return graph, reads


def _placeholder(node, name, dtype):
    node.name, node.op = name, "Placeholder"
    node.attr["dtype"].type = dtype


def _gather(graph, node, indices):
    """Adds `GatherV2` in the place of `ResourceGather`: a lookup of rows."""
    axis = graph.node.add(name=f"{node.name}_axis", op="Const")
    zero = tf.make_tensor_proto(0, tf.int32)
    axis.attr["value"].tensor.CopyFrom(zero)
    axis.attr["dtype"].type = zero.dtype
    added = graph.node.add(name=node.name, op="GatherV2")
    added.input[:] = [f"{node.name}_table", indices, axis.name]
    added.attr["batch_dims"].CopyFrom(node.attr["batch_dims"])
    added.attr["Tparams"].type = node.attr["dtype"].type
    added.attr["Tindices"].CopyFrom(node.attr["Tindices"])
    added.attr["Taxis"].type = zero.dtype


def _caller(traced, graph, reads):
    inputs = {
        name: traced.graph.inputs[i].op.name
        for i, name in enumerate(
            sorted(traced.structured_input_signature[0][0])
        )
    }
    outputs = {k: t.name for k, t in traced.structured_outputs.items()}
    live = _reached(graph, [*outputs.values(), *inputs.values()])
    used = [node for node in graph.node if node.name in live]
    del graph.node[:]
    graph.node.extend(used)

    def call(values, given):
        feeds = {f"{inputs[name]}:0": given[name] for name in inputs}
        for read, name in reads.items():
            if read in live:
                feeds[f"{read}:0"] = values[name]
        found = tf.graph_util.import_graph_def(
            graph,
            input_map=feeds,
            return_elements=list(outputs.values()),
            name="",
        )
        return dict(zip(outputs, found, strict=True))

    in_graph = tf.function(call, autograph=False)  # a graph takes graphs only

    def called(values, given):
        return (call if tf.inside_function() else in_graph)(values, given)

    return called


def _reached(graph, references):
    """Returns the names of the nodes that some outputs are computed from."""
    inputs = {node.name: node.input for node in graph.node}
    reached, open_names = set(), list(references)
    while open_names:
        name = open_names.pop().split(":")[0]
        if name not in reached:
            reached.add(name)
            open_names.extend(inputs[name])
    return reached
