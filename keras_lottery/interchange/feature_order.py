"""In which order features lie where images were made flat.

Keras flattens images as (height, width, channels), PyTorch as (channels,
height, width). A dense layer behind a `Flatten` reads its inputs in another
order there, one before a `Reshape` to an image writes them in another.
"""

from typing import NamedTuple

import keras
import numpy as np

from keras_lottery.pruning import graph as calls_of_layers
from keras_lottery.pruning import layer_graph

layers = keras.layers
_DENSE = (layers.Dense, layers.EinsumDense)
_NORMALIZATION = (layers.BatchNormalization, layers.LayerNormalization)
# What gives each position of its output from the same one of its inputs.
_KEEPING = (
    *_NORMALIZATION,
    layers.Activation,
    layers.ActivityRegularization,
    layers.Add,
    layers.Average,
    layers.Dropout,
    layers.ELU,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.LeakyReLU,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Normalization,
    layers.PReLU,
    layers.ReLU,
    layers.Rescaling,
    layers.Softmax,
    layers.Subtract,
)
_KEEPING_OPERATIONS = {
    "Absolute", "Add", "Cast", "Divide", "Elu", "Exp", "Gelu", "LeakyRelu",
    "Maximum", "Minimum", "Multiply", "Relu", "Relu6", "Sigmoid", "Silu",
    "Square", "Subtract", "Tanh",
}  # fmt: skip
# Of tensors of rank 3, those that these make have channels first in PyTorch;
# what embeddings and recurrent layers make has features last there, too.
_IN_ONE_DIMENSION = (
    layers.AveragePooling1D,
    layers.Conv1D,
    layers.Conv1DTranspose,
    layers.DepthwiseConv1D,
    layers.MaxPooling1D,
    layers.SeparableConv1D,
)
_PASSING = (layers.Cropping1D, layers.UpSampling1D, layers.ZeroPadding1D)
_STEPS = (layers.TimeDistributed, layers.ConvLSTM1D, layers.ConvLSTM2D)
MIXED = "mixed"  # an order that is not followed
STEPS = "steps"  # the same along the last axis, images of several steps


class Orders(NamedTuple):
    """Dicts from `id` of a layer to positions: theirs[i] is ours[order[i]].

    Fields:
        inputs: Of what a dense layer reads.
        outputs: Of what a dense layer or a normalization writes.
    """

    inputs: dict
    outputs: dict


def of(model):
    """Returns the `Orders` of a model; layers that are not in it have none.

    Args:
        model: A built `keras.Model`.

    Raises:
        ValueError: An order is not known: something stands between the image
            and the dense layer, or the model has code of its own.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((1, 2, 3)), layers.Flatten(), layers.Dense(4)]
    ... )
    >>> of(model).inputs[id(model.layers[-1])].tolist()
    [0, 3, 1, 4, 2, 5]
    """
    if not layer_graph.is_flat(model):
        _refuse_hidden_images(model)
        return Orders({}, {})
    return _Reader(layer_graph.read(model)).orders()


def of_image(shape):
    """Returns positions in (height, width, channels) as PyTorch lists them.

    Example:

    >>> of_image((2, 1, 2)).tolist()
    [0, 2, 1, 3]
    """
    return np.moveaxis(np.arange(np.prod(shape)).reshape(shape), -1, 0).ravel()


class _Reader:
    """Follows orders from wire to wire, once through a graph."""

    def __init__(self, graph):
        self._graph = graph
        self._maker = {
            id(wire): call for call in graph.calls for wire in call.outputs
        }
        self._order = {}  # by id of a wire
        self._channels_last = set()  # ids of wires of rank 3 or more: images
        self._found = Orders({}, {})

    def orders(self):
        """Returns the `Orders` of the graph."""
        for wire in layer_graph.wires(self._graph.inputs):
            self._mark_image(wire, None, ())
        demands = self._demands()
        for call in self._graph.calls:
            inputs = call.inputs
            for wire in call.outputs:
                self._mark_image(wire, call.operation, inputs)
                order = self._after(call, wire, demands)
                if order is not None:
                    self._order[id(wire)] = order
        return self._found

    def _mark_image(self, wire, operation, inputs):
        rank = len(wire.shape)
        passing = _keeps(operation) or isinstance(operation, _PASSING)
        if (
            rank >= 4
            or (rank == 3 and isinstance(operation, _IN_ONE_DIMENSION))
            or (passing and any(id(w) in self._channels_last for w in inputs))
        ):
            self._channels_last.add(id(wire))

    def _demands(self):
        """Returns by id of a wire the order in which it becomes an image."""
        demands = {}
        for call in self._graph.calls:
            if not isinstance(call.operation, layers.Reshape):
                continue
            (wire,), (image,) = call.inputs, call.outputs
            order = _order_of(image.shape)
            if len(wire.shape) == 2 and len(image.shape) > 3:
                self._demand(wire, order, demands)
        return demands

    def _demand(self, wire, order, demands):
        call = self._maker.get(id(wire))
        if order is None or call is None:
            return  # in the order in which the model is fed
        if _keeps(call.operation):
            for before in call.inputs:
                self._demand(before, order, demands)
        demands[id(wire)] = order

    def _after(self, call, wire, demands):
        """Returns the order of what a call gives; None is the same."""
        operation, inputs = call.operation, call.inputs
        orders = [self._order.get(id(each)) for each in inputs]
        if isinstance(operation, _STEPS) and len(wire.shape) > 3:
            return STEPS
        if isinstance(operation, _DENSE):
            return self._dense(operation, inputs, orders, demands.get(id(wire)))
        if isinstance(operation, (layers.Flatten, layers.Reshape)):
            return self._reshaped(operation, inputs[0], wire, orders[0])
        if all(order is None or order is STEPS for order in orders):
            return orders[0] if _keeps(operation) else None
        if isinstance(operation, layers.Concatenate) and len(wire.shape) == 2:
            return _joined(inputs, orders)
        if _keeps(operation) and all(_same(orders[0], o) for o in orders):
            if isinstance(operation, _NORMALIZATION):
                self._note(self._found.outputs, operation, orders[0])
            return orders[0]
        if MIXED in map(_text, orders) and getattr(operation, "weights", ()):
            raise ValueError(_not_followed(operation))
        return MIXED

    def _dense(self, layer, inputs, orders, demanded):
        order = orders[0]
        if order is STEPS and len(inputs[0].shape) > 2:
            order = None  # only of steps and pixels, not of the last axis
        self._note(self._found.inputs, layer, order)
        self._note(self._found.outputs, layer, demanded)
        return demanded

    def _note(self, found, layer, order):
        if isinstance(order, str):
            raise ValueError(_not_followed(layer))
        if not _same(found.setdefault(id(layer), order), order):
            raise ValueError(
                f"{layer.name!r} is used several times, on features in "
                "different orders: PyTorch has no such layer."
            )

    def _reshaped(self, operation, before, after, order):
        image = id(before) in self._channels_last
        if len(before.shape) == 2 and len(after.shape) > 2:
            needed = _order_of(after.shape) if len(after.shape) > 3 else None
            fed = order is None and id(before) not in self._maker
            return None if fed or _same(order, needed) else MIXED
        if len(after.shape) > 2:
            same = before.shape[-1] == after.shape[-1]
            return MIXED if image and not same else order
        if not image or order is not None:
            return order
        first = getattr(operation, "data_format", "") == "channels_first"
        shape = before.shape
        return _order_of((shape[0], *shape[2:], shape[1]) if first else shape)


def _order_of(shape):
    """Returns the order of a flat image, or None where both are the same."""
    if None in shape[1:]:
        return None
    several = shape[-1] > 1 and np.prod(shape[1:-1]) > 1
    return of_image(shape[1:]) if several else None


def _joined(inputs, orders):
    if any(isinstance(order, str) for order in orders):
        return MIXED
    parts, begin = [], 0
    for wire, order in zip(inputs, orders, strict=True):
        width = wire.width
        parts.append(begin + (np.arange(width) if order is None else order))
        begin += width
    return np.concatenate(parts)


def _text(order):
    return order if isinstance(order, str) else ""


def _not_followed(layer):
    return (
        f"In which order {layer.name!r} reads its inputs in PyTorch is not "
        "known: between it and the image that is made flat, or a flat one that "
        "is made an image, stands something that moves features. Activations, "
        "normalization, dropout and `Concatenate` may stand there."
    )


def _keeps(operation):
    if isinstance(operation, keras.layers.Layer):
        return isinstance(operation, _KEEPING)
    return type(operation).__name__ in _KEEPING_OPERATIONS


def _same(one, two):
    if one is None or two is None or isinstance(one, str):
        return one is two
    return np.array_equal(one, two)


def _refuse_hidden_images(model):
    """Raises where a model with code of its own flattens images."""
    for call in calls_of_layers.calls(model) or ():
        shape = call.inputs[0] if call.inputs else ()
        flattens = isinstance(call.layer, layers.Flatten) and len(shape) >= 4
        if flattens and _order_of(shape) is not None:
            raise ValueError(
                f"{model.name!r} flattens images in code of its own, and "
                "PyTorch flattens them in another order: which layer reads "
                "them is not known. Build the model as `keras.Sequential` or "
                "`keras.Model(inputs, outputs)`."
            )
