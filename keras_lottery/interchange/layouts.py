"""How PyTorch lays out the weights of Keras layers.

| Keras | PyTorch |
|---|---|
| Dense (in, out) | Linear (out, in) |
| Conv (h, w, in, out), Conv...Transpose (h, w, out, in) | last two first |
| DepthwiseConv (h, w, channels, multiplier) | Conv (channels * m, 1, h, w) |
| EinsumDense (in..., out...) | Linear (prod(out), prod(in)) |
| LSTM, SimpleRNN (in, gates) | (gates, in); gates in the same order |
| GRU (in, [z, r, n]) | ([r, z, n], in) |
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from keras_lottery.interchange import feature_order
from keras_lottery.pruning import naming

layers = keras.layers
_CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv1DTranspose,
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.Conv3D,
    layers.Conv3DTranspose,
)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_CELLS = (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)
_LEAVES = {
    "kernel": "weight",
    "embeddings": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_OF_SEPARABLE = {
    "depthwise_kernel": "depthwise.weight",
    "pointwise_kernel": "pointwise.weight",
    "bias": "pointwise.bias",
}
_OF_CELLS = {"kernel": "weight_ih_l0", "recurrent_kernel": "weight_hh_l0"}


class Turn(NamedTuple):
    """Two functions of an array: to their layout, and back."""

    forth: Callable
    back: Callable


class Part(NamedTuple):
    """A weight of ours, and what it is in PyTorch.

    Fields:
        name: Ours, as `"fc1/kernel"`.
        owner: Ours of the layer, as `"fc1"`.
        leaves: The last parts of their names: two for the biases of cells.
        shape: That of each of theirs.
        turn: From our layout to theirs, along a first axis where theirs are
            two; None where none is known.
        summed: Whether theirs are two that are added (ours and zeros).
        layer: The layer that owns it.
        own_shape: That of ours.
    """

    name: str
    owner: str
    leaves: tuple
    shape: tuple | None
    turn: Turn | None
    summed: bool
    layer: keras.layers.Layer
    own_shape: tuple

    @property
    def theirs(self):
        """Their names where layers have the same names as ours."""
        above = self.owner.replace("/", ".")
        return tuple(f"{above}.{leaf}".lstrip(".") for leaf in self.leaves)

    def to_theirs(self, array):
        """Returns a tuple of arrays in their layout, one for each leaf."""
        array = np.asarray(array)
        if self.summed:
            return self.turn.forth(array), np.zeros_like(array)
        turned = np.ascontiguousarray(self.turn.forth(array))
        return tuple(turned) if len(self.leaves) > 1 else (turned,)

    def to_ours(self, arrays):
        """Returns an array in our layout: the inverse of `to_theirs`."""
        if self.summed:
            return self.turn.back(arrays[0] + arrays[1])
        theirs = arrays[0] if len(self.leaves) == 1 else np.stack(arrays)
        ours = self.turn.back(theirs).reshape(self.own_shape)
        return np.ascontiguousarray(ours)


def parts(model):
    """Returns a `Part` for each weight that a PyTorch twin has, in order.

    Seeds, counters and `Normalization` have none.

    Args:
        model: A built `keras.Model`.

    Raises:
        ValueError: The order of flattened features is not known.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), layers.Dense(2, name="fc1")]
    ... )
    >>> [(part.theirs, part.shape) for part in parts(model)]
    [(('fc1.weight',), (2, 4)), (('fc1.bias',), (2,))]
    """
    orders = feature_order.of(model)
    return [_part(w, orders) for w in naming.walk(model) if _has_twin(w)]


def _has_twin(weight):
    dtype = keras.backend.standardize_dtype(weight.variable.dtype)
    of_data = isinstance(weight.layer, layers.Normalization)
    return "float" in dtype and not of_data


def _part(weight, orders):
    role = weight.name.rpartition("/")[2].partition("~")[0]
    own_shape = tuple(weight.variable.shape)
    owner, leaves = _named(weight, role)
    turn = _turn(weight.layer, role, own_shape, orders)
    shape = None
    if turn is not None:
        shape = turn.forth(np.broadcast_to(np.False_, own_shape)).shape
    lstm_bias = isinstance(weight.layer, _CELLS) and len(own_shape) == 1
    if len(leaves) > 1 and shape is not None and not lstm_bias:
        shape = shape[1:]
    return Part(
        weight.name, owner, leaves, shape, turn, lstm_bias, weight.layer,
        own_shape,
    )  # fmt: skip


def _named(weight, role):
    """Returns (path of the layer, last parts of their names)."""
    owner, layer = weight.layer_path, weight.layer
    if isinstance(layer, _SEPARABLE):
        return owner, (_OF_SEPARABLE.get(role, role),)
    if not isinstance(layer, _CELLS):
        return owner, (_LEAVES.get(role, role),)
    owner = owner.removesuffix("cell").rstrip("/")
    above, _, last = owner.rpartition("/")
    directions = {"forward_layer": "", "backward_layer": "_reverse"}
    owner = above if last in directions else owner
    leaves = (_OF_CELLS.get(role),) if role in _OF_CELLS else (
        "bias_ih_l0", "bias_hh_l0",
    )  # fmt: skip
    return owner, tuple(leaf + directions.get(last, "") for leaf in leaves)


def _turn(layer, role, shape, orders):
    """Returns the `Turn` of a weight, or None."""
    if isinstance(layer, _CELLS):
        return _cell(layer, role)
    if isinstance(layer, (*_CONVOLUTIONS, *_SEPARABLE, *_DEPTHWISE)):
        depthwise = role == "depthwise_kernel" or isinstance(layer, _DEPTHWISE)
        return _SAME if len(shape) < 3 else _convolution(shape, depthwise)
    before = orders.inputs.get(id(layer))
    after = orders.outputs.get(id(layer))
    if isinstance(layer, layers.Dense) and role == "kernel":
        return _linear(shape, before, after)
    if isinstance(layer, layers.EinsumDense) and role == "kernel":
        return _einsum(layer, shape, before, after)
    if isinstance(layer, layers.Embedding):
        return _SAME
    if len(shape) < 2 or isinstance(layer, layers.EinsumDense):
        return _vector(after)
    return None


_SAME = Turn(lambda ours: ours, lambda theirs: theirs)


def _vector(order):
    return Turn(
        lambda ours: _taken(ours.reshape(-1), order, 0),
        lambda theirs: _put(theirs, order, 0),
    )


def _linear(shape, before, after):
    """Of flat (inputs, outputs) in orders of their own."""
    return Turn(
        lambda ours: _taken(_taken(ours.reshape(shape), before, 0), after, 1).T,
        lambda theirs: _put(_put(theirs.T, before, 0), after, 1),
    )


def _taken(array, order, axis):
    return array if order is None else np.take(array, order, axis)


def _put(array, order, axis):
    """The inverse of `_taken`."""
    return _taken(array, None if order is None else np.argsort(order), axis)


def _convolution(shape, depthwise):
    *window, before, last = shape

    def forth(ours):
        turned = np.moveaxis(ours, (-1, -2), (0, 1))
        if not depthwise:
            return turned
        turned = np.swapaxes(turned, 0, 1)
        return turned.reshape(before * last, 1, *window)

    def back(theirs):
        if depthwise:
            theirs = theirs.reshape(before, last, *window)
            theirs = np.swapaxes(theirs, 0, 1)
        return np.moveaxis(theirs, (0, 1), (-1, -2))

    return Turn(forth, back)


def _cell(layer, role):
    """Gates are blocks of the last axis; PyTorch's GRU swaps two of them."""
    swap = _SAME.forth
    if isinstance(layer, layers.GRUCell):
        if not layer.reset_after:
            return None  # PyTorch has no such GRU
        swap = _swapped
    if role == "bias":
        return Turn(swap, swap)
    return Turn(lambda ours: swap(ours).T, lambda theirs: swap(theirs.T))


def _swapped(array):
    """Returns [r, z, n] of [z, r, n], along the last axis, and the reverse."""
    first, second, third = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)


def _einsum(layer, shape, before, after):
    """Returns how an EinsumDense is a Linear of flat features, or None."""
    given, _, result = layer.equation.replace(" ", "").partition("->")
    inputs, _, kernel = given.partition(",")
    read = [axis for axis in kernel if axis in inputs and axis not in result]
    made = [axis for axis in kernel if axis in result and axis not in inputs]
    if read + made != list(kernel):
        return None
    if not (inputs.endswith("".join(read)) and result.endswith("".join(made))):
        return None
    width = int(np.prod(shape[: len(read)]))
    return _linear((width, -1), before, after)
