"""A `.keras` file: what Keras itself loads, and can train on."""

import os
import tempfile
import zipfile

import keras

from keras_lottery.exporting import signature

FILE = "model.keras"
# Keras takes what is larger and shrinks a lot for an attack, and refuses it.
MOST_DEFLATED = 2**28


def write_keras(model, path, *, values="float32"):
    """Writes a Keras model as `model.keras`.

    It is what `model.save` writes, deflated: Keras stores zeros as they are,
    and loads both. The state of its optimizer goes with a compiled model.

    Args:
        model: A built `keras.Model`.
        path: Directory to write into.
        values: Only `"float32"`: a `.keras` file holds weights as they are.

    Raises:
        ValueError: Other values.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> path = tempfile.mkdtemp()
    >>> write_keras(model, path)
    >>> os.listdir(path)
    ['model.keras']
    """
    if values != "float32":
        raise ValueError(
            f"A .keras file holds weights as they are, got values={values!r}. "
            "Leave `values` out, or export with format='compact', "
            "'compact-serving' or 'lite', which have others."
        )
    with tempfile.TemporaryDirectory(dir=path, prefix=".writing-") as aside:
        stored = os.path.join(aside, FILE)
        model.save(stored)
        whole = stored
        if os.path.getsize(stored) <= MOST_DEFLATED:
            whole = _deflated(stored, os.path.join(aside, "deflated"))
        os.replace(whole, os.path.join(path, FILE))


def answers_keras(path, inputs):
    """Returns what a `model.keras` answers.

    Args:
        path: Directory that it was written into.
        inputs: Dict from input name to array, named and ordered as by
            `signature`.

    Returns:
        Dict from output name to array.

    Raises:
        ValueError: Keras cannot load it: a class of the model is not
            registered.
    """
    model = _loaded(os.path.join(path, FILE))
    specs, arranged = signature.signature(model)
    if set(specs) != set(inputs):
        # Inputs that were given no name come back with another one, in order.
        inputs = dict(zip(specs, inputs.values(), strict=True))
    outputs = model(arranged(inputs), training=False)
    named = signature.named_outputs(model, outputs)
    return {name: value.numpy() for name, value in named.items()}


def _loaded(file_path):
    try:
        return keras.saving.load_model(file_path, compile=False)
    except TypeError as error:  # of several lines, and the whole config
        raise ValueError(
            f"Keras cannot load what it saved: {str(error).split('. ')[0]}. "
            "Decorate the classes of the model with "
            "`@keras.saving.register_keras_serializable()`, or export with "
            "format='compact'."
        ) from error


def _deflated(stored, path):
    """Writes the zip archive again, deflated; returns its path."""
    with (
        zipfile.ZipFile(stored) as source,
        zipfile.ZipFile(
            path, "w", zipfile.ZIP_DEFLATED, compresslevel=9
        ) as target,
    ):
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    return path
