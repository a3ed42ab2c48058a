"""LiteRT exports: what they answer, what is left out, what is refused."""

import os
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.exporting import lite
from keras_lottery.exporting import signature

pytestmark = pytest.mark.thorough

LAYERS = keras.layers


def fill(model, sparsity=0.9):
    """Random weights, of the kernels the largest: nothing trivially 0 or 1."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        value = generator.normal(0, 0.3, variable.shape)
        if "variance" in variable.path or "gamma" in variable.path:
            value = generator.uniform(0.5, 1.5, variable.shape)
        elif len(variable.shape) > 1:
            value[np.abs(value) < np.quantile(np.abs(value), sparsity)] = 0
        variable.assign(value)
    return model


def dense(sparsity=0.9):
    model = keras.Sequential(
        [
            keras.Input((200,), name="pixels"),
            LAYERS.Dense(100, activation="relu"),
            LAYERS.Dropout(0.5),
            LAYERS.Dense(50, activation="relu"),
            LAYERS.Dense(3, name="logits"),
        ]
    )
    return fill(model, sparsity)


def convolutional():
    inputs = keras.Input((8, 8, 2), name="image")
    x = LAYERS.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = LAYERS.ReLU()(LAYERS.BatchNormalization()(x))
    y = LAYERS.DepthwiseConv2D(3, padding="same")(x)
    x = LAYERS.GlobalAveragePooling2D()(LAYERS.add([x, y]))
    return fill(keras.Model(inputs, LAYERS.Dense(3)(x)), 0.7)


def two_in_two_out():
    """In an order that no sorting gives, and outputs that could be swapped."""
    a = keras.Input((4,), name="z")
    b = keras.Input((2,), name="a", dtype="int32")
    embedded = LAYERS.Flatten()(LAYERS.Embedding(7, 3)(b))
    outputs = {"y": LAYERS.Dense(2)(a), "b": LAYERS.Dense(2)(embedded)}
    return fill(keras.Model({"z": a, "a": b}, outputs), 0.3)


def lists():
    inputs = [keras.Input((4,), name="z"), keras.Input((4,), name="a")]
    outputs = [
        LAYERS.Dense(2, name=name)(x) for name, x in zip(("y", "b"), inputs)
    ]
    return fill(keras.Model(inputs, outputs), 0.3)


def nested():
    inner = keras.Sequential([keras.Input((4,)), LAYERS.Dense(5)])
    inputs = keras.Input((4,), name="numbers")
    return fill(keras.Model(inputs, LAYERS.Dense(2)(inner(inputs))), 0.3)


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


def recurrent(unroll=True):
    inputs = keras.Input((5, 6), name="steps")
    x = LAYERS.LSTM(4, unroll=unroll, return_sequences=True)(inputs)
    return fill(keras.Model(inputs, LAYERS.GRU(3, unroll=unroll)(x)), 0.3)


def asked(model, rows=5):
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


def check(found, expected, limit):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert found[name].dtype == value.dtype
        assert np.abs(found[name] - value).max() <= limit * np.abs(value).max()


MODELS = (
    dense,
    convolutional,
    two_in_two_out,
    lists,
    nested,
    subclassed,
    recurrent,
)


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_answers_as_the_model_under_its_names_at_any_batch(build, tmp_path):
    model = build()
    lite.write_lite(model, tmp_path)
    assert os.listdir(tmp_path) == ["model.tflite"]
    for rows in (1, 7):
        inputs, expected = asked(model, rows)
        check(lite.answers_lite(tmp_path, inputs), expected, 2e-6)


@pytest.mark.parametrize("build", [dense, convolutional, two_in_two_out])
@pytest.mark.parametrize(
    ("values", "limit"), [("float16", 3e-3), ("int8", 3e-2)]
)
def test_coarser_values_answer_nearly_as_the_model(
    build, values, limit, tmp_path
):
    model = build()
    lite.write_lite(model, tmp_path, values=values)
    inputs, expected = asked(model)
    check(lite.answers_lite(tmp_path, inputs), expected, limit)


def test_the_file_says_what_tf_serving_asks_for(tmp_path):
    lite.write_lite(two_in_two_out(), tmp_path)
    interpreter = lite._interpreter((tmp_path / "model.tflite").read_bytes())
    (known,) = interpreter.get_signature_list().items()
    assert known[0] == "serving_default"
    assert sorted(known[1]["inputs"]) == ["a", "z"]
    assert sorted(known[1]["outputs"]) == ["b", "y"]


def size(model, path, values):
    lite.write_lite(model, path, values=values)
    return os.path.getsize(path / "model.tflite")


def test_pruned_weights_are_left_out_where_that_is_read_right(tmp_path):
    model = dense()
    weights = model.count_params()
    # A float32 or float16 and a byte that says where, for each that is kept.
    kept = weights // 10
    room = weights // 20 + 6000
    assert 5 * kept < size(model, tmp_path, "float32") < 5 * kept + room
    assert 3 * kept < size(model, tmp_path, "float16") < 3 * kept + room
    assert weights < size(model, tmp_path, "int8") < weights + room


def test_sparse_float16_that_would_be_misread_is_not_chosen(tmp_path):
    few, fewest = dense(0.9), dense(0.99)

    def misread(model):
        tried = lite._converted(model, "float16")
        return [lite._misread(lite._interpreter(each)) for each in tried]

    assert misread(few) == [False, False]
    assert misread(fewest) == [True, False]
    # Not even zeros are left out then.
    assert size(fewest, tmp_path, "float16") > 2 * fewest.count_params()
    inputs, expected = asked(fewest)
    check(lite.answers_lite(tmp_path, inputs), expected, 3e-3)


def converted(*models):
    contents = [next(lite._converted(model, "float32")) for model in models]
    return lambda model, values: iter(contents)


def test_the_first_that_agrees_is_written(tmp_path, monkeypatch):
    right, wrong = dense(), dense(0.8)
    monkeypatch.setattr(lite, "_converted", converted(wrong, right, wrong))
    lite.write_lite(right, tmp_path)
    inputs, expected = asked(right)
    check(lite.answers_lite(tmp_path, inputs), expected, 2e-6)


def test_answers_that_are_off_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lite, "_converted", converted(dense(0.8)))
    with pytest.raises(ValueError, match=r"off by \d.*1e-05 at most.*compact"):
        lite.write_lite(dense(), tmp_path)
    assert not os.listdir(tmp_path)


def test_answers_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    broken = dense()
    broken.layers[-1].bias.assign([0, np.nan, 0])
    monkeypatch.setattr(lite, "_converted", converted(broken))
    with pytest.raises(ValueError, match="off by inf"):
        lite.write_lite(dense(), tmp_path, values="int8")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("values", ["bfloat16", "int4", None])
def test_other_values_are_refused(values, tmp_path):
    with pytest.raises(ValueError, match="float32, float16, int8, got"):
        lite.write_lite(dense(), tmp_path, values=values)
    assert not os.listdir(tmp_path)


def test_a_loop_over_a_free_batch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no TensorListReserve.*unroll=True"):
        lite.write_lite(recurrent(unroll=False), tmp_path)
    assert not os.listdir(tmp_path)


def test_bfloat16_weights_are_refused(tmp_path):
    layer = LAYERS.Dense(2, dtype="bfloat16")
    model = keras.Sequential([keras.Input((4,)), layer])
    with pytest.raises(ValueError, match="no .*MatMul.*float32 or float16"):
        lite.write_lite(model, tmp_path)
    assert not os.listdir(tmp_path)


def test_tensorflows_own_interpreter_does_too(tmp_path, monkeypatch):
    lite.write_lite(dense(), tmp_path)
    inputs, expected = asked(dense())
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = lite.answers_lite(tmp_path, inputs)
    check(found, expected, 2e-6)
    interpreter = lite._interpreter((tmp_path / "model.tflite").read_bytes())
    assert isinstance(interpreter, tf.lite.Interpreter)
