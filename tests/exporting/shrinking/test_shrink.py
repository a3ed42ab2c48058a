"""Shrinking: what goes and what stays, counted, and that answers stay."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_lottery.exporting import compact
from keras_lottery.exporting.shrinking import rebuild
from keras_lottery.exporting.shrinking.features import TakeFeatures
from keras_lottery.exporting.shrinking.shrink import shrink
from keras_lottery.models import networks
from keras_lottery.pruning import cost

# One input in a list, given as it is: Keras takes it, and says so each time.
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore:The structure of `inputs`"),
]


def fill(model, sparsity=0.0, seed=0):
    """Random weights and statistics; of the kernels the largest stay."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" not in variable.dtype:
            continue
        value = generator.normal(0, 0.3, variable.shape)
        if "variance" in variable.path or "gamma" in variable.path:
            value = generator.uniform(0.5, 1.5, variable.shape)
        elif len(variable.shape) > 1:
            value *= np.sqrt(9 / np.prod(variable.shape[:-1]))
            value[np.abs(value) < np.quantile(np.abs(value), sparsity)] = 0
        variable.assign(value)
    return model


def drawn(model, batch=8, seed=1):
    generator = np.random.default_rng(seed)
    return keras.tree.map_structure(
        lambda t: generator.normal(size=(batch, *t.shape[1:])).astype(t.dtype),
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input,
    )


def shrunk(model, tolerance=1e-5):
    """Shrinks, and compares outputs on inputs that `shrink` has not seen."""
    before = [variable.numpy() for variable in model.variables]
    nodes = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    smaller, report = shrink(model)
    given = drawn(model)
    expected = keras.tree.flatten(model(given, training=False))
    answers = keras.tree.flatten(smaller(given, training=False))
    for one, other in zip(expected, answers, strict=True):
        one, other = (
            np.asarray(keras.ops.cast(x, "float64")) for x in (one, other)
        )
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= tolerance * np.abs(one).max()
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    after = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    assert after == nodes
    return smaller, report


def units(report):
    return {layer.name: layer.units for layer in report.layers}


def zero(layer, outputs=(), inputs=(), bias=True):
    """Empties units of a layer, or what it reads of its inputs."""
    kernel = layer.kernel.numpy()
    kernel[..., list(outputs)] = 0
    kernel[..., list(inputs), :] = 0
    layer.kernel.assign(kernel)
    if bias and layer.use_bias:
        value = layer.bias.numpy()
        value[list(outputs)] = 0
        layer.bias.assign(value)


def needed(model, layer, given):
    """Brute force: which units matter, and do not give one same number.

    Each unit is replaced by noise in turn.
    """
    generator = np.random.default_rng(2)
    expected = model(given).numpy()
    original = layer.call
    values = keras.Model(model.inputs, layer.output)(given).numpy()
    varies = np.ptp(values.reshape(-1, values.shape[-1]), axis=0) > 0
    matters = []
    for unit in range(values.shape[-1]):
        noisy = values.copy()
        noisy[..., unit] = generator.normal(size=noisy[..., unit].shape)
        layer.call = lambda inputs, noisy=noisy: keras.ops.array(noisy)
        matters.append((model(given).numpy() != expected).any())
    layer.call = original
    return np.array(matters) & varies


@pytest.mark.parametrize("seed", range(4))
def test_mlp_keeps_what_brute_force_finds(seed):
    hidden = [layers.Dense(12, "tanh", name=f"fc{i}") for i in range(3)]
    model = keras.Sequential([keras.Input((9,)), *hidden, layers.Dense(2)])
    fill(model, 0.88, seed)
    given = np.random.default_rng(0).normal(size=(5, 9)).astype("float32")
    _, report = shrunk(model)
    for layer in hidden:
        kept = int(needed(model, layer, given).sum())
        assert units(report)[layer.name] == (12, max(kept, 1))


@pytest.mark.parametrize("seed", range(3))
def test_convolutions_keep_what_brute_force_finds(seed):
    inside = [
        layers.Conv2D(8, 2, activation="tanh", name=f"conv{i}")
        for i in range(3)
    ]
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), *inside, layers.Flatten(), layers.Dense(2)]
    )
    fill(model, 0.9, seed)
    zero(model.layers[-1], inputs=[i for i in range(72) if i % 8 in (1, 4)])
    given = np.random.default_rng(0).normal(size=(3, 6, 6, 2))
    _, report = shrunk(model)
    for layer in inside:
        kept = int(needed(model, layer, given.astype("float32")).sum())
        assert units(report)[layer.name] == (8, max(kept, 1))


def test_constants_fold_into_the_bias_by_hand():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, "relu", name="one"),
            layers.Dense(2, name="two", use_bias=False),
        ]
    )
    model.get_layer("one").set_weights(
        [np.array([[1.0, 0, 2], [3, 0, 4]]), np.array([0.5, 7, -1])]
    )
    kernel = np.array([[1.0, 2], [10, 20], [3, 4]])
    model.get_layer("two").set_weights([kernel])
    smaller, report = shrunk(model)
    assert units(report) == {"one": (3, 2), "two": (2, 2)}
    # Unit 1 gives relu(7) whatever comes in.
    kernel, bias = smaller.get_layer("two").get_weights()
    assert bias.tolist() == [70, 140]
    assert kernel.tolist() == [[1, 2], [3, 4]]
    assert report.weights == (9 + 6, 6 + 6)
    assert report.multiply_adds == (12, 8)


def constant_channel(*between, **convolution):
    """A conv whose channel 1 is 0.7 everywhere, and one that reads it."""
    model = fill(
        keras.Sequential(
            [
                keras.Input((5, 5, 2)),
                layers.Conv2D(3, 3, padding="same", name="one"),
                *between,
                layers.Conv2D(4, name="two", **convolution),
            ]
        )
    )
    zero(model.get_layer("one"), [1])
    bias = model.get_layer("one").bias
    bias.assign([0.1, 0.7, -0.2])
    return model


@pytest.mark.parametrize(
    "between, convolution, left",
    [
        ([], {"kernel_size": 3, "padding": "same"}, 3),
        ([], {"kernel_size": 3, "padding": "valid"}, 2),
        ([], {"kernel_size": 1, "padding": "same", "strides": 2}, 2),
        ([layers.ZeroPadding2D(1)], {"kernel_size": 3}, 3),
        ([layers.Cropping2D(1)], {"kernel_size": 3}, 2),
        ([layers.AveragePooling2D(3, 1, "same")], {"kernel_size": 3}, 2),
        ([layers.MaxPooling2D(3, 2, "same")], {"kernel_size": 3}, 2),
        ([layers.UpSampling2D(2)], {"kernel_size": 3}, 2),
        ([layers.DepthwiseConv2D(2)], {"kernel_size": 3}, 2),
        (
            [layers.DepthwiseConv2D(3, padding="same")],
            {"kernel_size": 3},
            3,
        ),
    ],
)
def test_constant_channel_is_folded_only_where_no_border_breaks_it(
    between, convolution, left
):
    # Built anew: layers of the parameters would be shared between tests.
    between = [type(b).from_config(b.get_config()) for b in between]
    _, report = shrunk(constant_channel(*between, **convolution))
    assert units(report)["one"] == (3, left)


@pytest.mark.parametrize("between", [[], [layers.ZeroPadding2D(1)]])
def test_zero_folds_at_any_border(between):
    between = [type(b).from_config(b.get_config()) for b in between]
    model = constant_channel(
        layers.ReLU(), *between, kernel_size=3, padding="same"
    )
    model.get_layer("one").bias.assign([0.1, -0.7, 0.2])
    _, report = shrunk(model)
    assert units(report)["one"] == (3, 2)


def test_constant_into_a_transposed_convolution_stays():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Conv2D(3, 1, name="one"),
            layers.Conv2DTranspose(3, 3, 2, name="two"),
            layers.Conv2D(2, 1, name="three"),
        ]
    )
    zero(fill(model).get_layer("one"), [1], bias=False)
    # Its kernel is [height, width, out, in].
    zero(model.get_layer("three"), inputs=[0])
    _, report = shrunk(model)
    assert units(report) == {"one": (3, 3), "two": (3, 2), "three": (2, 2)}
    model.get_layer("one").bias.assign([0.1, 0, 0.2])
    assert units(shrunk(model)[1])["one"] == (3, 2)


def residual(add=None):
    inputs = keras.Input((6, 6, 2), name="image")
    stream = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    for i in (1, 2):
        x = layers.ReLU(name=f"relu{i}")(stream)
        x = layers.Conv2D(5, 3, padding="same", name=f"inner{i}")(x)
        x = layers.Conv2D(4, 3, padding="same", name=f"block{i}")(x)
        stream = add(stream, x) if add else layers.add([stream, x])
    x = layers.GlobalAveragePooling2D()(stream)
    return fill(keras.Model(inputs, layers.Dense(2, name="head")(x)))


@pytest.mark.parametrize("add", [None, lambda x, y: x + y])
def test_residual_channel_goes_only_if_all_members_are_dead(add):
    model = residual(add)
    readers = [model.get_layer(n) for n in ("inner1", "inner2", "head")]
    for reader in readers[:2]:
        zero(reader, inputs=[2])
    assert units(shrunk(model)[1])["stem"] == (4, 4)
    zero(readers[2], inputs=[2])
    _, report = shrunk(model)
    assert units(report) == {
        **dict.fromkeys(("stem", "block1", "block2"), (4, 3)),
        **dict.fromkeys(("inner1", "inner2"), (5, 5)),
        "head": (2, 2),
    }


def test_residual_channel_goes_if_all_members_are_zero():
    model = residual()
    members = [model.get_layer(n) for n in ("stem", "block1", "block2")]
    for member in members[:2]:
        zero(member, [3])
    assert units(shrunk(model)[1])["stem"] == (4, 4)
    zero(members[2], [3])
    assert units(shrunk(model)[1])["stem"] == (4, 3)
    # A constant that is not 0 could go into the head, not over SAME borders.
    members[2].bias.assign([0, 0, 0, 1])
    assert units(shrunk(model)[1])["stem"] == (4, 4 - 1)
    members[0].bias.assign([0, 0, 0, 1])
    assert units(shrunk(model)[1])["stem"] == (4, 4)


@pytest.mark.parametrize(
    "barrier",
    [
        layers.LayerNormalization(),
        layers.GroupNormalization(2),
        layers.UnitNormalization(),
        layers.Softmax(),
        layers.Activation("softmax"),
        layers.Lambda(lambda x: x * 2, name="double"),
        layers.Conv1D(4, 1, groups=2),
        layers.DepthwiseConv1D(2, activation="softmax"),
        layers.LSTM(3, return_sequences=True),
        layers.MultiHeadAttention(2, 3),
        layers.BatchNormalization(axis=1),
        layers.MaxPooling1D(2, data_format="channels_first"),
    ],
)
def test_shrinking_stops_at_layers_that_look_at_all_channels(barrier):
    inputs = keras.Input((6, 3))
    x = layers.Conv1D(4, 3, name="before", padding="same")(inputs)
    own = barrier
    if not isinstance(barrier, layers.Lambda):
        own = type(barrier).from_config(barrier.get_config())
    attention = isinstance(own, layers.MultiHeadAttention)
    x = own(x, x) if attention else own(x)
    x = layers.Conv1D(5, 1, name="after")(x)
    model = fill(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    zero(model.get_layer("before"), [1])
    zero(model.get_layer("after"), [0])
    _, report = shrunk(model)
    assert units(report)["before"] == (4, 4)
    assert units(report)["after"] == (5, 4)


class Doubled(layers.Dense):
    """A layer of one's own, which Keras's rules do not describe."""

    def call(self, inputs):
        return 2 * super().call(inputs)[..., ::-1]


def test_own_and_shared_layers_stay_whole():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="before")(inputs)
    x = Doubled(4, name="doubled")(shared(shared(x)))
    x = layers.Dense(4, name="after")(x)
    model = fill(keras.Model(inputs, layers.Dense(1, name="head")(x)))
    for name in ("before", "shared", "doubled", "after"):
        zero(model.get_layer(name), [0])
    smaller, report = shrunk(model)
    assert units(report) == {"before": (4, 4), "after": (4, 3), "head": (1, 1)}
    assert type(smaller.get_layer("doubled")) is Doubled
    kept = smaller.get_layer("shared").get_weights()
    for one, other in zip(kept, shared.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def squeezed():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Reshape((1, 1, 6))(gate)
    gate = layers.Dense(3, "relu", name="squeeze")(gate)
    gate = layers.Dense(6, "sigmoid", name="excite")(gate)
    x = layers.Multiply()([x, gate])
    return fill(keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x)))


def test_squeeze_and_excite_shrinks_with_its_channels():
    model = squeezed()
    zero(model.get_layer("head"), inputs=[1, 4])
    zero(model.get_layer("squeeze"), inputs=[1])
    # Channel 4 is still read by the squeeze, and the gate with it.
    _, report = shrunk(model)
    assert units(report)["conv"] == units(report)["excite"] == (6, 5)
    # What is multiplied by zero is zero.
    model = squeezed()
    zero(model.get_layer("conv"), [2])
    _, report = shrunk(model)
    assert units(report)["conv"] == units(report)["excite"] == (6, 5)


def test_gate_of_one_channel_is_no_channel_of_the_others():
    inputs = keras.Input((5,))
    x = layers.Dense(4, name="wide")(inputs)
    gate = layers.Dense(1, name="gate")(inputs)
    x = layers.Dense(2, name="head")(layers.multiply([x, gate]))
    model = fill(keras.Model(inputs, x))
    zero(model.get_layer("head"), inputs=[0])
    assert units(shrunk(model)[1]) == {
        **{"wide": (4, 3), "gate": (1, 1)},
        "head": (2, 2),
    }


def test_concatenation_flatten_and_operations():
    inputs = keras.Input((4, 4, 2))
    left = layers.Conv2D(3, 1, name="left")(inputs)
    right = layers.Conv2D(3, 1, name="right")(inputs)
    x = keras.ops.relu(left * 2.0 + 0.5) - keras.ops.tanh(right)
    x = layers.concatenate([x, right])
    model = keras.Model(
        inputs, layers.Dense(2, name="head")(layers.Flatten()(x))
    )
    fill(model)
    positions = np.arange(16 * 6)
    # 0 of both halves is not read, nor are 4 = right 1 and, at all but one
    # place, 2.
    unread = np.isin(positions % 6, (0, 3, 4)) | (positions % 6 == 2)
    unread[2 + 6 * 7] = False
    zero(model.get_layer("head"), inputs=np.flatnonzero(unread))
    _, report = shrunk(model)
    assert units(report)["left"] == units(report)["right"] == (3, 2)
    assert report.layers[-1].inputs == (96, 64)


def test_prelu_and_normalisation_that_does_not_fold():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(5, 1, name="one", activation="relu")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.PReLU(shared_axes=[1, 2], name="prelu")(x)
    x = layers.DepthwiseConv2D(2, depth_multiplier=2, name="depth")(x)
    model = fill(keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x)))
    norm = model.get_layer("norm")
    gamma = norm.gamma.numpy()
    gamma[0] = 0  # what comes in does not matter: beta
    norm.gamma.assign(gamma)
    zero(model.get_layer("one"), [1], bias=False)
    zero(model.get_layer("head"), inputs=[4, 6, 7])  # half of 2, all of 3
    smaller, report = shrunk(model)
    assert units(report) == {"one": (5, 2), "depth": (10, 4), "head": (2, 2)}
    assert smaller.get_layer("norm").gamma.shape == (2,)
    assert smaller.get_layer("prelu").alpha.shape == (1, 1, 2)
    assert report.folded == ()


def test_half_of_the_filters_cost_a_quarter():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="one"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(16, 3, padding="same", name="two"),
            layers.ReLU(),
            layers.Conv2D(16, 3, padding="same", name="three"),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, name="head"),
        ]
    )
    fill(model)
    # As channels that are switched off come out of the normalisation.
    norm = model.layers[1]
    for variable in (norm.gamma, norm.beta):
        value = variable.numpy()
        value[::2] = 0
        variable.assign(value)
    for name in ("two", "three"):
        zero(model.get_layer(name), range(0, 16, 2))
    smaller, report = shrunk(model)
    half = dict.fromkeys(("one", "two", "three"), (16, 8))
    assert units(report) == {**half, "head": (10, 10)}
    place = 8 * 8 * 9
    assert report.multiply_adds == (
        place * (4 * 16 + 2 * 16 * 16) + 160,
        place * (4 * 8 + 2 * 8 * 8) + 80,
    )
    assert sum(cost.multiply_adds(smaller).values()) == report.multiply_adds[1]
    assert [layer.name for layer in smaller.layers if layer.weights] == [
        *("one", "two", "three"),
        "head",
    ]


def test_no_layer_is_left_without_units():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "relu", name="one"),
            layers.Dense(4, "relu", name="two"),
            layers.Dense(2, name="head"),
        ]
    )
    zero(fill(model).get_layer("two"), range(4))
    _, report = shrunk(model)
    assert units(report) == {"one": (4, 1), "two": (4, 1), "head": (2, 2)}


def wide(units=512, live=20):
    inputs = keras.Input((10, 10, 1), name="image")
    x = layers.Flatten()(inputs)
    x = layers.Dense(units, "relu", name="one")(x)
    model = fill(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    zero(model.get_layer("one"), inputs=range(live, 100))
    return model


def test_dead_pixels_are_not_handed_to_a_wide_layer(tmp_path):
    smaller, report = shrunk(wide())
    assert report.layers[0].inputs == (100, 20)
    taking = smaller.get_layer("one_inputs")
    assert taking.indices == list(range(20))
    smaller.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    given = drawn(smaller)
    np.testing.assert_array_equal(loaded(given), smaller(given))
    again = TakeFeatures.from_config(taking.get_config())
    assert again.compute_output_shape((None, 100)) == (None, 20)


@pytest.mark.parametrize("units_, live", [(16, 20), (512, 95), (512, 100)])
def test_picking_inputs_has_to_pay(units_, live):
    smaller, report = shrunk(wide(units_, live))
    assert report.layers[0].inputs == (100, 100)
    assert not any(isinstance(x, TakeFeatures) for x in smaller.layers)


def test_several_inputs_and_outputs_keep_names_and_structure():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    x = layers.Dense(5, "relu", name="from_a")(a)
    y = layers.Dense(5, "relu", name="from_b")(b)
    total = layers.Add(name="total")([x, y])
    outs = {"left": layers.Dense(2, name="p")(total), "right": y, "same": b}
    model = fill(keras.Model({"b": b, "a": a}, outs))
    zero(model.get_layer("p"), inputs=[0, 1])
    smaller, report = shrunk(model)
    assert units(report) == {"from_a": (5, 5), "from_b": (5, 5), "p": (2, 2)}
    assert [t.name for t in smaller.inputs] == [t.name for t in model.inputs]
    assert smaller.output_names == model.output_names
    assert set(smaller(drawn(model))) == {"left", "right", "same"}
    model = fill(keras.Model([a, b], [layers.Dense(2, name="q")(total), x]))
    assert shrunk(model)[0].output_names == ["q", "from_a"]


def test_nested_models_are_flattened():
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
        ],
        name="inner",
    )
    inputs = keras.Input((6, 6, 2), name="image")
    middle = keras.Model(
        inputs, layers.GlobalAveragePooling2D()(inner(inputs)), name="middle"
    )
    head = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="conv")], name="head"
    )
    x = keras.Input((6, 6, 2), name="photo")
    model = fill(keras.Model(x, head(middle(x, training=False)), name="all"))
    zero(head.get_layer("conv"), inputs=[0])
    smaller, report = shrunk(model)
    assert [layer.units for layer in report.layers] == [(4, 3), (3, 3)]
    assert report.folded == ("norm",)
    assert smaller.name == "all"
    assert smaller.output_names == ["head"]
    assert {"head_conv", "middle_inner_conv"} & {
        layer.name for layer in smaller.layers
    }


def test_a_nested_model_in_training_mode_stays_whole():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), layers.BatchNormalization()]
    )
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="before")(inputs)
    x = layers.Dense(2, name="head")(inner(x, training=True))
    model = fill(keras.Model(inputs, x))
    zero(model.get_layer("before"), [0])
    _, report = shrunk(model)
    assert units(report) == {"before": (4, 4), "head": (2, 2)}
    assert report.folded == ()


def test_sequential_output_is_called_as_exports_call_it():
    model = fill(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    smaller, _ = shrunk(model)
    assert smaller.output_names == ["output_0"]


def test_softmax_over_units_keeps_them():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "softmax", name="one"),
            layers.Dense(2, name="head"),
        ]
    )
    zero(fill(model).get_layer("head"), inputs=[0])
    assert units(shrunk(model)[1])["one"] == (4, 4)


def test_untouched_weights_settings_and_names_are_as_they_were():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "relu", name="one", trainable=False),
            layers.Dense(5, name="two", kernel_regularizer="l2"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(2, name="head"),
        ]
    )
    smaller, report = shrunk(fill(model))
    for layer in model.layers:
        copy = smaller.get_layer(layer.name)
        assert copy.get_config() == layer.get_config()
        assert copy.trainable == layer.trainable
        for one, other in zip(copy.weights, layer.weights, strict=True):
            assert one.trainable == other.trainable
            assert one.numpy().tobytes() == other.numpy().tobytes()
    assert report.weights == (model.count_params(),) * 2
    assert "no layer got smaller" in str(report)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "float64"])
def test_dtypes_stay(policy):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, "relu", name="one", dtype=policy),
            layers.BatchNormalization(dtype=policy, name="norm"),
            layers.Dense(3, name="head", dtype=policy),
        ]
    )
    zero(fill(model).get_layer("one"), [0, 1], bias=False)
    bound = 1e-5 if policy == "float64" else 0.03
    smaller, report = shrunk(model, bound)
    assert units(report)["one"] == (8, 6)
    for name in ("one", "head"):
        assert smaller.get_layer(name).dtype_policy.name == policy
        assert smaller.get_layer(name).kernel.dtype == (
            model.get_layer(name).kernel.dtype
        )


@pytest.mark.parametrize("sparsity", [0.9, 0.99])
@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("lenet", "conv4", "resnet14", "vgg11")
        else pytest.param(name, marks=pytest.mark.thorough)
        for name in networks.NETWORKS
    ],
)
def test_networks_answer_as_before(name, sparsity):
    model = networks.get(name)((32, 32, 3), 10, width=0.25)
    fill(model, sparsity)
    # All classes depend on the image, whatever the pruning has left.
    fill(model.get_layer("output"))
    smaller, report = shrunk(model)
    kinds = [type(layer).__name__ for layer in smaller.layers]
    assert "BatchNormalization" not in kinds
    assert report.weights[1] < report.weights[0]


@pytest.mark.thorough
def test_mobilenet_answers_as_before():
    base = keras.applications.MobileNetV2(
        (96, 96, 3), alpha=0.35, weights=None, include_top=False
    )
    model = keras.Sequential(
        [
            keras.Input((96, 96, 3)),
            base,
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="head"),
        ]
    )
    smaller, report = shrunk(fill(model, 0.8))
    assert len(report.folded) == 52
    assert report.weights[1] < 0.8 * report.weights[0]


def test_words_and_masks():
    words = keras.Input((7,), dtype="int32", name="words")
    x = layers.Embedding(2, 6, mask_zero=True, name="embed")(words)
    x = layers.Dense(5, "relu", name="before")(x)
    x, state, _ = layers.LSTM(4, return_state=True, name="lstm")(x)
    x = layers.Dense(3, name="after")(layers.concatenate([x, state]))
    model = fill(keras.Model(words, layers.Dense(2, name="head")(x)))
    zero(model.get_layer("before"), [0])
    zero(model.get_layer("head"), inputs=[0])
    smaller, report = shrink(model)
    assert units(report)["before"] == (5, 5)
    assert units(report)["after"] == (3, 2)
    given = np.random.default_rng(0).integers(0, 2, (9, 7))
    expected, answer = model(given).numpy(), smaller(given).numpy()
    assert np.abs(expected - answer).max() <= 1e-5 * np.abs(expected).max()
    assert np.ptp(expected, axis=0).min() > 0


def test_adapted_normalisation_is_copied_with_what_it_has_seen():
    normalization = layers.Normalization()
    given = np.random.default_rng(0).normal(3, 2, (50, 4))
    normalization.adapt(given)
    model = keras.Sequential(
        [keras.Input((4,)), normalization, layers.Dense(2, name="head")]
    )
    smaller, _ = shrunk(model)
    np.testing.assert_allclose(smaller(given), model(given), rtol=1e-5)


@pytest.mark.parametrize("make", [wide, residual, squeezed])
def test_compact_export_of_a_smaller_model_answers_as_the_original(
    make, tmp_path
):
    model = make()
    smaller, _ = shrink(model)
    compact.write_compact(smaller, str(tmp_path / "1"))
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    (name,) = [tensor.name for tensor in model.inputs]
    given = drawn(model)
    answer = loaded.signatures["serving_default"](**{name: tf.constant(given)})
    assert list(answer) == model.output_names
    expected = model(given).numpy()
    difference = np.abs(answer[model.output_names[0]].numpy() - expected)
    assert difference.max() <= 1e-5 * np.abs(expected).max()


class Own(keras.Model):
    """A subclassed model."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def test_subclassed_model_is_refused_and_wrapped_stays_whole():
    own = Own()
    own(np.ones((1, 3), "float32"))
    with pytest.raises(ValueError, match=r"Own with code of its own.*Sequent"):
        shrink(own)
    inputs = keras.Input((3,))
    x = layers.Dense(3, name="before")(inputs)
    wrapped = fill(keras.Model(inputs, own(x)))
    zero(wrapped.get_layer("before"), [0])
    zero(own.dense, inputs=[0])
    assert units(shrunk(wrapped)[1]) == {"before": (3, 3)}


def test_what_is_frozen_inside_a_whole_layer_stays_frozen():
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    inputs = keras.Input((5, 4))
    model = fill(keras.Model(inputs, attention(inputs, inputs)))
    attention.query_dense.trainable = False
    smaller, _ = shrunk(model)
    trainable = [v.trainable for v in attention.weights]
    assert trainable.count(False) == 2
    copy = smaller.get_layer("attention")
    assert [v.trainable for v in copy.weights] == trainable


class Forgetful(layers.Layer):
    """Its config does not say what its `__init__` takes."""

    def __init__(self, size):
        super().__init__(name="forgetful")
        self.size = size

    def call(self, inputs):
        return inputs * self.size

    def get_config(self):
        return layers.Layer.get_config(self)


def test_a_layer_that_cannot_be_copied_is_named():
    model = keras.Sequential([keras.Input((3,)), Forgetful(2)])
    with pytest.raises(ValueError, match="'forgetful' .* cannot be copied"):
        shrink(model)


class Ungiven(layers.Layer):
    """Computes with a number that is neither weight nor setting."""

    factor = 1.0

    def call(self, inputs):
        return inputs * self.factor


def test_outputs_that_differ_are_an_error():
    odd = Ungiven()
    odd.factor = 1.001
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2), odd])
    with pytest.raises(ValueError, match="output_0.*differs by 1.0e-03"):
        shrink(model)


def test_report_says_what_went():
    _, report = shrunk(wide(live=20))
    assert str(report).splitlines()[:2] == [
        "one: inputs 100 -> 20, units 512",
        "weights 53,251 -> 12,291",
    ]


def test_names_of_nested_layers_do_not_collide():
    assert rebuild._free("conv", {"conv", "conv_1"}) == "conv_2"
