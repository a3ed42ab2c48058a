"""SavedModels read as files: parsed, and nothing of them loaded or run."""

import os
from typing import NamedTuple

import google.protobuf.message
from tensorflow.core.protobuf import saved_model_pb2

from keras_lottery.errors import TicketError

SERVING = "serving_default"
TAG = "serve"
# Protobuf's own limit: no parser reads more.
MOST_BYTES = 2**31


class Tensor(NamedTuple):
    """An input or output of a signature."""

    place: str
    dtype: int
    shape: tuple | None


class Signature(NamedTuple):
    """What a SavedModel is asked, and where in its graph.

    Fields:
        inputs: Dict from name to `Tensor`; shapes hold None where free.
        outputs: Dict from name to `Tensor`.
    """

    inputs: dict
    outputs: dict

    @property
    def feeds(self):
        """Dict from input to its place in the graph."""
        return {name: each.place for name, each in self.inputs.items()}

    @property
    def fetches(self):
        """Dict from output to its place in the graph."""
        return {name: each.place for name, each in self.outputs.items()}


def read(path):
    """Returns the `SavedModel` proto of a directory.

    Raises:
        TicketError: It is missing, too large, or no SavedModel.
    """
    file_path = os.path.join(os.fspath(path), "saved_model.pb")
    try:
        size = os.path.getsize(file_path)
        if size >= MOST_BYTES:
            raise TicketError(
                f"{file_path} has {size:,} bytes, and a SavedModel has fewer "
                f"than {MOST_BYTES:,}."
            )
        with open(file_path, "rb") as file:
            saved = saved_model_pb2.SavedModel.FromString(file.read())
    except OSError as error:
        raise TicketError(
            f"{file_path} cannot be read ({error.strerror}): expected the "
            "directory of a SavedModel."
        ) from error
    except google.protobuf.message.DecodeError as error:
        raise TicketError(
            f"{file_path} is damaged: it is no SavedModel. Export it again."
        ) from error
    if not saved.meta_graphs:
        raise TicketError(f"{file_path} is damaged: it holds no graph.")
    return saved


def served_graph(saved):
    """Returns the meta graph that servers load.

    Raises:
        TicketError: There is none, or several.
    """
    tags = [set(each.meta_info_def.tags) for each in saved.meta_graphs]
    if tags.count({TAG}) != 1:
        found = " and ".join(str(sorted(each)) for each in tags)
        raise TicketError(
            f"Its graphs are tagged {found}: expected one with {[TAG]}, which "
            "is what servers load."
        )
    return saved.meta_graphs[tags.index({TAG})]


def signature(path, name=SERVING):
    """Returns a `Signature` of a SavedModel.

    Raises:
        TicketError: It cannot be read, or has no such signature.
    """
    return signature_of(served_graph(read(path)), name)


def signature_of(meta_graph, name=SERVING):
    """Returns a `Signature` of a meta graph; see `signature`."""
    found = meta_graph.signature_def
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise TicketError(f"It has no signature {name!r}, but {known}.")
    return Signature(
        {k: _tensor(v) for k, v in sorted(found[name].inputs.items())},
        {k: _tensor(v) for k, v in sorted(found[name].outputs.items())},
    )


def _tensor(info):
    shape = None
    if not info.tensor_shape.unknown_rank:
        sizes = [dimension.size for dimension in info.tensor_shape.dim]
        shape = tuple(None if size < 0 else size for size in sizes)
    return Tensor(info.name, info.dtype, shape)


def places(info):
    """Yields the places in the graph of a `TensorInfo` proto."""
    if info.WhichOneof("encoding") == "coo_sparse":
        sparse = info.coo_sparse
        yield from (
            sparse.values_tensor_name,
            sparse.indices_tensor_name,
            sparse.dense_shape_tensor_name,
        )
    elif info.WhichOneof("encoding") == "composite_tensor":
        for component in info.composite_tensor.components:
            yield from places(component)
    else:
        yield info.name


class Graph:
    """A graph and the functions of its library, by name.

    Args:
        graph_def: A `GraphDef` proto.
    """

    def __init__(self, graph_def):
        self._nodes = {node.name: node for node in graph_def.node}
        self.functions = {
            function.signature.name: function
            for function in graph_def.library.function
        }

    def everything(self):
        """Yields (name, node) of all nodes, `function/node` in functions."""
        yield from self._nodes.items()
        for name in self.functions:
            yield from self._of_function(name)

    def reached(self, roots, functions=()):
        """Yields (name, node) of all that runs when something is fetched.

        Args:
            roots: Places in the graph; those that are not there are left out.
            functions: Names of functions that are called besides.
        """
        seen, waiting = set(), [_node_name(place) for place in roots]
        called = set(functions)
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self._nodes:
                continue
            seen.add(name)
            node = self._nodes[name]
            yield name, node
            waiting.extend(_node_name(place) for place in node.input)
            called.update(_calls(node))
        yield from self._within(called)

    def _within(self, called):
        """Yields the nodes of functions and of all that these call."""
        seen, waiting = set(), list(called)
        while waiting:
            function = waiting.pop()
            if function in seen or function not in self.functions:
                continue
            seen.add(function)
            for name, node in self._of_function(function):
                yield name, node
                waiting.extend(_calls(node))

    def _of_function(self, name):
        for node in self.functions[name].node_def:
            yield f"{name}/{node.name}", node


def _node_name(place):
    return place.removeprefix("^").partition(":")[0]


def _calls(node):
    """Yields the names of functions that a node may call."""
    yield node.op
    for value in node.attr.values():
        yield from _functions_in(value)


def _functions_in(value):
    for each in [value.func, *value.list.func]:
        if each.name:
            yield each.name
            for inner in each.attr.values():
                yield from _functions_in(inner)
