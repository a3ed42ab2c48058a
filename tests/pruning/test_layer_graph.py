"""Layer graphs: calls in order, wires between them, nested ones flattened."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery.pruning import layer_graph


def names(graph):
    return [call.operation.name for call in graph.calls]


def test_calls_come_after_what_they_need():
    inputs = keras.Input((4,))
    left = layers.Dense(3, name="left")(inputs)
    right = layers.Dense(3, name="right")(layers.ReLU(name="relu")(inputs))
    model = keras.Model(inputs, layers.Add(name="add")([left, right]))
    graph = layer_graph.read(model)
    assert sorted(names(graph)) == ["add", "left", "relu", "right"]
    known = set(layer_graph.wires(graph.inputs))
    for call in graph.calls:
        assert known.issuperset(call.inputs)
        assert not known.intersection(call.outputs)
        known.update(call.outputs)
    assert graph.calls[-1].outputs[0] is graph.outputs
    assert [wire.shape for wire in graph.calls[-1].inputs] == [(None, 3)] * 2


def test_shared_layers_have_a_call_each():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(shared(inputs)))
    graph = layer_graph.read(model)
    assert names(graph) == ["shared", "shared"]
    assert graph.times() == {id(shared): 2}
    assert graph.calls[0].outputs == graph.calls[1].inputs


def test_nested_models_are_flattened_wherever_they_are():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="deep")], name="inner"
    )
    inputs = keras.Input((4,))
    outer = keras.Model(inputs, inner(inner(inputs)), name="outer")
    model = keras.Sequential([outer, layers.Dense(2, name="head")])
    graph = layer_graph.read(model)
    assert names(graph) == ["deep", "deep", "head"]
    assert [call.path for call in graph.calls] == [
        *(("outer", "inner"), ("outer", "inner")),
        (),
    ]
    first, second, last = graph.calls
    assert first.outputs == second.inputs and second.outputs == last.inputs


def test_dicts_of_inputs_and_outputs():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    inner = keras.Model(
        {"b": b, "a": a}, {"sum": layers.Dense(3, name="from_a")(a) + b}
    )
    x, y = keras.Input((2,), name="x"), keras.Input((3,), name="y")
    model = keras.Model({"x": x, "y": y}, inner({"a": x, "b": y}))
    graph = layer_graph.read(model)
    dense, add = graph.calls
    assert dense.inputs == (graph.inputs["x"],)
    assert add.args == (dense.outputs[0], graph.inputs["y"])
    assert graph.outputs == {"sum": add.outputs[0]}


@pytest.mark.parametrize("arguments", [{"training": True}, {"mask": True}])
def test_a_nested_model_that_is_told_something_is_one_call(arguments):
    inner = keras.Sequential([keras.Input((4, 2)), layers.Dense(4)])
    inputs = keras.Input((4, 2))
    if "mask" in arguments:
        arguments = {"mask": keras.ops.any(inputs > 0, axis=-1)}
    model = keras.Model(inputs, inner(inputs, **arguments))
    last = layer_graph.read(model).calls[-1]
    assert last.operation is inner
    flat = keras.Model(inputs, inner(inputs, training=False))
    assert layer_graph.read(flat).calls[-1].operation is inner.layers[0]


class WithCode(keras.Model):
    def call(self, inputs):
        return super().call(inputs) * 2


class WithoutCode(keras.Model):
    def train_step(self, data):
        return {}


def test_only_models_without_code_of_their_own():
    inputs = keras.Input((4,))
    outputs = layers.Dense(2)(inputs)
    assert len(layer_graph.read(WithoutCode(inputs, outputs)).calls) == 1
    with pytest.raises(ValueError, match="WithCode with code of its own"):
        layer_graph.read(WithCode(inputs, outputs))
    with pytest.raises(ValueError, match=r"or is not built"):
        layer_graph.read(keras.Sequential([layers.Dense(2)]))


def test_reading_leaves_no_trace():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    model = keras.Sequential([inner, layers.Dense(2)])
    keras.Model(model.inputs, model.outputs)  # the first has no number
    before = [len(x._inbound_nodes) for x in model._flatten_layers()]
    values = [v.numpy() for v in model.variables]
    names_before = keras.Model(model.inputs, model.outputs).name.split("_")
    layer_graph.read(model)
    names_after = keras.Model(model.inputs, model.outputs).name.split("_")
    assert int(names_after[-1]) == int(names_before[-1]) + 1
    assert [len(x._inbound_nodes) for x in model._flatten_layers()] == before
    for variable, value in zip(model.variables, values, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
