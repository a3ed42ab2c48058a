"""Who is who among the channels of a graph.

Every channel of every tensor has a number. Layers that work channel by channel
hand numbers on; where tensors are added the numbers at the same place become
one class, which lives or goes as a whole (the stream of a residual network).
"""

import numpy as np

from keras_lottery.pruning import channel_kinds as kinds
from keras_lottery.pruning import layer_graph


class Numbers:
    """The classes of channels that flow through a graph.

    Args:
        graph: A `layer_graph.Graph`.

    Attributes:
        kinds: Dict from `Call` to its kind (see `channel_kinds`).
        fixed: Bool array, one entry per number: whether its class has to stay,
            since it is one of the model's inputs or outputs, or of what a
            barrier reads or makes.

    Example:

    >>> import keras
    >>> image = keras.Input((4, 4, 2))
    >>> x = keras.layers.Conv2D(2, 1)(image) + keras.layers.Conv2D(2, 1)(image)
    >>> graph = layer_graph.read(keras.Model(image, keras.layers.ReLU()(x)))
    >>> numbers = Numbers(graph)
    >>> one, other, *_ = (numbers.of(c.outputs[0]) for c in graph.calls)
    >>> bool((one == other).all()), int(np.count_nonzero(numbers.fixed[one]))
    (True, 2)
    """

    def __init__(self, graph):
        times = graph.times()
        self.kinds = {
            call: kinds.kind(call, times[id(call.operation)])
            for call in graph.calls
        }
        self._classes = _Classes()
        self._numbers = {}
        self._staying = []
        for wire in layer_graph.wires(graph.inputs):
            self._start(wire)
            self._stays(wire)
        for call in graph.calls:
            self._pass(call)
        for wire in layer_graph.wires(graph.outputs):
            self._stays(wire)
        self._numbers = {
            wire: self._classes.roots(numbers)
            for wire, numbers in self._numbers.items()
        }
        self.fixed = np.zeros(len(self._classes), bool)
        for numbers in self._staying:
            self.fixed[self._classes.roots(numbers)] = True

    def of(self, wire):
        """Returns the number of every channel of a tensor, equal by class."""
        return self._numbers[wire]

    def _pass(self, call):
        kind = self.kinds[call]
        if kind == "barrier":
            for wire in call.outputs:
                self._start(wire)
            for wire in (*call.inputs, *call.outputs):
                self._stays(wire)
            return
        out = call.outputs[0]
        if kind != "affine":
            self._numbers[out] = self._handed_on(call, kind)
            return
        self._start(out)
        if call.operation.activation not in kinds.ELEMENTWISE:
            self._stays(out)  # softmax: every unit matters to all

    def _handed_on(self, call, kind):
        given = [self._numbers[wire] for wire in call.inputs]
        if kind == "merge":
            return self._merged(call.inputs)
        if kind == "concatenate":
            return np.concatenate(given)
        times = call.outputs[0].width // call.inputs[0].width
        if kind == "depthwise":
            return np.repeat(given[0], times)
        return np.tile(given[0], times if kind == "flatten" else 1)

    def _start(self, wire):
        self._numbers[wire] = self._classes.fresh(wire.width)

    def _stays(self, wire):
        self._staying.append(self._numbers[wire])

    def _merged(self, wires):
        """Unites what is added; a tensor of one channel goes to all others."""
        width = max(wire.width for wire in wires)
        wide = [self._numbers[wire] for wire in wires if wire.width == width]
        for wire in wires:
            if wire.width < width:
                self._stays(wire)
        for numbers in wide[1:]:
            self._classes.unite(wide[0], numbers)
        return wide[0]


class _Classes:
    """Union-find over numbers from 0."""

    def __init__(self):
        self._parents = []

    def __len__(self):
        return len(self._parents)

    def fresh(self, count):
        first = len(self)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def unite(self, some, others):
        for one, other in zip(some, others, strict=True):
            self._parents[self._root(other)] = self._root(one)

    def roots(self, numbers):
        return np.array([self._root(number) for number in numbers], int)

    def _root(self, number):
        number = int(number)
        while self._parents[number] != number:
            # Halves the way for the next one who asks.
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number
