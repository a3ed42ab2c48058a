"""Which channels a model needs: who they are, what is constant, who reads.

Every channel of every tensor has a number. Layers that work channel by channel
hand numbers on; where tensors are added the numbers at the same place become
one class, which lives or goes as a whole (the stream of a residual network).
"""

import numpy as np

from keras_lottery.exporting.shrinking import constants
from keras_lottery.exporting.shrinking import kinds
from keras_lottery.pruning import layer_graph


class Channels:
    """What flows through a graph, and what of it is needed.

    Attributes:
        graph, weights: What it was made of: see `folding.fold`.
        kinds: Dict from `Call` to its kind (see `kinds`).
        constants: Dict from `Wire` to an array: the value of each channel if
            it is one for all inputs and places, else NaN.
    """

    def __init__(self, graph, weights):
        self.graph = graph
        self.weights = weights
        self._reaches = {
            key: constants.reaches(affine) for key, affine in weights.items()
        }
        times = graph.times()
        self.kinds = {
            call: kinds.kind(call, times[id(call.operation)])
            for call in graph.calls
        }
        self.constants = {}
        self._classes = _Classes()
        self._numbers = {}
        self._needed = []
        for wire in layer_graph.wires(graph.inputs):
            self._start(wire)
            self._need(wire)
        for call in graph.calls:
            self._pass(call)
        for wire in layer_graph.wires(graph.outputs):
            self._need(wire)
        self._numbers = {
            wire: self._classes.roots(numbers)
            for wire, numbers in self._numbers.items()
        }
        self._live = np.zeros(len(self._classes), bool)
        self._reach()

    def kept(self, wire):
        """Returns a bool array: which channels of a tensor stay."""
        return self._live[self._numbers[wire]]

    def read(self, call):
        """Returns which channels an affine call reads, and which fold.

        One is read if it reaches a unit that is kept and is not a constant
        that can be moved into the bias.

        Returns:
            Two bool arrays, one entry per channel that comes in.
        """
        folds = constants.foldable(call, self.constants[call.inputs[0]])
        units = self._live[self._numbers[call.outputs[0]]]
        reaches = self._reaches[id(call.operation)]
        return reaches[:, units].any(1) & ~folds, folds

    def _pass(self, call):
        kind = self.kinds[call]
        if kind == "barrier":
            for wire in call.outputs:
                self._start(wire)
            for wire in (*call.inputs, *call.outputs):
                self._need(wire)
            return
        out = call.outputs[0]
        if kind == "affine":
            self._start(out)
            if call.operation.activation not in kinds.ELEMENTWISE:
                self._need(out)  # softmax: every unit matters to all
        else:
            self._numbers[out] = self._handed_on(call, kind)
        given = [self.constants[wire] for wire in call.inputs]
        self.constants[out] = constants.constants(
            call, kind, given, self.weights
        )

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
        self.constants[wire] = np.full(wire.width, np.nan)

    def _need(self, wire):
        self._needed.append(self._numbers[wire])

    def _reach(self):
        """Marks the classes that reach an output, from behind."""
        for numbers in self._needed:
            self._live[self._classes.roots(numbers)] = True
        affine = [c for c in self.graph.calls if self.kinds[c] == "affine"]
        changed = True
        while changed:
            before = np.count_nonzero(self._live)
            for call in reversed(affine):
                numbers = self._numbers[call.inputs[0]]
                self._live[numbers[self.read(call)[0]]] = True
            changed = np.count_nonzero(self._live) > before
            if not changed:
                changed = self._keep_one(affine)

    def _keep_one(self, affine):
        """No layer without units: one that reads the least stays."""
        for call in reversed(affine):
            numbers = self._numbers[call.outputs[0]]
            if not self._live[numbers].any():
                reaches = self._reaches[id(call.operation)]
                least = np.argmin(np.count_nonzero(reaches, axis=0))
                self._live[numbers[least]] = True
                return True
        return False

    def _merged(self, wires):
        """Unites what is added; a tensor of one channel goes to all others."""
        width = max(wire.width for wire in wires)
        wide = [self._numbers[wire] for wire in wires if wire.width == width]
        for wire in wires:
            if wire.width < width:
                self._need(wire)
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
