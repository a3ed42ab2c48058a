"""Which channels a model needs: what is constant, and who reads whom."""

import numpy as np

from keras_lottery.exporting.shrinking import constants
from keras_lottery.pruning import channel_numbers
from keras_lottery.pruning import layer_graph


class Channels:
    """What flows through a graph, and what of it is needed.

    Attributes:
        graph, weights: What it was made of: see `folding.fold`.
        kinds: Dict from `Call` to its kind (see `channel_kinds`).
        constants: Dict from `Wire` to an array: the value of each channel if
            it is one for all inputs and places, else NaN.
    """

    def __init__(self, graph, weights):
        self.graph = graph
        self.weights = weights
        self._reaches = {
            key: constants.reaches(affine) for key, affine in weights.items()
        }
        self._numbers = channel_numbers.Numbers(graph)
        self.kinds = self._numbers.kinds
        self.constants = {}
        for wire in layer_graph.wires(graph.inputs):
            self.constants[wire] = np.full(wire.width, np.nan)
        for call in graph.calls:
            self._pass(call)
        self._live = self._numbers.fixed.copy()
        self._reach()

    def kept(self, wire):
        """Returns a bool array: which channels of a tensor stay."""
        return self._live[self._numbers.of(wire)]

    def read(self, call):
        """Returns which channels an affine call reads, and which fold.

        One is read if it reaches a unit that is kept and is not a constant
        that can be moved into the bias.

        Returns:
            Two bool arrays, one entry per channel that comes in.
        """
        folds = constants.foldable(call, self.constants[call.inputs[0]])
        units = self.kept(call.outputs[0])
        reaches = self._reaches[id(call.operation)]
        return reaches[:, units].any(1) & ~folds, folds

    def _pass(self, call):
        kind = self.kinds[call]
        if kind == "barrier":
            for wire in call.outputs:
                self.constants[wire] = np.full(wire.width, np.nan)
            return
        given = [self.constants[wire] for wire in call.inputs]
        self.constants[call.outputs[0]] = constants.constants(
            call, kind, given, self.weights
        )

    def _reach(self):
        """Marks the classes that reach an output, from behind."""
        affine = [c for c in self.graph.calls if self.kinds[c] == "affine"]
        changed = True
        while changed:
            before = np.count_nonzero(self._live)
            for call in reversed(affine):
                numbers = self._numbers.of(call.inputs[0])
                self._live[numbers[self.read(call)[0]]] = True
            changed = np.count_nonzero(self._live) > before
            if not changed:
                changed = self._keep_one(affine)

    def _keep_one(self, affine):
        """No layer without units: one that reads the least stays."""
        for call in reversed(affine):
            numbers = self._numbers.of(call.outputs[0])
            if not self._live[numbers].any():
                reaches = self._reaches[id(call.operation)]
                least = np.argmin(np.count_nonzero(reaches, axis=0))
                self._live[numbers[least]] = True
                return True
        return False
