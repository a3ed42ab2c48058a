"""ONNX exports: what onnxruntime answers, and what is refused."""

import importlib.util
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.exporting import onnx_file
from keras_lottery.exporting import signature

pytestmark = pytest.mark.thorough

LAYERS = keras.layers
MISSING = [
    name
    for name in ("onnx", "tf2onnx", "onnxruntime")
    if importlib.util.find_spec(name) is None
]
needs_onnx = pytest.mark.skipif(
    bool(MISSING),
    reason=f"{', '.join(MISSING)} not installed: pip install "
    "'keras_lottery[onnx]'",
)


def fill(model):
    """Random weights; of the kernels most are 0."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        value = generator.normal(1, 0.3, variable.shape)
        if len(variable.shape) > 1:
            value *= generator.random(value.shape) < 0.3
        variable.assign(value)
    return model


def dense():
    return fill(
        keras.Sequential(
            [
                keras.Input((20,), name="pixels"),
                LAYERS.Dense(30, activation="relu"),
                LAYERS.Dropout(0.5),
                LAYERS.Dense(3),
            ]
        )
    )


def convolutional():
    inputs = keras.Input((8, 8, 2), name="image")
    x = LAYERS.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = LAYERS.ReLU()(LAYERS.BatchNormalization()(x))
    y = LAYERS.DepthwiseConv2D(3, padding="same")(x)
    x = LAYERS.GlobalAveragePooling2D()(LAYERS.add([x, y]))
    return fill(keras.Model(inputs, LAYERS.Dense(3)(x)))


def two_in_two_out():
    """In an order that no sorting gives, and outputs that could be swapped."""
    a = keras.Input((4,), name="z")
    b = keras.Input((2,), name="a", dtype="int32")
    embedded = LAYERS.Flatten()(LAYERS.Embedding(7, 3)(b))
    outputs = {"y": LAYERS.Dense(2)(a), "b": LAYERS.Dense(2)(embedded)}
    return fill(keras.Model({"z": a, "a": b}, outputs))


def lists():
    inputs = [keras.Input((4,), name="z"), keras.Input((4,), name="a")]
    outputs = [
        LAYERS.Dense(2, name=name)(x) for name, x in zip(("y", "b"), inputs)
    ]
    return fill(keras.Model(inputs, outputs))


def nested():
    inner = keras.Sequential([keras.Input((4,)), LAYERS.Dense(5)])
    inputs = keras.Input((4,))
    return fill(keras.Model(inputs, LAYERS.Dense(2)(inner(inputs))))


def recurrent():
    inputs = keras.Input((5, 6), name="steps")
    x = LAYERS.LSTM(4, return_sequences=True)(inputs)
    return fill(keras.Model(inputs, LAYERS.GRU(3)(x)))


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = LAYERS.Dense(40, activation="relu")
        self.out = LAYERS.Dense(2)

    def call(self, inputs):
        return self.out(self.hidden(inputs))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 6), np.float32))
    return fill(model)


def asked(model, rows):
    """Inputs, and what the model answers to them."""
    specs, arranged = signature.signature(model)
    generator = np.random.default_rng(1)
    inputs = {
        name: (generator.random((rows, *spec.shape[1:])) * 6).astype(
            spec.dtype.as_numpy_dtype
        )
        for name, spec in specs.items()
    }
    outputs = model(arranged(inputs), training=False)
    named = signature.named_outputs(model, outputs)
    return inputs, {name: value.numpy() for name, value in named.items()}


MODELS = (
    dense,
    convolutional,
    two_in_two_out,
    lists,
    nested,
    recurrent,
    subclassed,
)


@needs_onnx
@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_answers_as_the_model_under_its_names_at_any_batch(build, tmp_path):
    model = build()
    before = [value.tobytes() for value in model.get_weights()]
    onnx_file.write_onnx(model, tmp_path)
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert [value.tobytes() for value in model.get_weights()] == before
    for rows in (1, 7):
        inputs, expected = asked(model, rows)
        found = onnx_file.answers_onnx(tmp_path, inputs)
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name].shape == value.shape
            assert found[name].dtype == value.dtype
            difference = np.abs(found[name] - value).max()
            assert difference <= 2e-6 * np.abs(value).max()


class Digamma(LAYERS.Layer):
    def call(self, inputs):
        return tf.math.digamma(inputs)


@needs_onnx
def test_an_operation_that_onnx_does_not_have_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Digamma()])
    with pytest.raises(ValueError, match="No Op registered for Digamma"):
        onnx_file.write_onnx(model, tmp_path)
    assert not os.listdir(tmp_path)


@needs_onnx
def test_bfloat16_which_onnx_cannot_multiply_is_refused(tmp_path):
    layer = LAYERS.Dense(2, dtype="bfloat16")
    model = keras.Sequential([keras.Input((4,)), layer])
    with pytest.raises(ValueError, match="bfloat16.*format='compact'"):
        onnx_file.write_onnx(model, tmp_path)
    assert not os.listdir(tmp_path)


@needs_onnx
def test_an_input_and_an_output_of_one_name_are_refused(tmp_path):
    inputs = keras.Input((4,), name="values")
    model = keras.Model(inputs, {"values": LAYERS.Dense(2)(inputs)})
    with pytest.raises(ValueError, match="'values' names an input and an out"):
        onnx_file.write_onnx(model, tmp_path)
    assert not os.listdir(tmp_path)


def test_other_values_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'int8'.*compact-serving.*lite"):
        onnx_file.write_onnx(dense(), tmp_path, values="int8")
    assert not os.listdir(tmp_path)


def hide(monkeypatch, *names):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in names else find(name, *rest),
    )


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    hide(monkeypatch, "onnx", "tf2onnx")
    with pytest.raises(ValueError, match=r"onnx and tf2onnx.*pip install"):
        onnx_file.write_onnx(dense(), tmp_path)
    assert not os.listdir(tmp_path)


def test_without_onnxruntime_nothing_is_claimed(tmp_path, monkeypatch):
    hide(monkeypatch, "onnxruntime")
    assert onnx_file.answers_onnx(tmp_path, {}) is None
