"""A model as exporters see it: named arrays in, named answers out."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from keras_lottery import environment
from keras_lottery.exporting import signature
from keras_lottery.pruning import naming


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


def first_not_finite(network):
    """Returns the name of a weight with a NaN or an infinity, or None."""
    for name, value in network.weights.items():
        floats = "float" in value.dtype.name
        if floats and not np.isfinite(value.astype(np.float32)).all():
            return name
    return None
