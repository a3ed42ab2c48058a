"""Multiply-adds against TensorFlow's profiler and numbers made by hand."""

import keras
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.framework import convert_to_constants

from keras_lottery.pruning import cost
from keras_lottery.pruning import weights


def profiled(model):
    """Returns a dict from op type to multiply-adds, by TensorFlow itself."""
    spec = tf.TensorSpec((1, *model.input_shape[1:]))
    function = tf.function(lambda x: model(x)).get_concrete_function(spec)
    frozen = convert_to_constants.convert_variables_to_constants_v2(function)
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    node = tf.compat.v1.profiler.profile(
        frozen.graph, cmd="op", options=options
    )
    counts = {}
    while node.children:  # every op type is the child of the one before
        (node,) = node.children
        counts[node.name] = node.float_ops // 2
    return counts


def counted(model):
    """Returns a dict from op type to multiply-adds, by our rules."""
    kinds = {
        layers.DepthwiseConv1D: "DepthwiseConv2dNative",
        layers.DepthwiseConv2D: "DepthwiseConv2dNative",
        layers.Conv3D: "Conv3D",
        layers.Dense: "MatMul",
    }
    counts, adds = {}, cost.multiply_adds(model)
    for weight in weights.walk(model):
        if weight.name in adds:
            kind = kinds.get(type(weight.layer), "Conv2D")
            if weight.name.endswith("depthwise_kernel"):
                kind = "DepthwiseConv2dNative"
            counts[kind] = counts.get(kind, 0) + adds[weight.name]
    return counts


def images():
    return keras.Sequential(
        [
            keras.Input((16, 16, 4)),
            layers.Conv2D(8, 3, strides=2, padding="same"),
            layers.Conv2D(6, (3, 1), dilation_rate=2),
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
            layers.SeparableConv2D(8, 3, strides=2, depth_multiplier=2),
            layers.Flatten(),
            layers.Dense(10, activation="relu"),
            layers.Dense(3),
        ]
    )


def sequences():
    return keras.Sequential(
        [
            keras.Input((20, 4)),
            layers.Conv1D(6, 3, padding="causal"),
            layers.DepthwiseConv1D(2, strides=2),
            layers.SeparableConv1D(5, 3),
            layers.Conv1D(6, 3, padding="same", strides=2),
        ]
    )


def volumes():
    return keras.Sequential(
        [
            keras.Input((6, 7, 8, 3)),
            layers.Conv3D(4, (1, 2, 3), padding="same"),
            layers.Conv3D(2, 3, strides=2),
        ]
    )


def mobile_net():
    return keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=4
    )


@pytest.mark.parametrize("make", [images, sequences, volumes, mobile_net])
def test_equals_the_profiler_of_tensorflow(make):
    model = make()
    ours, theirs = counted(model), profiled(model)
    assert ours == {kind: theirs[kind] for kind in ours}
    uncounted = {
        "BiasAdd",
        "Mul",
        "AddV2",
        "Add",
        "Sub",
        "Mean",
        "Rsqrt",
        "Softmax",
    }
    assert theirs.keys() - ours.keys() <= uncounted


def lenet():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(300, activation="tanh"),
            layers.Dense(100, activation="tanh"),
            layers.Dense(10),
        ]
    )


def test_lenet_300_100():
    adds = cost.multiply_adds(lenet())
    assert list(adds.values()) == [784 * 300, 300 * 100, 100 * 10]
    assert sum(adds.values()) == 266_200


def of(layer, *shape):
    """Returns the multiply-adds of one layer on inputs of one shape."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    return list(cost.multiply_adds(model).values())


@pytest.mark.parametrize(
    ("equation", "output_shape", "bias_axes", "expected"),
    [
        ("ab,bc->ac", 5, "c", 4 * 5),
        ("...x,xy->...y", 5, None, 6 * 7 * 4 * 5),
        ("ab...,bc->ac...", (5, 7, 4), None, 6 * 5 * 7 * 4),
        ("abcd,cde->abe", (6, 5), None, 6 * 7 * 4 * 5),
        ("abcd,de->ae", 5, None, 6 * 7 * 4 * 5),
    ],
)
def test_einsum_dense(equation, output_shape, bias_axes, expected):
    layer = layers.EinsumDense(equation, output_shape, bias_axes=bias_axes)
    shape = (4,) if equation == "ab,bc->ac" else (6, 7, 4)
    assert of(layer, *shape) == [expected]


def test_transposed_convolutions_multiply_at_every_input():
    assert of(layers.Conv1DTranspose(5, 3, strides=2), 8, 4) == [8 * 3 * 5 * 4]
    same = layers.Conv2DTranspose(5, 3, strides=2, padding="same")
    assert of(same, 8, 7, 4) == [8 * 7 * 3 * 3 * 5 * 4]
    assert of(layers.Conv3DTranspose(5, 2), 3, 4, 5, 6) == [60 * 8 * 5 * 6]


def test_groups_and_channels_first():
    # TensorFlow compiles grouped convolutions: its profiler sees none.
    grouped = layers.Conv2D(6, 3, groups=2)
    assert of(grouped, 8, 9, 4) == [6 * 7 * 9 * 2 * 6]
    layer = layers.Conv2D(5, 3, data_format="channels_first")
    model = keras.Sequential([layer])
    model.build((None, 4, 8, 9))
    assert list(cost.multiply_adds(model).values()) == [6 * 7 * 9 * 4 * 5]


@pytest.mark.parametrize(
    ("layer", "gates"),
    [(layers.SimpleRNN, 1), (layers.GRU, 3), (layers.LSTM, 4)],
)
def test_recurrent_layers(layer, gates):
    step = [3 * 5 * gates, 5 * 5 * gates]
    assert of(layer(5), 7, 3) == [7 * each for each in step]
    both = layers.Bidirectional(layer(5))
    assert of(both, 7, 3) == [7 * each for each in step * 2]


def test_convolutional_recurrent_layer():
    expected = [6 * 8 * 3 * 2 * 4 * 5, 6 * 8 * 3 * 5 * 4 * 5]
    assert of(layers.ConvLSTM1D(5, 3, padding="same"), 6, 8, 2) == expected


def test_time_distributed():
    layer = layers.TimeDistributed(layers.Dense(5))
    assert of(layer, 7, 3) == [7 * 3 * 5]


def test_multi_head_attention():
    attention = layers.MultiHeadAttention(2, 8, value_dim=4)
    query, value = keras.Input((6, 16)), keras.Input((10, 12))
    model = keras.Model([query, value], attention(query, value))
    adds = cost.multiply_adds(model)
    assert {name.split("/")[1]: adds[name] for name in adds} == {
        "query": 6 * 16 * 2 * 8,
        "key": 10 * 12 * 2 * 8,
        "value": 10 * 12 * 2 * 4,
        "attention_output": 6 * 2 * 4 * 16,
    }


def test_embedding_multiplies_nothing_and_a_shared_layer_at_every_call():
    shared = layers.Dense(4)
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(50, 4)(inputs)
    model = keras.Model(inputs, shared(shared(x))[:, 0] + shared(x[:, 0]))
    assert cost.multiply_adds(model) == {
        "embedding/embeddings": 0,
        "dense/kernel": (6 + 6 + 1) * 16,
    }


class Reversed(layers.Embedding):
    """From vectors to logits, as `ReversibleEmbedding` can."""

    def call(self, inputs):
        return keras.ops.matmul(inputs, keras.ops.transpose(self.embeddings))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.input_dim)


def test_a_reversed_embedding_is_unknown():
    assert of(Reversed(9, 4), 6, 4) == [None]


class Custom(layers.Layer):
    """A product with a matrix, or something else of a matrix."""

    def __init__(self, shape, run, name="matrix"):
        super().__init__()
        self.matrix = self.add_weight(shape=shape, name=name)
        self.run = run

    def call(self, x):
        return self.run(x, self.matrix)


def test_custom_layers_are_dense_where_the_matrix_fits():
    assert of(Custom((3, 5), keras.ops.matmul), 7, 3) == [7 * 15]
    assert of(Custom((7, 3), keras.ops.add), 7, 3) == [None]
    assert of(Custom((2, 3, 4), lambda x, w: x), 7, 3) == [None]
    normalization = layers.LayerNormalization(axis=(1, 2))
    assert of(normalization, 7, 3) == [None, None]


def test_unknown_shapes_and_frozen_weights():
    model = keras.Sequential([keras.Input((None, 3)), layers.LSTM(2)])
    adds = cost.multiply_adds(model)
    assert list(adds.values()) == [None, None]
    dense = layers.Dense(5, trainable=False)
    assert of(dense, 3) == [15]
