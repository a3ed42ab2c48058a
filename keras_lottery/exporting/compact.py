"""A SavedModel as small as what is in it: decoded once, when it is loaded.

The graph holds a payload (`codec`) as a constant. The initializer, which
`tf.saved_model.load` calls and TF Serving runs as the init op, decodes it with
core operations into one flat variable per dtype. Requests read that variable:
nothing is decoded then. No private name of TensorFlow is used.
"""

import hashlib

import keras
import tensorflow as tf

from keras_lottery.exporting import codec
from keras_lottery.exporting import signature
from keras_lottery.exporting import stripping
from keras_lottery.pruning import naming

# A serialised graph ends at 2 GiB, and holds more than the payloads.
MOST_BYTES = 2**31 - 2**26


def write_compact(model, path):
    """Writes a Keras model as a compact SavedModel.

    Weights come back bit for bit, except that a -0.0 becomes 0.0. Variables
    that are not floats (seeds, counters) become constants, and what a layer
    assigns while it is called lasts for that call. Weights of a loaded export
    are not trainable. Of an export that was loaded and saved again, hold the
    loaded object as long as its signatures are in use.

    Args:
        model: A built `keras.Model` with finite weights.
        path: Directory to write into.

    Raises:
        ValueError: A weight is float64 or has another dtype that a payload
            does not hold, more weights than one SavedModel holds, or what the
            model is called on is not known.

    Example:

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> path = tempfile.mkdtemp()
    >>> write_compact(model, path)
    >>> serve = tf.saved_model.load(path).signatures["serving_default"]
    >>> [tuple(answer.shape) for answer in serve(tf.ones((3, 4))).values()]
    [(3, 2)]
    """
    stores, constants = _stored(model)
    specs, arranged = signature.signature(model)

    def serve(**inputs):
        values = {name: tf.constant(v) for name, v in constants.items()}
        for store in stores:
            values.update(store.read())
        outputs = _call(model, values, arranged(inputs))
        return signature.named_outputs(model, outputs)

    module = tf.Module()
    for store in stores:
        setattr(module, store.payload.dtype.name, store)
    tf.saved_model.save(
        module,
        path,
        signatures={
            "serving_default": tf.function(
                serve, autograph=False
            ).get_concrete_function(**specs)
        },
        # Without it, operations that save nothing double a small export.
        options=tf.saved_model.SaveOptions(experimental_skip_saver=True),
    )
    stripping.finish(path)


def decode(blob, payload):
    """Decodes with TensorFlow's core operations.

    Args:
        blob: Scalar string tensor.
        payload: The `Payload` that says what is in it.

    Returns:
        Tensor of shape [rows, 16] with all arrays, zeros included.
    """
    data = tf.io.decode_raw(tf.io.decode_compressed(blob, "ZLIB"), tf.uint8)
    codes, values, raw = tf.split(data, payload.sections)
    takes = codes < codec.SKIP
    after = tf.cumsum(tf.cast(codes, tf.int32) + tf.cast(takes, tf.int32))
    places = tf.gather_nd(after, tf.where(takes))[:, None] - 1
    rows = sum(slot.rows for slot in payload.sparse)
    sparse = tf.scatter_nd(
        places, _joined(values, payload.dtype), [rows * codec.ROW]
    )
    flat = tf.concat([sparse, _joined(raw, payload.dtype)], 0)
    return tf.ensure_shape(
        tf.reshape(flat, [-1, codec.ROW]), [payload.rows, codec.ROW]
    )


class Store(tf.saved_model.experimental.TrackableResource):
    """A variable that is decoded when its SavedModel is loaded.

    No checkpoint holds it: the payload in the initializer is all there is.
    """

    def __init__(self, payload):
        super().__init__()
        self.payload = payload
        # Made here and not by the first trace that reads it, which would keep
        # the handle inside its own graph.
        self.handle = self.resource_handle

    def read(self):
        """Returns dict from name to tensor: views of the decoded rows."""
        rows = tf.raw_ops.ReadVariableOp(
            resource=self.handle, dtype=self.payload.dtype
        )
        rows.set_shape([self.payload.rows, codec.ROW])
        slots = self.payload.slots
        parts = tf.split(rows, [slot.rows for slot in slots])
        return {
            slot.name: _shaped(part, slot)
            for slot, part in zip(slots, parts, strict=True)
        }

    def _create_resource(self):
        # A name of its own: resources without one share a single variable
        # wherever exports meet, and answer with each other's weights.
        layout = repr((self.payload.rows, self.payload.sections)).encode()
        digest = hashlib.sha256(layout + self.payload.blob).hexdigest()[:16]
        return tf.raw_ops.VarHandleOp(
            dtype=self.payload.dtype,
            shape=[self.payload.rows, codec.ROW],
            shared_name=f"{self.payload.dtype.name}_{digest}",
        )

    def _initialize(self):
        tf.raw_ops.AssignVariableOp(
            resource=self.resource_handle,
            value=decode(tf.constant(self.payload.blob), self.payload),
        )

    def _destroy_resource(self):
        tf.raw_ops.DestroyResourceOp(
            resource=self.resource_handle, ignore_lookup_error=True
        )


def _stored(model):
    """Returns the stores of all floats, and the other variables as arrays."""
    by_dtype, constants = {}, {}
    for weight in naming.walk(model):
        dtype = keras.backend.standardize_dtype(weight.variable.dtype)
        group = constants
        if "float" in dtype:
            group = by_dtype.setdefault(dtype, {})
        group[weight.name] = weight.variable.numpy()
    # What is zero is pruned, -0.0 too: `w * mask` turns negative weights into
    # it, and each would be stored as a value.
    unknown = sorted(set(by_dtype) - set(codec.WIDTHS))
    if unknown:
        raise ValueError(
            f"A compact export holds {', '.join(codec.WIDTHS)}, and the model "
            f"has {', '.join(unknown)}. Export with format='dense'."
        )
    payloads = [
        codec.encode(group, {name: value != 0 for name, value in group.items()})
        for group in by_dtype.values()
    ]
    _check_size(payloads)
    return [Store(payload) for payload in payloads], constants


def _check_size(payloads):
    size = sum(len(payload.blob) for payload in payloads)
    if size > MOST_BYTES:
        raise ValueError(
            f"A compact export holds {MOST_BYTES:,} bytes of weights at most, "
            f"got {size:,}. Export with format='dense'."
        )


def _call(model, values, inputs):
    mapping = [(w.variable, values[w.name]) for w in naming.walk(model)]
    # `stateless_call` does the same, but hands `training` to every `call`,
    # whether it takes one or not.
    with keras.StatelessScope(state_mapping=mapping):
        return model(inputs, training=False)


def _shaped(rows, slot):
    if slot.size != slot.rows * codec.ROW:
        rows = tf.reshape(rows, [-1])[: slot.size]
    return tf.reshape(rows, slot.shape)


def _joined(planes, dtype):
    columns = tf.reshape(planes, [dtype.itemsize, -1])
    return tf.bitcast(tf.transpose(columns), tf.as_dtype(dtype))
