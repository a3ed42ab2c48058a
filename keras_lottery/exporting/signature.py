"""The signature of an export: the inputs and outputs of the Keras model."""

import keyword
import re

import keras
import tensorflow as tf

from keras_lottery.pruning import graph


def signature(model):
    """Returns {name: TensorSpec} and how to hand such tensors to the model.

    Raises:
        ValueError: What the model is called on is not known, or it takes
            samples of any length.
    """
    _require_shapes(model)
    known = graph.input_specs(model)
    if known is None or known[1] or len(known[0]) != 1:
        raise ValueError(
            f"What {type(model).__name__} is called on is not known, or is "
            "more than one argument. Wrap it for export: `inputs = "
            "keras.Input(shape); keras.Model(inputs, model(inputs))`."
        )
    structure = known[0][0]
    flat = keras.tree.flatten(structure)
    names = _input_names(model, structure, len(flat))
    specs = {
        name: tf.TensorSpec((None, *spec.shape[1:]), spec.dtype, name)
        for name, spec in zip(names, flat, strict=True)
    }
    return specs, lambda given: keras.tree.pack_sequence_as(
        structure, [given[name] for name in names]
    )


def named_outputs(model, outputs):
    """Returns {name: tensor} of what the model returned.

    Args:
        model: The Keras model.
        outputs: Tensor or structure of tensors.
    """
    is_nested = keras.tree.is_nested
    if isinstance(outputs, dict) and not any(map(is_nested, outputs.values())):
        return dict(outputs)
    flat = keras.tree.flatten(outputs)
    names = getattr(model, "output_names", None) or []
    # Keras calls outputs after layers: one that is called twice names two.
    if len(set(names)) != len(flat):
        names = [f"output_{i}" for i in range(len(flat))]
    return dict(zip(names, flat, strict=True))


def require_loadable(specs):
    """Raises unless TensorFlow's Python loads a SavedModel of such inputs.

    Args:
        specs: Dict by the names of the inputs.

    Raises:
        ValueError: A name that is a word of Python.
    """
    for name in specs:
        if keyword.iskeyword(name) or name == "self":
            _refuse(name, "a word of Python, which no parameter is called")


def require_parameters(specs):
    """Raises unless inputs can be parameters of a Python function.

    TensorFlow writes `a.b` as `a_b`, and a server would not know it.

    Args:
        specs: Dict by the names of the inputs.

    Raises:
        ValueError: A name that is none of a parameter.
    """
    require_loadable(specs)
    for name in specs:
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
            _refuse(name, "no name of letters, digits and _ in TensorFlow")


def _refuse(name, reason):
    raise ValueError(
        f"The input {name!r} is {reason}. Call it otherwise, "
        "`keras.Input(shape, name='pixels')`, or export with format='keras'."
    )


def _require_shapes(model):
    for tensor in keras.tree.flatten(getattr(model, "inputs", None) or []):
        if None in tensor.shape[1:]:
            raise ValueError(
                f"The input {tensor.name!r} has shape {tuple(tensor.shape)}; "
                "only its first dimension may be free. Pad samples to one "
                "length, and give it to `keras.Input`."
            )


def _input_names(model, structure, count):
    if getattr(model, "inputs", None):
        return [tensor.name for tensor in keras.tree.flatten(model.inputs)]
    if isinstance(structure, dict):
        return sorted(structure)
    return ["inputs"] if count == 1 else [f"inputs_{i}" for i in range(count)]
