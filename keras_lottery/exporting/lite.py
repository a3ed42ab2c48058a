"""A LiteRT file (TensorFlow Lite): for phones, and for TF Serving's own option.

TF Serving answers from `model.tflite` with `--prefer_tflite_model`. Converted
files are not trusted: some combinations of sparse and quantised weights give
NaN, so what a file answers is compared before it is written.
"""

import os
import re
import tempfile
import warnings

import numpy as np
import tensorflow as tf

from keras_lottery import files
from keras_lottery.exporting import dense
from keras_lottery.exporting import probe
from keras_lottery.exporting import signature

FILE = "model.tflite"
ROWS = 3  # more than the one that a converter may take for granted

_SMALL = tf.lite.Optimize.DEFAULT
_SPARSE = tf.lite.Optimize.EXPERIMENTAL_SPARSITY
# The smallest first; the next is tried where it does not agree. Sparse int8 is
# not here: of LeNet and ResNet-20 at 90, 96.4 and 99 % it either did not load
# or answered NaN.
OPTIMIZATIONS = {
    "float32": ((_SPARSE,), ()),
    "float16": ((_SMALL, _SPARSE), (_SMALL,)),
    "int8": ((_SMALL,),),
}
# Of the largest output. Working files of the same networks were off by 5e-7,
# 5e-4 and 1.2e-2 at most, broken ones answered NaN: the limits tell these apart
# and say nothing about what accuracy is lost.
LIMITS = {"float32": 1e-5, "float16": 1e-2, "int8": 1e-1}


def write_lite(model, path, *, values="float32"):
    """Writes a Keras model as `model.tflite`, with any batch size.

    Pruned weights are left out for float32; for float16 where LiteRT reads that
    right (LeNet at 90 % and 96.4 %, not at 99 %); for int8 never. A sparse
    network is therefore larger in int8 than in float32, and may be in float16.

    Args:
        model: A built `keras.Model`. A recurrent layer needs `unroll=True`.
        path: Directory to write into.
        values: `"float32"`, `"float16"`, or `"int8"`: kernels in 8 bits, with
            inputs, outputs and the rest as they are (dynamic range).

    Raises:
        ValueError: Other values, LiteRT cannot express the model, or what it
            answers is further off than `LIMITS`. Nothing is written.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> path = tempfile.mkdtemp()
    >>> write_lite(model, path)
    >>> os.listdir(path)
    ['model.tflite']
    """
    if values not in OPTIMIZATIONS:
        raise ValueError(
            f"A LiteRT file has values {', '.join(OPTIMIZATIONS)}, got "
            f"{values!r}. format='compact' has bfloat16."
        )
    specs, arranged = signature.signature(model)
    inputs = probe.batch(specs, rows=ROWS)
    outputs = model(arranged(inputs), training=False)
    expected = _arrays(signature.named_outputs(model, outputs))
    found = []
    for content in _converted(model, values):
        found.append(_difference(content, inputs, expected))
        if found[-1] <= LIMITS[values]:
            files.write_whole(os.path.join(path, FILE), content)
            return
    raise ValueError(
        f"What LiteRT answers with values={values!r} is off by "
        f"{min(found):.1e} of the largest output, expected {LIMITS[values]:.0e}"
        " at most. Export with other `values`, or with format='compact'."
    )


def answers_lite(path, inputs):
    """Returns what a `model.tflite` answers.

    Args:
        path: Directory that it was written into.
        inputs: Dict from input name to array, as `signature` names them.

    Returns:
        Dict from output name to array.
    """
    with open(os.path.join(path, FILE), "rb") as file:
        return _answers(_interpreter(file.read()), inputs)


def _converted(model, values):
    """Yields the files to try, each as bytes."""
    with tempfile.TemporaryDirectory() as aside:
        # A SavedModel and not the Keras model, whose converter loses names.
        dense.write_dense(model, aside)
        for optimizations in OPTIMIZATIONS[values]:
            converter = tf.lite.TFLiteConverter.from_saved_model(aside)
            converter.optimizations = list(optimizations)
            if values == "float16":
                converter.target_spec.supported_types = [tf.float16]
            yield _convert(converter, model)


def _convert(converter, model):
    try:
        return converter.convert()
    except Exception as error:  # the converter's own has no public name
        # The reasons are pages long; each names its operation like this.
        missing = sorted(set(re.findall(r"'tf\.(\w+)' op", str(error))))
        raise ValueError(
            f"LiteRT has no {', '.join(missing) or 'form'} for what "
            f"{model.name!r} does. Recurrent layers need `unroll=True`, and "
            "weights must be float32 or float16; format='compact' has all of "
            "it."
        ) from error


def _difference(content, inputs, expected):
    """Returns the largest difference, in parts of the largest output."""
    interpreter = _interpreter(content)
    if _misread(interpreter):
        return np.inf
    try:
        found = _answers(interpreter, inputs)
    except RuntimeError:  # it does not load
        return np.inf
    apart = probe.largest_difference(expected, found)
    return max(output["relative"] for output in apart.values())


def _misread(interpreter):
    """Whether sparse float16 weights would be read as dense ones, past the end.

    Above some sparsity the converter stores blocks, which only float32 kernels
    read; it forgets to unpack them before they become float32.
    """
    return any(
        tensor["dtype"] is np.float16
        and len(tensor["sparsity_parameters"].get("block_map", ()))
        for tensor in interpreter.get_tensor_details()
    )


def _answers(interpreter, inputs):
    run = interpreter.get_signature_runner("serving_default")
    return dict(run(**inputs))


def _interpreter(content):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # the same, as TensorFlow ships it for now
        Interpreter = tf.lite.Interpreter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the first is the newer one
        return Interpreter(model_content=content)


def _arrays(outputs):
    return {name: value.numpy() for name, value in outputs.items()}
