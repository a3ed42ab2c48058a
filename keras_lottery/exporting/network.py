"""A model as exporters see it: named arrays in, named answers out."""

import re
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import environment
from keras_lottery.exporting import signature
from keras_lottery.pruning import naming

SCOPE = r"[A-Za-z0-9_.\\/>-]*"


class Network(NamedTuple):
    """What a SavedModel is made of.

    Fields:
        weights: Dict from name to array: every variable of the model.
        specs: Dict from name to `tf.TensorSpec`: the inputs, any batch size.
        call: `(values, inputs) -> outputs`, three dicts from name to tensor;
            `values` stand for the weights.
    """

    weights: dict
    specs: dict
    call: Callable


def of(model):
    """Returns the `Network` of a Keras 3 or legacy (tf_keras) model.

    Args:
        model: A built model. What tfmot's wrappers remove is zero in the
            weights of the network.

    Raises:
        ValueError: What the model is called on is not known, or not numbers.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> network = of(model)
    >>> (answer,) = network.call(
    ...     network.weights, {name: np.ones((3, 4)) for name in network.specs}
    ... ).values()
    >>> tuple(answer.shape)
    (3, 2)
    """
    if environment.is_legacy(model):
        from keras_lottery.exporting import legacy

        return legacy.network(model)
    specs, arranged = signature.signature(model)

    def call(values, inputs):
        mapping = [(w.variable, values[w.name]) for w in naming.walk(model)]
        # `stateless_call` does the same, but hands `training` to every `call`,
        # whether it takes one or not.
        with keras.StatelessScope(state_mapping=mapping):
            outputs = model(arranged(inputs), training=False)
        return signature.named_outputs(model, outputs)

    weights = {w.name: w.variable.numpy() for w in naming.walk(model)}
    return Network(weights, specs, call)


def require_weights_only(function, model, own=()):
    """Raises if a traced model reads what is none of its weights.

    Args:
        function: A concrete function.
        model: The model that it calls.
        own: What has a `handle` that it may read.

    Raises:
        ValueError: It reads a table, or a state that it carries along.
    """
    known = {id(each.handle) for each in own}
    for outer, inner in function.graph.captures:
        if outer.dtype == tf.resource and id(outer) not in known:
            raise ValueError(
                f"{model.name!r} holds a table or a state beside its weights "
                f"({inner.name}), and an export holds weights only. Look up "
                "before the model, make recurrent layers `stateful=False`, or "
                "export with format='keras'." + _of_loaded(model)
            )


def _of_loaded(model):
    """Returns what to do about layers that run a SavedModel, or nothing."""
    kinds = [type(layer).__name__ for layer in model._flatten_layers()]
    if "TFSMLayer" not in kinds:
        return ""
    return (
        " A TFSMLayer computes with the variables of the SavedModel that it "
        "has loaded. Build its network in Keras and give it the weights."
    )


def require_stateless(model):
    """Raises if a recurrent layer goes on where the last batch ended.

    Raises:
        ValueError: There is such a layer; a server's requests are separate.
    """
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) is True:
            raise ValueError(
                f"{model.name!r} holds a state beside its weights: "
                f"{layer.name!r} carries one from batch to batch, and the "
                "requests to an export are separate. Build the network with "
                "`stateful=False`, and restore the ticket or set the weights."
            )


def require_scopes(model):
    """Raises unless TensorFlow can make a graph of a Keras 3 model.

    Keras names operations after layers, and leaves its stack of names as it is
    when TensorFlow refuses one.

    Raises:
        ValueError: A name with a character that graphs do not have.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.InputLayer):
            continue  # it does nothing, and is no scope
        first = "[A-Za-z0-9.]" if layer is model else ""
        if not re.fullmatch(first + SCOPE, layer.name):
            raise ValueError(
                "TensorFlow makes no graph of a model or layer called "
                f"{layer.name!r}, to train or predict either: names are of "
                "letters (a to z), digits and _ . - / >, and a model's begins "
                "with a letter or digit. Rename it, or export with "
                "format='keras'."
            )


def first_not_finite(network):
    """Returns the name of a weight with a NaN or an infinity, or None."""
    for name, value in network.weights.items():
        floats = "float" in value.dtype.name
        if floats and not np.isfinite(value.astype(np.float32)).all():
            return name
    return None
