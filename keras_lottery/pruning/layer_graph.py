"""The graph of a Functional or Sequential model, nested models flattened.

`graph` knows how often layers run on which shapes, of any model; this knows
which tensor comes from where, so that a model can be built again differently.
"""

import dataclasses
from typing import Any

import keras

# Where Keras runs models from their graph: its own modules, by name.
OF_KERAS = ("keras.src.models.functional", "keras.src.models.sequential")


@dataclasses.dataclass(frozen=True, eq=False)
class Wire:
    """A tensor between two operations; every one is equal to itself only."""

    shape: tuple
    dtype: str

    @property
    def width(self):
        """Length of the last axis; 1 where it is open or is the batch."""
        return (self.shape[-1] or 1) if len(self.shape) > 1 else 1


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A call of a layer, or of an operation such as `+` or `ops.relu`.

    Fields:
        operation: The layer or operation itself, not a copy.
        args, kwargs: What it is called with, `Wire`s for tensors.
        outputs: `Wire`s, flat.
        path: Names of the nested models that the call is in, outermost first.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict
    outputs: tuple
    path: tuple = ()

    @property
    def inputs(self):
        """The `Wire`s among the arguments, in order."""
        return wires((self.args, self.kwargs))


@dataclasses.dataclass(frozen=True)
class Graph:
    """All calls of a model, each after those it needs.

    Fields:
        inputs: Structure of `Wire`s that the model is called on.
        outputs: Structure of `Wire`s that it returns.
        calls: Tuple of `Call`.
    """

    inputs: Any
    outputs: Any
    calls: tuple

    def times(self):
        """Returns dict from `id` of an operation to the number of its calls."""
        times = {}
        for call in self.calls:
            key = id(call.operation)
            times[key] = times.get(key, 0) + 1
        return times


def read(model):
    """Returns the `Graph` of a Functional or Sequential model.

    A nested one is flattened, unless it is called in training mode, with a
    mask, or on another structure than it was made on: then it is one call.

    Args:
        model: A built `keras.Model`; it is not changed.

    Raises:
        ValueError: The model is not built, or has code of its own.

    Example:

    >>> inner = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    >>> model = keras.Sequential([inner, keras.layers.Dense(2, name="last")])
    >>> [type(call.operation).__name__ for call in read(model).calls]
    ['ReLU', 'Dense']
    """
    if not is_flat(model):
        raise ValueError(
            f"{model.name!r} is a {type(model).__name__} with code of its own "
            "(or is not built): which layer feeds which is not known. Make it "
            "of layers, as `keras.Model(inputs, outputs)` or a "
            "`keras.Sequential` with a `keras.Input`. As a layer of such a "
            "model, `keras.Model(inputs, model(inputs))`, it is one part that "
            "stays whole; its `get_config` has to say what `__init__` takes."
        )
    given = keras.tree.map_structure(_wire, _ends(model)[0])
    calls = []
    outputs = _follow(model, given, (), calls)
    return Graph(given, outputs, tuple(calls))


def is_flat(operation):
    """Whether an operation is a built model without a `call` of its own."""
    if not isinstance(operation, keras.Model) or not operation.built:
        return False
    of_keras = type(operation).call.__module__ in OF_KERAS
    return of_keras and bool(operation.inputs)


def is_told(kwargs):
    """Whether keyword arguments say more than `training=False, mask=None`."""
    told = keras.tree.flatten(kwargs)
    return any(value is not None and value is not False for value in told)


def wires(structure):
    """Returns the `Wire`s in a structure, as a tuple."""
    flat = keras.tree.flatten(structure)
    return tuple(each for each in flat if isinstance(each, Wire))


def _ends(model):
    """Returns the structures of a model's inputs and outputs."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def _follow(model, given, path, calls):
    """Appends the calls of a model; returns its outputs.

    The nodes of a Functional model have private names only.
    """
    inputs, outputs = _ends(model)
    found = dict(
        zip(
            map(id, keras.tree.flatten(inputs)),
            keras.tree.flatten(given),
            strict=True,
        )
    )

    def replaced(structure):
        return keras.tree.map_structure(
            lambda each: found[id(each)] if _is_tensor(each) else each,
            structure,
        )

    for node in _nodes(model, inputs, outputs):
        args = replaced(node.arguments.args)
        kwargs = replaced(node.arguments.kwargs)
        operation = node.operation
        if _can_flatten(operation, args, kwargs):
            below = (*path, operation.name)
            result = _follow(operation, args[0], below, calls)
            result = keras.tree.flatten(result)
        else:
            result = tuple(_wire(tensor) for tensor in node.outputs)
            calls.append(Call(operation, tuple(args), kwargs, result, path))
        found.update(zip(map(id, node.outputs), result, strict=True))
    return replaced(outputs)


def _nodes(model, inputs, outputs):
    if isinstance(model, keras.Sequential):
        # With a name: Keras counts models that have none.
        model = keras.Model(inputs, outputs, name=model.name)
    by_depth = model._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if not node.is_input)


def _can_flatten(operation, args, kwargs):
    if is_told(kwargs) or len(args) != 1 or not is_flat(operation):
        return False
    made_on, _ = _ends(operation)
    return _ranks(made_on) == _ranks(args[0])


def _ranks(structure):
    if isinstance(structure, dict):
        return {key: _ranks(each) for key, each in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [_ranks(each) for each in structure]
    return len(structure.shape)


def _wire(tensor):
    return Wire(
        tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype)
    )


def _is_tensor(each):
    return isinstance(each, keras.KerasTensor)
