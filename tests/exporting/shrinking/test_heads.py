"""Attention loses the heads that reach no output, exactly."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.exporting.shrinking.shrink import shrink
from keras_lottery.pruning import weights
from keras_lottery.pruning.find import find_mask

pytestmark = pytest.mark.thorough


def model_of(attention, **called):
    inputs = keras.Input((6, 10))
    x = layers.LayerNormalization()(inputs)
    x = attention(x, x, **called)
    x = x[0] if isinstance(x, (list, tuple)) else x
    outputs = layers.Dense(3, name="out")(layers.Add()([inputs, x]))
    model = keras.Model(inputs, outputs)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(generator.normal(0, 0.4, variable.shape))
    return model


def empty(attention, heads):
    kernel = attention._output_dense.kernel
    value = kernel.numpy()
    value[list(heads)] = 0
    kernel.assign(value)


def multi(**more):
    return layers.MultiHeadAttention(5, 3, name="attention", **more)


def grouped(**more):
    return layers.GroupQueryAttention(3, 6, 3, name="attention", **more)


def compared(model):
    smaller, report = shrink(model)
    given = np.random.default_rng(1).normal(size=(4, 6, 10)).astype("float32")
    expected, answer = model(given).numpy(), smaller(given).numpy()
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
    found = {layer.name: layer for layer in report.layers}["attention"]
    assert found.inputs == (10, 10)
    return smaller.get_layer("attention"), found


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_bias": False, "value_dim": 2},
        {"use_gate": True, "dropout": 0.3},
    ],
    ids=str,
)
def test_heads_that_reach_nothing_go(more):
    attention = multi(**more)
    model = model_of(attention)
    empty(attention, [0, 3])
    smaller, found = compared(model)
    assert found.units == (5, 3)
    assert str(found) == "attention: inputs 10, heads 5 -> 3"
    kernel = attention._key_dense.kernel.numpy()
    np.testing.assert_array_equal(
        smaller._key_dense.kernel.numpy(), kernel[:, [1, 2, 4]]
    )
    assert smaller.num_heads == 3


def test_query_heads_go_with_the_key_they_share():
    attention = grouped()
    model = model_of(attention, use_causal_mask=True)
    empty(attention, [1, 2, 3])  # the first pair keeps a head
    smaller, found = compared(model)
    assert found.units == (6, 4)
    assert smaller.num_query_heads == 4 and smaller.num_key_value_heads == 2


def test_one_head_stays():
    attention = multi()
    model = model_of(attention)
    empty(attention, range(5))
    smaller, found = compared(model)
    assert found.units == (5, 1)


def test_heads_that_somebody_sees_stay():
    attention = multi()
    model = model_of(attention, return_attention_scores=True)
    empty(attention, [0, 3])
    assert compared(model)[1].units == (5, 5)
    attention = multi()
    seen = np.ones((4, 5, 6, 6), bool)  # a mask for every head
    model = model_of(attention, attention_mask=seen)
    empty(attention, [0, 3])
    assert compared(model)[1].units == (5, 5)


def test_a_shared_layer_keeps_its_heads():
    attention = multi()
    inputs = keras.Input((6, 10))
    x = attention(attention(inputs, inputs), inputs)
    model = keras.Model(inputs, x)
    empty(attention, [1])
    assert compared(model)[1].units == (5, 5)


@pytest.mark.parametrize("make", [multi, grouped])
def test_heads_pruned_by_name_are_the_heads_left_out(make):
    model = model_of(make())
    mask = find_mask(model, 0.4, allocation="heads", layers=["attention"])
    for name, variable in weights.by_name(model).items():
        if name in mask:
            variable.assign(variable.numpy() * mask[name])
    smaller, found = compared(model)
    left = [v for v in smaller.weights if v.path.endswith("kernel")]
    assert sum(int(np.prod(v.shape)) for v in left) == mask.kept
    assert found.units[1] < found.units[0]
