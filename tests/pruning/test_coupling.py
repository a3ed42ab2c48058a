"""Units and numbers of channels, on graphs small enough to see."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

import keras_lottery as lottery
from keras_lottery.pruning import channel_numbers
from keras_lottery.pruning import coupling
from keras_lottery.pruning import layer_graph


def units_of(outputs, inputs):
    return coupling.channels(keras.Model(inputs, outputs))


def dense(units, name, activation=None):
    return layers.Dense(units, activation, name=name)


def test_numbers_of_added_tensors_are_one():
    inputs = keras.Input((4,))
    one, two = dense(3, "one")(inputs), dense(3, "two")(inputs)
    outputs = dense(2, "out")(layers.Concatenate()([one + two, two]))
    graph = layer_graph.read(keras.Model(inputs, outputs))
    numbers = channel_numbers.Numbers(graph)
    calls = {call.operation.name: call for call in graph.calls}
    first = numbers.of(calls["one"].outputs[0])
    assert len(set(first.tolist())) == 3
    np.testing.assert_array_equal(first, numbers.of(calls["two"].outputs[0]))
    joined = numbers.of(calls["out"].inputs[0])
    np.testing.assert_array_equal(joined, np.tile(first, 2))
    assert not numbers.fixed[first].any()
    assert numbers.fixed[numbers.of(calls["out"].outputs[0])].all()


@pytest.mark.parametrize(
    "reader",
    [
        layers.LayerNormalization(),
        layers.Softmax(),
        layers.Lambda(lambda x: x[..., ::-1], output_shape=(6,)),
        layers.Dense(6, "softmax", name="reader"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_is_read_as_a_whole_is_no_unit(reader):
    inputs = keras.Input((4,))
    x = reader(dense(6, "one")(inputs))
    units = units_of(dense(2, "out")(x), inputs)
    if reader.name == "reader":  # only what comes out of the softmax
        assert set(units.sides) == {"one/kernel", "reader/kernel"}
        assert len(units.groups) == 6
        assert len(units.sides["reader/kernel"]) == 1
    else:
        assert not units.sides and units.whole == (reader.name,)


def test_a_layer_called_twice_is_no_unit():
    inputs = keras.Input((4,))
    shared = dense(4, "shared")
    units = units_of(dense(2, "out")(shared(shared(inputs))), inputs)
    assert not units.sides and units.whole == ("shared",)


def test_groups_are_units_of_the_same_layers():
    inputs = keras.Input((4,))
    one, two = dense(3, "one")(inputs), dense(2, "two")(inputs)
    three = dense(5, "three")(inputs)
    x = layers.Add()([layers.Concatenate()([one, two]), three])
    units = units_of(dense(2, "out")(x), inputs)
    assert units.groups.tolist() == [0, 0, 0, 1, 1]
    assert units.sides["three/kernel"][0].units.tolist() == [0, 1, 2, 3, 4]


def test_a_weight_may_be_a_row_of_one_and_a_column_of_another():
    inputs = keras.Input((4,))
    x = dense(3, "one")(inputs)
    units = units_of(dense(2, "out")(dense(5, "two")(x)), inputs)
    column, row = units.sides["two/kernel"]
    assert (column.axis, column.units.tolist()) == (-1, [3, 4, 5, 6, 7])
    assert (row.axis, row.units.tolist()) == (-2, [0, 1, 2])
    inside = units.within(["one/kernel", "two/kernel"])
    assert {n: len(s) for n, s in inside.sides.items()} == {
        "one/kernel": 1,
        "two/kernel": 1,
    }
    reached = units.reaching(["out/kernel"])
    assert set(reached.sides) == {"two/kernel", "out/kernel"}


def test_attention_of_another_make_counts_as_heads_by_its_kernels():
    class Cached(layers.MultiHeadAttention):
        pass

    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, Cached(2, 3)(inputs, inputs))
    assert len(coupling.heads(model).groups) == 2
    dense_only = keras.Model(inputs, layers.Dense(2)(inputs))
    assert not coupling.heads(dense_only).sides


@pytest.mark.parametrize("what", ["filters", "channels"])
def test_legacy_models_are_refused_with_what_works(what):
    inputs = tf_keras.Input((4,))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(inputs))
    match = f"'{what}' needs a Keras 3 model.*'blocks', '2:4'"
    with pytest.raises(ValueError, match=match):
        lottery.prune(model, lottery.OneShot(0.5), allocation=what)
