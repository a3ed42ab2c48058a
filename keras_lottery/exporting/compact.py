"""A SavedModel as small as what is in it: decoded once, when it is loaded.

The graph holds a payload (`codec`) as a constant. The initializer, which
`tf.saved_model.load` calls and TF Serving runs as the init op, decodes it with
core operations into variables (`decoding`). Requests read those: nothing is
decoded then. No private name of TensorFlow is used.
"""

import tensorflow as tf

from keras_lottery.exporting import codec
from keras_lottery.exporting import decoding
from keras_lottery.exporting import network as networks
from keras_lottery.exporting import signature
from keras_lottery.exporting import stripping

# A serialised graph ends at 2 GiB, and holds more than the payloads.
MOST_BYTES = 2**31 - 2**26


def write_compact(model, path, *, values="float32"):
    """Writes a model as a compact SavedModel.

    Weights come back bit for bit, except that a -0.0 becomes 0.0. Variables
    that are not floats (seeds, counters) become constants, and what a layer
    assigns while it is called lasts for that call. Weights of a loaded export
    are not trainable. Of an export that was loaded and saved again, hold the
    loaded object as long as its signatures are in use.

    Args:
        model: A built Keras 3 or tf_keras model with finite weights.
        path: Directory to write into.
        values: `"float32"`, or what kernels are rounded to: `"float16"`,
            `"bfloat16"`, `"int8"`.

    Raises:
        ValueError: A weight is float64 or has another dtype that a payload
            does not hold, more weights than one SavedModel holds, what the
            model is called on is not known, or a weight is beyond `values`.

    Example:

    >>> import keras, tempfile
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> path = tempfile.mkdtemp()
    >>> write_compact(model, path)
    >>> serve = tf.saved_model.load(path).signatures["serving_default"]
    >>> [tuple(answer.shape) for answer in serve(tf.ones((3, 4))).values()]
    [(3, 2)]
    """
    network = networks.of(model)
    signature.require_parameters(network.specs)
    payloads, constants = encoded(network, values)
    stores = [Store(payload) for payload in payloads]

    def serve(**inputs):
        weights = {name: tf.constant(v) for name, v in constants.items()}
        for store in stores:
            weights.update(store.read())
        return network.call(weights, inputs)

    module = tf.Module()
    for store in stores:
        setattr(module, store.payload.dtype.name, store.resources)
    function = tf.function(serve, autograph=False)
    concrete = function.get_concrete_function(**network.specs)
    held = [resource for store in stores for resource in store.resources]
    networks.require_weights_only(concrete, model, held)
    tf.saved_model.save(
        module,
        path,
        signatures={"serving_default": concrete},
        # Without it, operations that save nothing double a small export.
        options=tf.saved_model.SaveOptions(experimental_skip_saver=True),
    )
    stripping.finish(path)


class Store:
    """The variables of a payload, filled when the SavedModel is loaded."""

    def __init__(self, payload):
        self.payload = payload
        first, *others = decoding.shapes(payload)
        own = [_Held(payload, i, s) for i, s in enumerate(others, start=1)]
        self.resources = [_Filling(payload, first, own), *own]

    def read(self):
        """Returns dict from name to tensor."""
        held = [resource.read() for resource in self.resources]
        return decoding.views(held, self.payload)


class _Held(tf.saved_model.experimental.TrackableResource):
    """A variable that no checkpoint holds: a payload is all there is of it."""

    def __init__(self, payload, index, shape):
        super().__init__()
        self._dtype = payload.dtype
        self._shape = list(shape)
        self._name = decoding.shared_name(payload, index)
        # Made here and not by the first trace that reads it, which would keep
        # the handle inside its own graph.
        self.handle = self.resource_handle

    def read(self):
        """Returns what it holds."""
        value = tf.raw_ops.ReadVariableOp(
            resource=self.handle, dtype=self._dtype
        )
        value.set_shape(self._shape)
        return value

    def assign(self, value):
        """Makes it hold `value`."""
        tf.raw_ops.AssignVariableOp(
            resource=self.resource_handle,
            value=tf.ensure_shape(value, self._shape),
        )

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(
            dtype=self._dtype, shape=self._shape, shared_name=self._name
        )

    def _initialize(self):
        """Does nothing: the first variable of the payload fills this too."""

    def _destroy_resource(self):
        tf.raw_ops.DestroyResourceOp(
            resource=self.resource_handle, ignore_lookup_error=True
        )


class _Filling(_Held):
    """The first variable of a payload, which fills the others too."""

    def __init__(self, payload, shape, others):
        super().__init__(payload, 0, shape)
        self._payload = payload
        self._others = others

    def _initialize(self):
        rows = decoding.decode(tf.constant(self._payload.blob), self._payload)
        values = decoding.distributed(rows, self._payload)
        for resource, value in zip([self, *self._others], values, strict=True):
            resource.assign(value)


def encoded(network, values="float32"):
    """Returns the payloads of all floats, and the other weights as arrays.

    Args:
        network: A `Network`.
        values: As in `write_compact`.

    Raises:
        ValueError: As `write_compact`.
    """
    by_dtype, constants = {}, {}
    for name, value in network.weights.items():
        group = constants
        if "float" in value.dtype.name:
            group = by_dtype.setdefault(value.dtype.name, {})
        group[name] = value
    unknown = sorted(set(by_dtype) - set(codec.WIDTHS))
    if unknown:
        raise ValueError(
            f"A compact export holds {', '.join(codec.WIDTHS)}, and the model "
            f"has {', '.join(unknown)}. Export with format='dense'."
        )
    payloads = [_payload(group, values) for group in by_dtype.values()]
    _check_size(payloads)
    return payloads, constants


def _payload(arrays, values):
    # What is zero is pruned, -0.0 too: `w * mask` turns negative weights into
    # it, and each would be stored as a value.
    kept = {name: value != 0 for name, value in arrays.items()}
    return codec.encode(arrays, kept, values)


def _check_size(payloads):
    size = sum(len(payload.blob) for payload in payloads)
    if size > MOST_BYTES:
        raise ValueError(
            f"A compact export holds {MOST_BYTES:,} bytes of weights at most, "
            f"got {size:,}. Export with format='dense'."
        )
