"""Folding: which normalisations go, and that nothing else changes."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.exporting.shrinking import folding
from keras_lottery.exporting.shrinking.shrink import shrink
from keras_lottery.pruning import layer_graph


def filled(model, seed=0):
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        value = generator.normal(0, 0.5, variable.shape)
        if "variance" in variable.path:
            value = generator.uniform(0.5, 1.5, variable.shape)
        elif "kernel" in variable.path:
            value[generator.random(variable.shape) < 0.5] = 0
        variable.assign(value)
    return model


def followed(layer, shape, **arguments):
    """A layer, its normalisation, and something that needs all channels."""
    inputs = keras.Input(shape)
    x = layers.BatchNormalization(name="norm", **arguments)(layer(inputs))
    return filled(keras.Model(inputs, layers.Activation("softmax")(x)))


FOLDING = [
    (layers.Dense(4, name="layer"), (3,)),
    (layers.Dense(4, name="layer", use_bias=False), (5, 3)),
    (layers.Conv1D(4, 3, padding="causal", name="layer"), (6, 3)),
    (layers.Conv2D(4, 3, 2, "same", name="layer"), (6, 6, 3)),
    (layers.Conv3D(4, 2, use_bias=False, name="layer"), (3, 3, 3, 2)),
    (layers.DepthwiseConv1D(3, name="layer"), (6, 3)),
    (
        layers.DepthwiseConv2D(
            3, padding="same", depth_multiplier=2, name="layer", use_bias=False
        ),
        (6, 6, 3),
    ),
    (layers.Conv1DTranspose(4, 3, 2, name="layer"), (6, 3)),
    (layers.Conv2DTranspose(4, 3, 2, "same", name="layer"), (6, 6, 3)),
    (layers.Conv3DTranspose(4, 2, name="layer", use_bias=False), (3, 3, 3, 2)),
]


@pytest.mark.parametrize("layer, shape", FOLDING)
@pytest.mark.parametrize("center, scale", [(True, True), (False, False)])
def test_normalisation_folds_and_zeros_stay_zeros(layer, shape, center, scale):
    layer = type(layer).from_config(layer.get_config())
    model = followed(layer, shape, center=center, scale=scale)
    smaller, report = shrink(model)
    assert report.folded == ("norm",)
    given = np.random.default_rng(1).normal(size=(4, *shape))
    expected, answer = model(given).numpy(), smaller(given).numpy()
    assert np.abs(expected - answer).max() <= 1e-6
    before = model.get_layer("layer").kernel.numpy()
    after = smaller.get_layer("layer").kernel.numpy()
    np.testing.assert_array_equal(before == 0, after == 0)
    assert not np.signbit(after[after == 0]).any()


def test_by_hand():
    model = keras.Sequential(
        [
            keras.Input((1,)),
            layers.Dense(1, name="layer"),
            layers.BatchNormalization(epsilon=1.0),
            layers.Activation("tanh"),
        ]
    )
    model.layers[0].set_weights([np.array([[3.0]]), np.array([5.0])])
    # gamma, beta, mean, variance: 2 (x - 4) / sqrt(3 + 1) + 7
    model.layers[1].set_weights([np.array([v]) for v in (2.0, 7.0, 4.0, 3.0)])
    kernel, bias = shrink(model)[0].get_layer("layer").get_weights()
    assert kernel.tolist() == [[3.0]]
    assert bias.tolist() == [5 - 4 + 7]


def test_normalisations_in_a_row_fold_into_one_layer():
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="layer")(inputs)
    x = layers.BatchNormalization(name="first")(x)
    x = layers.BatchNormalization(name="second")(x)
    model = filled(keras.Model(inputs, layers.Activation("softmax")(x)))
    assert shrink(model)[1].folded == ("first", "second")


def two_readers(x):
    return layers.add([layers.BatchNormalization()(x), x])


def is_output(x):
    return layers.BatchNormalization()(x)


def is_output_too(x):
    x = layers.BatchNormalization()(x)
    return [x, layers.ReLU()(x)]


def layer_is_output(x):
    return [x, layers.ReLU()(layers.BatchNormalization()(x))]


def other_axis(x):
    return layers.ReLU()(layers.BatchNormalization(axis=1)(x))


def shared_norm(x):
    norm = layers.BatchNormalization()
    return layers.ReLU()(norm(norm(x)))


def training(x):
    return layers.ReLU()(layers.BatchNormalization()(x, training=True))


def another_layer_between(x):
    return layers.ReLU()(layers.BatchNormalization()(layers.ReLU()(x)))


@pytest.mark.parametrize(
    "tail",
    [
        two_readers,
        is_output,
        is_output_too,
        layer_is_output,
        other_axis,
        shared_norm,
        training,
        another_layer_between,
    ],
)
def test_normalisation_stays_where_folding_would_change_something(tail):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="layer")(inputs)
    model = filled(keras.Model(inputs, tail(x)))
    graph, _, folded = folding.fold(layer_graph.read(model))
    assert folded == ()
    assert len(graph.calls) == len(layer_graph.read(model).calls)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, activation="relu"),
        layers.Conv2D(6, 3, groups=3),
        layers.Conv2D(4, 3, dtype="mixed_float16"),
        layers.SeparableConv2D(4, 3),
    ],
)
def test_normalisation_stays_behind_other_layers(layer):
    layer = type(layer).from_config(layer.get_config())
    model = followed(layer, (6, 6, 3))
    _, _, folded = folding.fold(layer_graph.read(model))
    assert folded == ()


def test_a_layer_called_twice_keeps_its_normalisation():
    inputs = keras.Input((3,))
    shared = layers.Dense(3)
    x = layers.BatchNormalization()(shared(shared(inputs)))
    model = filled(keras.Model(inputs, layers.ReLU()(x)))
    assert shrink(model)[1].folded == ()
