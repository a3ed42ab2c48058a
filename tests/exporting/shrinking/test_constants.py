"""Constants: what is predicted, compared with what layers do to them."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.exporting.shrinking import constants
from keras_lottery.exporting.shrinking import folding
from keras_lottery.pruning import channel_kinds as kinds
from keras_lottery.pruning import layer_graph

pytestmark = pytest.mark.thorough

VALUES = (-0.7, 0.0, 1.3, np.nan)
PLACES = {1: (7,), 2: (7, 6), 3: (5, 4, 5)}


def of(n, name, *args, **kwargs):
    """A layer of `n` spatial axes."""
    return getattr(layers, f"{name}{n}D")(*args, **kwargs), PLACES[n]


def everywhere(name, *args, **kwargs):
    return [of(n, name, *args, **kwargs) for n in (1, 2, 3)]


PLANE = PLACES[2]
CHANNELWISE = [
    *everywhere("MaxPooling", 2, padding="same"),
    *everywhere("AveragePooling", 3, 2, padding="same"),
    *everywhere("AveragePooling", 2),
    *everywhere("GlobalMaxPooling"),
    *everywhere("GlobalAveragePooling", keepdims=True),
    *everywhere("UpSampling", 2),
    *everywhere("Cropping", 1),
    *everywhere("ZeroPadding", 1),
    *everywhere("SpatialDropout", 0.5),
    of(2, "UpSampling", 2, interpolation="bilinear"),
    *(
        (layer, PLANE)
        for layer in (
            layers.Identity(),
            layers.Dropout(0.5),
            layers.GaussianNoise(1.0),
            layers.GaussianDropout(0.5),
            layers.AlphaDropout(0.5),
            layers.ActivityRegularization(0.1),
            layers.ReLU(max_value=1, threshold=0.1),
            layers.LeakyReLU(),
            layers.ELU(),
            layers.PReLU(),
            layers.PReLU(shared_axes=[1, 2]),
            layers.PReLU(shared_axes=[1, 2, 3]),
            layers.BatchNormalization(),
            layers.BatchNormalization(center=False, scale=False),
            layers.Reshape((6, 7, 4)),
            layers.Flatten(),
            layers.DepthwiseConv2D(3, activation="relu"),
            layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
            layers.DepthwiseConv2D(1, padding="same", use_bias=False),
        )
    ),
    *(
        (layers.Activation(activation), PLANE)
        for activation in sorted(kinds.ELEMENTWISE, key=lambda f: f.__name__)
    ),
]


def randomised(layer):
    generator = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(generator.uniform(0.2, 1.0, variable.shape))


def predicted(call, given):
    times = {id(call.operation): 1}
    kind = kinds.kind(call, times[id(call.operation)])
    weights = {}
    if kind in ("affine", "depthwise"):
        weights[id(call.operation)] = folding._affine(call.operation)
    return kind, constants.constants(call, kind, given, weights)


def filled(values, places, seed):
    """A batch: constants where there are, noise where not."""
    batch = np.random.default_rng(seed).normal(size=(3, *places, len(values)))
    return np.where(np.isnan(values), batch, values).astype("float32")


@pytest.mark.parametrize("layer, places", CHANNELWISE)
def test_constants_are_those_that_come_out(layer, places):
    inputs = keras.Input((*places, len(VALUES)))
    model = keras.Model(inputs, layer(inputs))
    randomised(layer)
    (call,) = layer_graph.read(model).calls
    kind, found = predicted(call, [np.array(VALUES)])
    assert kind != "barrier"
    out = model(filled(VALUES, places, 0), training=False).numpy()
    out = out.reshape(-1, out.shape[-1])
    known = ~np.isnan(found)
    # What is known is so at all places; what varies is not known.
    np.testing.assert_allclose(
        out[:, known],
        np.tile(found[known], (len(out), 1)),
        rtol=1e-5,
        atol=1e-6,
    )
    clear = np.ptp(out, axis=0) > 1e-4
    assert not (known & clear).any()
    if kind in ("same", "pointwise", "normalize", "reshape"):
        assert known.tolist() == [True, True, True, False]


def test_what_a_border_touches_is_known_only_where_it_is_zero():
    inputs = keras.Input((5, 5, len(VALUES)))
    for layer in (
        layers.ZeroPadding2D(1),
        layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        layers.PReLU(),
    ):
        model = keras.Model(inputs, layer(inputs))
        randomised(layer)
        (call,) = layer_graph.read(model).calls
        _, found = predicted(call, [np.array(VALUES)])
        above = isinstance(layer, layers.PReLU)  # only slopes differ by place
        assert np.isnan(found).tolist() == [True, False, not above, True]


@pytest.mark.parametrize(
    "merge",
    [
        *(
            layers.Add(),
            layers.Subtract(),
            layers.Multiply(),
            layers.Average(),
            layers.Maximum(),
            layers.Minimum(),
        ),
        *(lambda x: x[0] + x[1], lambda x: x[0] - x[1], lambda x: x[0] * x[1]),
        *(
            lambda x: x[0] / x[1],
            lambda x: keras.ops.maximum(x[0], x[1]),
            lambda x: keras.ops.minimum(x[0], x[1]),
        ),
    ],
)
def test_merged_constants(merge):
    left, right = np.meshgrid(VALUES, (*VALUES, 2.0))
    left, right = left.reshape(-1), right.reshape(-1)
    inputs = [keras.Input((5, len(left))) for _ in range(2)]
    model = keras.Model(inputs, merge(inputs))
    (call,) = layer_graph.read(model).calls
    kind, found = predicted(call, [left, right])
    assert kind == "merge"
    batch = [filled(left, (5,), 0), filled(right, (5,), 1)]
    out = model(batch).numpy().reshape(-1, len(left))
    known = ~np.isnan(found)
    np.testing.assert_allclose(
        out[:, known], np.tile(found[known], (len(out), 1)), rtol=1e-6
    )
    both = ~np.isnan(left) & ~np.isnan(right) & np.isfinite(out).all(0)
    assert (known >= both).all()
    if call.operation.__class__.__name__ == "Multiply":
        assert (known == (both | (left == 0) | (right == 0))).all()


@pytest.mark.parametrize(
    "operation",
    [
        keras.ops.relu,
        keras.ops.silu,
        keras.ops.gelu,
        keras.ops.abs,
        lambda x: -x,
        lambda x: 2 * x,
        lambda x: x - 0.5,
        lambda x: 1 / (x + 3),
        lambda x: keras.ops.leaky_relu(x, 0.3),
        lambda x: keras.ops.maximum(x, 0.2),
    ],
)
def test_operations_on_one_tensor(operation):
    inputs = keras.Input((5, len(VALUES)))
    model = keras.Model(inputs, operation(inputs))
    given = np.array(VALUES)
    for call in layer_graph.read(model).calls:
        kind, given = predicted(call, [given])
        assert kind == "pointwise"
    out = model(filled(VALUES, (5,), 0)).numpy().reshape(-1, len(VALUES))
    assert np.isnan(given).tolist() == [False, False, False, True]
    np.testing.assert_allclose(out[0, :3], given[:3], rtol=1e-6)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: keras.ops.softmax(x),
        lambda x: keras.ops.mean(x, axis=1),
        lambda x: keras.ops.sum(x, axis=-1, keepdims=True),
        lambda x: x[:, 1:],
        lambda x: x[..., ::-1],
        lambda x: keras.ops.cumsum(x, axis=-1),
        lambda x: x * np.arange(4.0, dtype="float32"),
        lambda x: keras.ops.transpose(x, (0, 2, 1)),
        lambda x: keras.ops.reshape(x, (-1, 20)),
    ],
)
def test_other_operations_are_barriers(operation):
    inputs = keras.Input((5, len(VALUES)))
    model = keras.Model(inputs, operation(inputs))
    found = [kinds.kind(c, 1) for c in layer_graph.read(model).calls]
    assert "barrier" in found
