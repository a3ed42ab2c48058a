"""Shrinking graphs that nobody designed: answers stay, whatever is wired."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.exporting.shrinking.shrink import shrink

pytestmark = pytest.mark.thorough

ACTIVATIONS = (None, "relu", "tanh", "sigmoid", "gelu", "softmax")


def convolved(x, past, generator):
    return layers.Conv2D(
        int(generator.integers(2, 7)),
        int(generator.integers(1, 4)),
        padding="same",
        activation=ACTIVATIONS[generator.integers(6)],
        use_bias=bool(generator.random() < 0.7),
    )(x)


def each_on_its_own(x, past, generator):
    return layers.DepthwiseConv2D(
        int(generator.integers(1, 4)),
        padding="same",
        depth_multiplier=int(generator.integers(1, 3)),
        activation=ACTIVATIONS[generator.integers(5)],
    )(x)


def normalised(x, past, generator):
    return layers.BatchNormalization()(x)


def sloped(x, past, generator):
    shared = [1, 2] if generator.random() < 0.5 else None
    return layers.PReLU(shared_axes=shared)(x)


def operated(x, past, generator):
    return keras.ops.silu(x) * 1.5


def pooled(x, past, generator):
    return layers.AveragePooling2D(3, 1, "same")(x)


def joined(x, past, generator):
    return layers.Concatenate()([x, past[generator.integers(len(past))]])


def merged(x, past, generator):
    fitting = [y for y in past if y.shape[-1] in (1, x.shape[-1])]
    if not fitting:
        return x
    merge = (
        *(layers.Add(), layers.Multiply(), layers.Maximum()),
        lambda pair: pair[0] - pair[1],
    )[generator.integers(4)]
    return merge([x, fitting[generator.integers(len(fitting))]])


def gated(x, past, generator):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return x * layers.Dense(x.shape[-1], "sigmoid")(gate)


STEPS = (
    *(convolved, convolved, convolved, each_on_its_own, normalised, sloped),
    *(operated, pooled, joined, merged, merged, gated),
)
ENDS = (
    lambda x: layers.Conv2D(4, 3)(layers.ZeroPadding2D()(x)),
    lambda x: layers.GlobalMaxPooling2D()(x),
    lambda x: layers.MaxPooling2D(2)(layers.UpSampling2D(2)(x)),
)


def drawn(generator):
    """A graph of some steps, each on the last tensor or an earlier one."""
    past = [keras.Input((7, 7, 3))]
    for _ in range(generator.integers(4, 10)):
        earlier = generator.random() < 0.3
        x = past[generator.integers(len(past)) if earlier else -1]
        past.append(STEPS[generator.integers(len(STEPS))](x, past, generator))
    x = layers.Flatten()(ENDS[generator.integers(len(ENDS))](past[-1]))
    x = layers.Dense(6, "relu")(x)
    return keras.Model(past[0], layers.Dense(2)(x))


def prune(model, generator):
    """Random weights; zeros here and there, and in whole rows and columns."""
    for variable in model.weights:
        shape = variable.shape
        value = generator.normal(0, 0.4, shape)
        if "variance" in variable.path:
            value = generator.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            value *= generator.random(shape) < 0.7
        elif "alpha" not in variable.path:
            value *= np.sqrt(6 / np.prod(shape[:-1]))
            value *= generator.random(shape) < generator.uniform(0.1, 1)
            value *= generator.random(shape[-1]) < 0.7
            value *= generator.random((shape[-2], 1)) < 0.7
        variable.assign(value)


@pytest.mark.parametrize(
    "seed",
    [
        *range(6),
        *(pytest.param(i, marks=pytest.mark.thorough) for i in range(6, 24)),
    ],
)
def test_random_graph_answers_as_before(seed):
    generator = np.random.default_rng(seed)
    model = drawn(generator)
    prune(model, generator)
    smaller, report = shrink(model)
    images = np.random.default_rng(100).normal(size=(4, 7, 7, 3))
    expected, answer = model(images).numpy(), smaller(images).numpy()
    difference = np.abs(expected - answer).max()
    assert difference <= 1e-5 * np.abs(expected).max()
    assert report.weights[1] < report.weights[0]
