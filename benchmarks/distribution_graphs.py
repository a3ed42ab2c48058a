"""The bytes that traced functions send, and which of them ran.

Looks through graphs for operations that communicate. What one worker hands to
them is counted: how often that crosses the wire depends on TensorFlow's
algorithm (in a ring of R workers, 2 (R - 1) / R times).
"""

import contextlib
import functools
from typing import NamedTuple
from unittest import mock

import keras
import tensorflow as tf

from keras_lottery.training import programs
from keras_lottery.training import replicas

SENDING = ("CollectiveReduce", "CollectiveGather", "CollectiveBcastSend")
LOOP = "loop"


class Sent(NamedTuple):
    """Bytes that one worker sends in a function.

    Fields:
        once: Outside of its loop.
        each: In each turn of it.
    """

    once: int
    each: int


def sent(traced):
    """Returns what a traced function sends; of two branches, the one with more.

    Args:
        traced: A `tf.types.experimental.ConcreteFunction`.
    """
    graph = traced.graph.as_graph_def(add_shapes=True)
    library = {each.signature.name: each for each in graph.library.function}
    return _of_nodes(graph.node, library)


def _of_nodes(nodes, library):
    once = each = 0
    producers = {node.name: node for node in nodes}
    for node in nodes:
        called = {
            key: _of_nodes(library[value.func.name].node_def, library)
            for key, value in node.attr.items()
            if value.func.name in library
        }
        if node.op.startswith(SENDING):
            once += _given(node, producers)
        elif "body" in called:
            each += sum(called["body"])
        elif "then_branch" in called:
            once += max(sum(branch) for branch in called.values())
        else:
            once += sum(found.once for found in called.values())
            each += sum(found.each for found in called.values())
    return Sent(once, each)


def _given(node, producers):
    """Returns the bytes of the first input of an operation."""
    given = producers[node.input[0].split(":")[0]]
    if given.op.startswith("Pad"):  # to the same length: workers have that
        given = producers[given.input[0].split(":")[0]]
    shape = tf.TensorShape(given.attr["_output_shapes"].list.shape[0])
    return shape.num_elements() * tf.as_dtype(node.attr["T"].type).size


class Ledger:
    """Notes the functions of the package that run on all workers.

    Attributes:
        entries: List of (name, traced function) in the order of the calls. What
            `note` adds has None for a function.
    """

    def __init__(self):
        self.entries = []

    def note(self, what):
        """Adds an entry that is no function."""
        self.entries.append((what, None))

    @contextlib.contextmanager
    def open(self):
        """Notes what is made and called meanwhile."""
        compiled = self._compiled(replicas.compiled)
        found = {
            (replicas, "compiled"): compiled,
            (replicas, "_compiled_once"): functools.lru_cache(compiled),
            (programs, "graph"): self._program(programs.graph),
            (programs, "stream"): self._program(programs.stream),
        }
        with contextlib.ExitStack() as stack:
            for (module, name), function in found.items():
                stack.enter_context(mock.patch.object(module, name, function))
            yield self

    def loops(self):
        """Returns what each trace of the step loop sends."""
        traced = {id(each): each for name, each in self.entries if name == LOOP}
        return [sent(each) for each in traced.values()]

    def pace(self):
        """Returns what is sent to choose how many steps the next call has."""
        first = self._names().index(LOOP)
        return [sum(sent(self.entries[first + 1][1]))]

    def end_of_level(self):
        """Returns pairs (name, bytes) between level 0 and level 1."""
        names = self._names()
        between = self.entries[names.index("end 0") : names.index("begin 1")]
        return [(name, sum(sent(each))) for name, each in between if each]

    def _names(self):
        return [name for name, _ in self.entries]

    def _program(self, make):
        """Returns a function that makes what another does, noting its calls."""

        def made(*given):
            function = make(*given)

            def called(*arguments):
                traced = function.get_concrete_function(*arguments)
                self.entries.append((LOOP, traced))
                return function(*arguments)

            return called

        return made

    def _compiled(self, make):
        """The same of `replicas.compiled`, with an entry for each call."""

        def made(strategy, each):
            function = make(strategy, each)
            name, traced = each.__qualname__.split(".")[0], {}

            def called(*arguments):
                key = tuple(tuple(given.shape) for given in arguments)
                if key not in traced:
                    # By itself: TensorFlow makes one trace of several shapes.
                    own = make(strategy, each)
                    traced[key] = own.get_concrete_function(*arguments)
                self.entries.append((name, traced[key]))
                return function(*arguments)

            return called

        return made


class Marks(keras.callbacks.Callback):
    """Notes in a ledger where the training of a level begins and ends."""

    def __init__(self, ledger):
        super().__init__()
        self._ledger = ledger

    def on_train_begin(self, logs=None):
        """Notes the level."""
        self._ledger.note(f"begin {self.model.level}")

    def on_train_end(self, logs=None):
        """Notes the level."""
        self._ledger.note(f"end {self.model.level}")
