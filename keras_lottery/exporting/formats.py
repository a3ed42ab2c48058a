"""The formats of an export, by name."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_lottery import environment
from keras_lottery.exporting import network as networks
from keras_lottery.exporting import rounding
from keras_lottery.exporting import warm_up
from keras_lottery.exporting.compact import write_compact
from keras_lottery.exporting.compact_serving import write_compact_serving
from keras_lottery.exporting.dense import write_dense
from keras_lottery.exporting.keras_file import answers_keras
from keras_lottery.exporting.keras_file import write_keras
from keras_lottery.exporting.lite import answers_lite
from keras_lottery.exporting.lite import write_lite
from keras_lottery.exporting.onnx_file import answers_onnx
from keras_lottery.exporting.onnx_file import require_onnx
from keras_lottery.exporting.onnx_file import write_onnx


class Format(NamedTuple):
    """One way to write a model, and what to ask it with.

    Fields:
        write: `(model, path, *, values)` into a directory that is there.
        opened: `path -> ask`, and `ask(inputs)` returns outputs, or None where
            nothing can run what was written.
        values: What `values` may be.
        served: Whether TF Serving loads it; what is not starts from a Keras 3
            model.
    """

    write: Callable
    opened: Callable
    values: tuple = ("float32",)
    served: bool = True


def opened_saved_model(path):
    """Returns a function that asks `serving_default` of a SavedModel.

    Args:
        path: Directory of the SavedModel.
    """
    loaded = tf.saved_model.load(path)

    def ask(inputs):
        serve = loaded.signatures["serving_default"]
        given = {name: tf.constant(value) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in serve(**given).items()}

    return ask


def _asking(answers):
    return lambda path: functools.partial(answers, path)


def _write_dense(model, path, *, values):
    del values
    write_dense(model, path)


_LITE = ("float32", "float16", "int8")
FORMATS = {
    "compact": Format(write_compact, opened_saved_model, rounding.VALUES),
    "compact-serving": Format(
        write_compact_serving, opened_saved_model, rounding.VALUES
    ),
    "dense": Format(_write_dense, opened_saved_model),
    "keras": Format(write_keras, _asking(answers_keras), served=False),
    "lite": Format(write_lite, _asking(answers_lite), _LITE, served=False),
    "onnx": Format(write_onnx, _asking(answers_onnx), served=False),
}


def get(name, values):
    """Returns a `Format` by its name.

    Raises:
        ValueError: There is none, or it has no such values.
    """
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(
            f"Unknown format {name!r}. Expected one of "
            f"{', '.join(map(repr, FORMATS))}."
        )
    rounding.check(values)
    chosen = FORMATS[name]
    if values not in chosen.values:
        others = [k for k, v in FORMATS.items() if values in v.values]
        raise ValueError(
            f"format={name!r} holds {' or '.join(chosen.values)}, got "
            f"values={values!r}. Export with format={' or '.join(others)}."
        )
    if name == "onnx":
        require_onnx()
    return chosen


def check(name, model, samples, measure):
    """Raises unless a format can do what is asked, of such a model.

    Args:
        name: Of the format.
        model: What is to be exported.
        samples: Whether there are any, for requests that warm a server up.
        measure: Whether it is to be measured.

    Raises:
        ValueError: It cannot; says which can.
        ImportError: Requests need a package that is not installed.
    """
    if name != "keras" and not environment.is_legacy(model):
        networks.require_scopes(model)
        networks.require_stateless(model)
    served = ", ".join(k for k, each in FORMATS.items() if each.served)
    if FORMATS[name].served:
        if samples:
            warm_up.check()
    elif measure:
        raise ValueError(
            f"`measure` is for what TF Serving loads ({served}), and got "
            f"format={name!r}."
        )
    elif environment.is_legacy(model):
        raise ValueError(
            f"format={name!r} starts from a Keras 3 model, and {model.name!r} "
            f"is of tf_keras. Export as one of {served}, or convert the model "
            "with tf_keras itself."
        )
