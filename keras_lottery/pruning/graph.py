"""The one reader of layer graphs: which layers run on a sample, on what shapes.

Functional graphs could be read from their configuration, but subclassed models
have none. So the model is traced once, on symbols, and every layer notes down
how it is called. Nothing is computed and no variable changes.
"""

import contextlib
import functools
from typing import NamedTuple

import keras
import tensorflow as tf


class Call(NamedTuple):
    """One call of a layer, on a batch of one."""

    layer: keras.layers.Layer
    inputs: tuple  # the shape of every tensor given, arguments in order
    outputs: tuple  # the shape of every tensor returned
    times: int | None  # how often it runs for one sample; None is unknown


def calls(model):
    """Returns how every layer is called when `model` runs on a batch of one.

    A layer that is shared has several calls, one that is not used has none. A
    layer inside `RNN` or `TimeDistributed` has the call of one time step, with
    the number of steps as its `times`. In a loop or a branch that the model's
    own code makes (`keras.ops.scan`, `tf.cond`) the number is not known; under
    `vectorized_map` it is 1.

    Args:
        model: A built `keras.Model` or layer; it is not changed.

    Returns:
        List of `Call`, the model's own first, then in the order in which they
        begin; or None where the shape of the input is not known (Keras keeps
        one argument's of a subclassed model without a `build` of its own) or
        where the model does not run on one sample (stateful, fixed batch).

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> calls(model)[-1].inputs, calls(model)[-1].outputs
    (((1, 4),), ((1, 2),))
    """
    # The shapes of a subclassed model are known, not its dtypes. Floats come
    # first: `Embedding` takes them too, a lookup of one's own needs integers.
    for dtype in ("float32", "int32"):
        arguments = input_specs(model, dtype)
        if arguments is None:
            return None
        with contextlib.suppress(Exception):  # any code of the user's may run
            return _trace(model, *arguments)
    return None


def input_specs(model, dtype="float32"):
    """Returns what `model` is called on, as specs of a batch of one.

    Args:
        model: A built `keras.Model` or layer.
        dtype: The dtype where the model does not say: subclassed models.

    Returns:
        `(args, kwargs)` of `tf.TensorSpec`, nested like the model's inputs;
        or None if a shape is unknown, or open beyond the batch.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> input_specs(model)[0][0].shape
    TensorShape([1, 4])
    """
    if getattr(model, "inputs", None):  # Functional, or a built Sequential
        single = isinstance(model, keras.Sequential)
        inputs = model.inputs[0] if single else model.input
        specs = keras.tree.map_structure(
            lambda tensor: _spec(tensor.shape, tensor.dtype), inputs
        )
        args, kwargs = [specs], {}
    else:
        args, kwargs = _subclassed_specs(model, dtype)
    flat = keras.tree.flatten((args, kwargs))
    if not flat or any(each is None for each in flat):
        return None
    known = all(each.shape.is_fully_defined() for each in flat)
    return (args, kwargs) if known else None


def _subclassed_specs(model, dtype):
    # Keras keeps the shapes that a subclassed model was built on only here,
    # to write them to a .keras file; the name is private.
    built_on = getattr(model, "_build_shapes_dict", None) or {}
    specs = {
        name.removesuffix("_shape"): _specs(shape, dtype)
        for name, shape in built_on.items()
    }
    # A single shape is that of the first argument, whatever its name.
    return ([], specs) if len(specs) > 1 else ([*specs.values()], {})


class _Node:
    """A call that may still be going on, and the calls made within it."""

    def __init__(self, layer=None, inputs=(), graph=None):
        self.layer = layer
        self.inputs = inputs
        self.outputs = ()
        self.graph = graph
        self.within = []


def _trace(model, args, kwargs):
    root = _Node()
    with _recorded(model, root):
        tf.function(
            lambda args, kwargs: model(*args, training=False, **kwargs),
            autograph=False,  # as in `predict`
        ).get_concrete_function(args, kwargs)
    return [call for node in root.within for call in _flatten(node, 1)]


@contextlib.contextmanager
def _recorded(model, root):
    """Has every layer of `model` note down its calls, under `root`.

    Afterwards every attribute of every layer is what it was, whatever the
    trace has set: no symbol of a dead graph stays in a layer. `_losses` and
    `_loss_ids` are emptied in place by a call, so that spares stand in.
    """
    layers = {id(each): each for each in model._flatten_layers()}.values()
    before = [(layer, dict(vars(layer))) for layer in layers]
    open_calls = [root]
    try:
        for layer in layers:
            call = _recorder(layer, open_calls)
            # Not by setattr: Keras would track what it is given.
            vars(layer).update(call=call, _losses=[], _loss_ids=set())
        yield
    finally:
        for layer, attributes in before:
            vars(layer).clear()
            vars(layer).update(attributes)


def _recorder(layer, open_calls):
    """Returns `layer.call`, noting its calls down in the innermost open one."""
    original = layer.call

    @functools.wraps(original)  # Keras looks at the signature
    def call(*args, **kwargs):
        graph = tf.compat.v1.get_default_graph()
        node = _Node(layer, _shapes([args, *kwargs.values()]), graph)
        open_calls[-1].within.append(node)
        open_calls.append(node)
        try:
            outputs = original(*args, **kwargs)
        finally:
            open_calls.pop()
        node.outputs = _shapes(outputs)
        return outputs

    return call


def _flatten(node, times):
    """Yields the calls of a node: its own, then those within it."""
    yield Call(node.layer, node.inputs, node.outputs, times)
    body = _body(node.layer)
    # Keras traces the body once, twice or at every step, cells of a stack once
    # more for the masks of dropout; the fused kernels of a GPU pass it by. It
    # runs at every step in any case.
    skipped = [] if body is None else body._flatten_layers()
    for child in node.within:
        if not any(child.layer is each for each in skipped):
            inner = _is_inner(child.graph) and child.graph is not node.graph
            yield from _flatten(child, None if inner else times)
    if body is not None:
        traced = [each for each in node.within if each.layer is body]
        step = traced[0] if traced else _untraced(body, node)
        steps = node.inputs[0][1] if node.inputs and node.inputs[0] else None
        known = times is not None and steps is not None
        yield from _flatten(step, times * steps if known else None)


def _body(layer):
    """Returns the layer that `layer` runs at every time step, or None."""
    body = None
    if isinstance(layer, keras.layers.RNN):
        body = layer.cell
    elif isinstance(layer, keras.layers.TimeDistributed):
        body = layer.layer
    # A cell may be any object with a `call`; one that is no layer has no
    # weights that Keras knows.
    return body if isinstance(body, keras.layers.Layer) else None


def _untraced(body, node):
    first = node.inputs[0] if node.inputs else None
    return _Node(body, ((first[0], *first[2:]),) if first else ())


def _is_inner(graph):
    return type(graph).__name__ in ("WhileBodyFuncGraph", "CondBranchFuncGraph")


def _shapes(nested):
    tensors = [
        each for each in keras.tree.flatten(nested) if tf.is_tensor(each)
    ]
    return tuple(
        None if each.shape.rank is None else tuple(each.shape)
        for each in tensors
    )


def _spec(shape, dtype):
    if not shape:
        return None
    return tf.TensorSpec((1, *shape[1:]), dtype)


def _specs(nested, dtype):
    """Returns `nested` with specs in place of shapes."""
    if isinstance(nested, dict):
        return {key: _specs(each, dtype) for key, each in nested.items()}
    if nested is None or all(n is None or isinstance(n, int) for n in nested):
        return _spec(nested, dtype)
    return [_specs(each, dtype) for each in nested]
