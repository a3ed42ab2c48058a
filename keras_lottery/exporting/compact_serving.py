"""The smallest SavedModel: one graph, a signature, an initializer.

What `tf.saved_model.save` writes beside these (functions, an object graph, an
empty checkpoint) is for loading in Python. TF Serving, the TF1 loader and the C
API read a graph and its signatures only, and so does this file write them.
"""

import os

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_lottery.exporting import compact
from keras_lottery.exporting import decoding
from keras_lottery.exporting import functions
from keras_lottery.exporting import network as networks
from keras_lottery.exporting import signature
from keras_lottery.exporting import stripping

INITIALIZER = "__saved_model_init_op"


def write_compact_serving(model, path, *, values="float32"):
    """Writes a model as a compact SavedModel for servers.

    It loads in TF Serving, the C API, the TF1 loader and, signatures only,
    `tf.saved_model.load`. It is not for `TFSMLayer`, a distribution strategy,
    XLA or saving again; `format="compact"` is.

    Args:
        model: As in `write_compact`.
        path: Directory to write into.
        values: As in `write_compact`.

    Raises:
        ValueError: As `write_compact`.

    Example:

    >>> import keras, tempfile
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> path = tempfile.mkdtemp()
    >>> write_compact_serving(model, path)
    >>> os.listdir(path)
    ['saved_model.pb']
    """
    network = networks.of(model)
    signature.require_loadable(network.specs)
    payloads, constants = compact.encoded(network, values)
    traced = _traced(network, payloads, constants)
    networks.require_weights_only(traced, model)
    with tf.Graph().as_default():
        held, filled = _stores(payloads)
        inputs = {
            name: tf.compat.v1.placeholder(spec.dtype, spec.shape)
            for name, spec in network.specs.items()
        }
        outputs = _imported(traced, held, inputs)
        meta_graph = tf.compat.v1.train.export_meta_graph(
            strip_default_attrs=True
        )
    meta_graph.meta_info_def.tags.append(tf.saved_model.SERVING)
    _sign(meta_graph, inputs, outputs, filled)
    stripping.strip(meta_graph)
    stripping.strip_graph(meta_graph)
    functions.name_by_content(meta_graph)
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    saved.meta_graphs.append(meta_graph)
    with open(os.path.join(path, "saved_model.pb"), "wb") as file:
        file.write(saved.SerializeToString(deterministic=True))


def _traced(network, payloads, constants):
    """Returns the network as a function of what is held and the inputs."""

    def serve(held, given):
        weights = {name: tf.constant(v) for name, v in constants.items()}
        for tensors, payload in zip(held, payloads, strict=True):
            weights.update(decoding.views(tensors, payload))
        return network.call(weights, given)

    held = [
        [
            tf.TensorSpec(shape, payload.dtype)
            for shape in decoding.shapes(payload)
        ]
        for payload in payloads
    ]
    function = tf.function(serve, autograph=False)
    return function.get_concrete_function(held, network.specs)


def _stores(payloads):
    """Returns what is read from the variables, and what fills them all."""
    held, fills = [], []
    for payload in payloads:
        rows = decoding.decode(tf.constant(payload.blob), payload)
        values = decoding.distributed(rows, payload)
        held.append([])
        for i, (value, shape) in enumerate(
            zip(values, decoding.shapes(payload))
        ):
            handle = tf.raw_ops.VarHandleOp(
                dtype=payload.dtype,
                shape=shape,
                shared_name=decoding.shared_name(payload, i),
            )
            fills.append(
                tf.raw_ops.AssignVariableOp(resource=handle, value=value)
            )
            read = tf.raw_ops.ReadVariableOp(
                resource=handle, dtype=payload.dtype
            )
            read.set_shape(shape)
            held[-1].append(read)
    return held, tf.group(*fills)


def _imported(traced, held, inputs):
    # What a layer has computed from its weights before, as `Normalization`
    # does, is no argument of it.
    derived = [tf.constant(each.numpy()) for each in traced.captured_inputs]
    arguments = tf.nest.flatten((held, inputs)) + derived
    feeds = {
        inner.name: outer
        for inner, outer in zip(traced.inputs, arguments, strict=True)
    }
    names = list(traced.structured_outputs)
    found = tf.graph_util.import_graph_def(
        traced.graph.as_graph_def(),
        input_map=feeds,
        return_elements=[traced.structured_outputs[n].name for n in names],
        name="",
    )
    return dict(zip(names, found, strict=True))


def _sign(meta_graph, inputs, outputs, filled):
    serving = meta_graph.signature_def["serving_default"]
    serving.method_name = tf.saved_model.PREDICT_METHOD_NAME
    for place, tensors in (
        (serving.inputs, inputs),
        (serving.outputs, outputs),
    ):
        for name, tensor in tensors.items():
            place[name].name = tensor.name
            place[name].dtype = tensor.dtype.as_datatype_enum
            place[name].tensor_shape.CopyFrom(tensor.shape.as_proto())
    first = meta_graph.signature_def[INITIALIZER].outputs[INITIALIZER]
    first.name = filled.name
    first.tensor_shape.unknown_rank = True
