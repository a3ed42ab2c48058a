"""Units: the parts of a model that can only go as a whole.

A filter is an output channel, in every kernel that makes it: layers whose
outputs are added share theirs, and a depthwise kernel has a slice of each. A
channel is a filter together with what reads it. A head is a slice of the four
kernels of an attention layer.
"""

import dataclasses

import keras
import numpy as np

from keras_lottery.pruning import channel_kinds as kinds
from keras_lottery.pruning import channel_numbers
from keras_lottery.pruning import layer_graph
from keras_lottery.pruning import naming


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """Whose the positions along one axis of a weight are.

    Fields:
        axis: The axis, counted from the end: -1 or less.
        units: Int array, one entry per position: its unit, or -1 for none.
    """

    axis: int
    units: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """The units of a model. One owns every position that names it.

    Fields:
        what: What they are: `"channels"`.
        sides: Dict from weight name to a tuple of one or two `Side`s.
        groups: Int array, the group of each unit: units of the same layers,
            of which one always stays.
        whole: Names of layers that need all of their channels.
    """

    what: str
    sides: dict
    groups: np.ndarray
    whole: tuple = ()

    def within(self, names):
        """Returns the units that lie in the weights `names`, all of them."""
        outside = [name for name in self.sides if name not in names]
        return self._restricted(~self._in(outside))

    def reaching(self, names):
        """Returns the units that have a part in the weights `names`."""
        return self._restricted(self._in(names))

    def _in(self, names):
        """Returns which units have a part in some weights; last: none."""
        found = np.zeros(len(self.groups) + 1, bool)
        for name in names:
            for side in self.sides.get(name, ()):
                found[side.units] = True
        return found

    def _restricted(self, chosen):
        chosen = chosen.copy()
        chosen[-1] = False  # the place of -1: no unit
        found = {}
        for name, sides in self.sides.items():
            sides = tuple(
                Side(side.axis, np.where(chosen[side.units], side.units, -1))
                for side in sides
                if chosen[side.units].any()
            )
            if sides:
                found[name] = sides
        return dataclasses.replace(self, sides=found)


def filters(model):
    """Returns the `Units` of a model that are output channels.

    Args:
        model: A built Functional or Sequential `keras.Model`.

    Raises:
        ValueError: The graph of the model is not known.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    >>> model.add(keras.layers.Dense(2))
    >>> found = filters(model)
    >>> len(found.groups), list(found.sides)
    (4, ['dense/kernel'])
    """
    return _of_graph("filters", model, rows=False)


def channels(model):
    """Returns the `Units` of a model that are channels, with who reads them.

    As `filters`; a unit has the rows of the kernels that read it, too, so that
    it leaves nothing behind.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    >>> model.add(keras.layers.Dense(2))
    >>> found = channels(model)
    >>> len(found.groups), list(found.sides)
    (4, ['dense/kernel', 'dense_1/kernel'])

    Reference: Li et al. (2017), section 3.1; Fang et al. (2023), section 3.
    """
    return _of_graph("channels", model, rows=True)


def heads(model):
    """Returns the `Units` of a model that are attention heads.

    A head is its slice of the query, key, value, gate and output kernels.
    Where several query heads share a key and value head, they are one unit.

    Args:
        model: A built `keras.Model` of any kind: layers are found by walking.

    Example:

    >>> import keras
    >>> x = keras.Input((5, 8))
    >>> y = keras.layers.MultiHeadAttention(2, key_dim=4)(x, x)
    >>> found = heads(keras.Model(x, y))
    >>> len(found.groups), len(found.sides)
    (2, 4)

    Reference: Michel et al. (2019), section 2.
    """
    names = _kernel_names(model)
    sides, groups = {}, []
    for layer in _attentions(model):
        kernels = _attention_kernels(layer, names)
        shared = _shared_heads(kernels)
        if shared is None:
            continue
        for name, (axis, shape) in kernels.items():
            repeats = shape[axis] // shared
            units = len(groups) + np.repeat(np.arange(shared), repeats)
            sides[name] = (Side(axis, units),)
        groups += [len(groups)] * shared
    return Units("heads", sides, np.array(groups, int))


def _of_graph(what, model, rows):
    if not isinstance(model, keras.Model):  # tf_keras, or a layer
        raise ValueError(
            f"{what!r} needs a Keras 3 model (`keras.Model`), and "
            f"{model.name!r} is none. Other allocations: 'blocks', '2:4', and "
            "those of single weights."
        )
    try:
        graph = layer_graph.read(model)
    except ValueError as error:
        raise ValueError(
            f"{error} Allocations that need no graph: 'heads', 'blocks', '2:4'."
        ) from error
    numbers = channel_numbers.Numbers(graph)
    names = _kernel_names(model)
    unit_of = _numbered(graph, numbers)
    sides = {}
    for call in graph.calls:
        name = names.get(id(call.operation))
        found = [
            Side(axis, unit_of[numbers.of(wire)])
            for axis, wire in _axes(call, numbers.kinds[call], rows)
        ]
        found = tuple(side for side in found if (side.units >= 0).any())
        if name is not None and found:
            sides[name] = found
    whole = [
        call.operation.name
        for call in graph.calls
        if numbers.kinds[call] == "barrier"
    ]
    count = int(unit_of.max(initial=-1)) + 1
    whole = tuple(dict.fromkeys(whole))  # one may be called twice
    return Units(what, sides, _groups(sides, count), whole)


def _numbered(graph, numbers):
    """Returns the unit of every number, -1 for none, in the graph's order."""
    unit_of = np.full(len(numbers.fixed), -1)
    count = 0
    for call in graph.calls:
        if numbers.kinds[call] != "affine":
            continue
        for number in numbers.of(call.outputs[0]):
            if unit_of[number] < 0 and not numbers.fixed[number]:
                unit_of[number] = count
                count += 1
    return unit_of


def _axes(call, kind, rows):
    """Yields the axes of a layer's kernel that hold channels of a tensor."""
    if kind == "depthwise":
        yield -2, call.inputs[0]
    if kind == "affine":
        turned = isinstance(call.operation, kinds.TRANSPOSED)
        yield (-2 if turned else -1), call.outputs[0]
        if rows:
            yield (-1 if turned else -2), call.inputs[0]


def _groups(sides, count):
    """Returns which units lie in the same weights, along the same axes."""
    places = [[] for _ in range(count)]
    for name, found in sides.items():
        for side in found:
            for unit in np.unique(side.units[side.units >= 0]):
                places[unit].append((name, side.axis))
    known = {}
    groups = [known.setdefault(tuple(place), len(known)) for place in places]
    return np.array(groups, int)


def _kernel_names(model):
    """Returns dict from `id` of a layer to the name of its kernel."""
    return {
        id(weight.layer): weight.name
        for weight in naming.walk(model)
        if weight.variable.name == "kernel"
    }


def _attentions(model):
    """Returns the layers with a query, key, value and output of heads."""
    parts = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")
    return [
        layer
        for layer in model._flatten_layers()
        if all(getattr(layer, part, None) is not None for part in parts)
    ]


def _attention_kernels(layer, names):
    """Returns dict from kernel name to the axis of its heads and its shape."""
    found = {}
    for part in ("query", "key", "value", "gate", "output"):
        dense = getattr(layer, f"_{part}_dense", None)
        if dense is not None and id(dense) in names:
            shape = tuple(dense.kernel.shape)
            # Kernels are (in, heads, dim), but for the output's.
            axis = -len(shape) if part == "output" else -2
            found[names[id(dense)]] = (axis, shape)
    return found


def _shared_heads(kernels):
    """Returns how many key and value heads there are, None if not known."""
    counts = [shape[axis] for axis, shape in kernels.values()]
    plain = all(len(shape) == 3 for _, shape in kernels.values())
    if len(kernels) < 4 or not plain:
        return None
    shared = min(counts)
    return None if any(count % shared for count in counts) else shared
