"""What importing costs and changes, each in a process of its own."""

import os
import subprocess
import sys

import pytest

import keras_lottery


def _python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        timeout=120,
    )


def test_import_loads_neither_tensorflow_nor_tfmot_and_is_quick():
    code = """
import sys, time
began = time.perf_counter()
import keras_lottery
spent = time.perf_counter() - began
for name in ("tensorflow", "keras", "tensorflow_model_optimization", "numpy"):
    assert name not in sys.modules, name
assert spent < 0.1, spent
"""
    found = _python(code)
    assert found.returncode == 0, found.stderr


def test_every_public_name_is_there():
    for name in keras_lottery.__all__:
        assert getattr(keras_lottery, name) is not None
        assert name in dir(keras_lottery)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no name 'pruen'"):
        keras_lottery.pruen  # noqa: B018


def test_another_backend_is_refused_before_keras_is_imported():
    code = "import keras_lottery as lottery; lottery.prune"
    found = _python(code, KERAS_BACKEND="jax")
    assert found.returncode != 0
    assert "needs Keras on the TensorFlow backend" in found.stderr
    assert "'jax'" in found.stderr
    assert "Set KERAS_BACKEND=tensorflow" in found.stderr


def test_both_kinds_are_pruned_where_tf_keras_is_the_legacy_one():
    code = """
import os
import tensorflow as tf
import keras, keras_lottery as lottery
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
lottery.prune(model)
assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
assert tf.keras.Model.__module__.startswith("tf_keras")
legacy = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(4,))])
pruned = lottery.prune(legacy)
assert isinstance(pruned, tf.keras.Sequential)
assert list(pruned.mask) == ["dense/kernel"]
"""
    found = _python(code, TF_USE_LEGACY_KERAS="1")
    assert found.returncode == 0, found.stderr[-2000:]


def test_using_schedules_leaves_tf_keras_and_the_environment_alone():
    code = """
import os
import tensorflow as tf
import keras, keras_lottery as lottery
lottery.IterativePruning(0.2, 3)
assert "TF_USE_LEGACY_KERAS" not in os.environ
assert tf.keras.Model is keras.Model
"""
    environment = {
        k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"
    }
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=120,
    )
    assert found.returncode == 0, found.stderr[-2000:]
