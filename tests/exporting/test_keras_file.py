"""`.keras` exports: small, and bit for bit what was saved."""

import os
import zipfile

import keras
import numpy as np
import pytest

from keras_lottery.exporting import keras_file
from keras_lottery.exporting import signature

pytestmark = pytest.mark.thorough

LAYERS = keras.layers


def fill(model):
    """Random weights; of the kernels most are 0, and some of those -0."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        value = generator.normal(1, 0.3, variable.shape)
        if len(variable.shape) > 1:
            value *= generator.random(value.shape) < 0.1
            value *= generator.choice([-1, 1], value.shape)
        variable.assign(value)
    return model


def dense():
    return fill(
        keras.Sequential(
            [
                keras.Input((200,)),
                LAYERS.Dense(300, activation="relu"),
                LAYERS.Dropout(0.5),
                LAYERS.Dense(3),
            ]
        )
    )


def convolutional():
    inputs = keras.Input((8, 8, 2), name="image")
    x = LAYERS.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = LAYERS.GlobalAveragePooling2D()(LAYERS.BatchNormalization()(x))
    return fill(keras.Model(inputs, LAYERS.Dense(3)(x)))


def two_in_two_out():
    a = keras.Input((4,), name="z")
    b = keras.Input((2,), name="a", dtype="int32")
    embedded = LAYERS.Flatten()(LAYERS.Embedding(2, 3)(b))
    outputs = {"y": LAYERS.Dense(2)(a), "b": LAYERS.Dense(2)(embedded)}
    return fill(keras.Model({"z": a, "a": b}, outputs))


def unnamed_inputs():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    inner = keras.Sequential([keras.Input((4,)), LAYERS.Dense(5)])
    outputs = [LAYERS.Dense(2)(inputs[0]), inner(inputs[1])]
    return fill(keras.Model(inputs, outputs))


class Unregistered(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.out = LAYERS.Dense(2)

    def call(self, inputs):
        return self.out(inputs)


@keras.saving.register_keras_serializable("test_keras_file")
class Registered(Unregistered):
    pass


def subclassed(kind=Registered):
    model = kind()
    model(np.zeros((1, 6), np.float32))
    return fill(model)


def asked(model):
    """Inputs, and what the model answers to them."""
    specs, arranged = signature.signature(model)
    generator = np.random.default_rng(1)
    inputs = {
        name: generator.integers(0, 2, (5, *spec.shape[1:])).astype(
            spec.dtype.as_numpy_dtype
        )
        for name, spec in specs.items()
    }
    outputs = model(arranged(inputs), training=False)
    named = signature.named_outputs(model, outputs)
    return inputs, {name: value.numpy() for name, value in named.items()}


MODELS = (dense, convolutional, two_in_two_out, unnamed_inputs, subclassed)


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_answers_and_weights_are_the_models_bit_for_bit(build, tmp_path):
    model = build()
    inputs, expected = asked(model)
    keras_file.write_keras(model, tmp_path)
    assert os.listdir(tmp_path) == ["model.keras"]
    found = keras_file.answers_keras(tmp_path, inputs)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights)
    for ours, its in zip(model.weights, loaded.weights):
        assert ours.numpy().tobytes() == its.numpy().tobytes()


def test_zeros_are_deflated(tmp_path):
    model = dense()
    keras_file.write_keras(model, tmp_path)
    kept = sum(np.count_nonzero(value) for value in model.get_weights())
    size = os.path.getsize(tmp_path / "model.keras")
    assert size < 7 * kept + 10_000 < 4 * model.count_params() / 3
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert sorted(archive.namelist()) == [
            "config.json",
            "metadata.json",
            "model.weights.h5",
        ]


def test_what_keras_would_refuse_deflated_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_file, "MOST_DEFLATED", 100_000)
    model = dense()
    keras_file.write_keras(model, tmp_path)
    size = os.path.getsize(tmp_path / "model.keras")
    assert size > 4 * model.count_params()
    inputs, expected = asked(model)
    (found,) = keras_file.answers_keras(tmp_path, inputs).values()
    np.testing.assert_array_equal(found, *expected.values())


def test_other_values_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'float16'.*compact-serving.*lite"):
        keras_file.write_keras(dense(), tmp_path, values="float16")
    assert not os.listdir(tmp_path)


def test_a_class_that_keras_does_not_find_is_named(tmp_path):
    model = subclassed(Unregistered)
    inputs, _ = asked(model)
    keras_file.write_keras(model, tmp_path)
    with pytest.raises(ValueError, match="Unregistered.*register_keras_serial"):
        keras_file.answers_keras(tmp_path, inputs)


def test_nothing_is_left_when_the_disk_is_full(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space"):
        keras_file.write_keras(dense(), tmp_path)
    assert not os.listdir(tmp_path)
