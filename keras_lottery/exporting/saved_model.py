"""A ticket as a SavedModel that TF Serving loads as it is."""

import contextlib
import os
import re
import shutil
import tempfile

import keras
import tensorflow as tf

from keras_lottery import choices
from keras_lottery.pruning import graph
from keras_lottery.pruning import naming
from keras_lottery.tickets import ticket as tickets
from keras_lottery.tickets.pruned_model import PrunedModel
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.training import state


def export(model_or_ticket, base, *, version=None, format="dense", model=None):
    """Writes a SavedModel into a directory that TF Serving watches.

    `serving_default` takes the inputs of the Keras model under their names and
    dtypes, with any batch size, and every variable is written once.

    Args:
        model_or_ticket: A trained `Ticket`, a `PrunedModel` or a Keras model.
        base: Directory of the served model; versions are its subdirectories.
        version: Int >= 0, or None for the next free one, from 1.
        format: `"dense"`: weights as they are, zeros included.
        model: The model of a ticket that carries no config.

    Returns:
        Path of the version directory, as a str.

    Raises:
        ValueError: The version exists, the model is not built, or weights are
            not finite. Nothing is left behind.

    Example:

    >>> import os, tempfile, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> path = lottery.export(model, tempfile.mkdtemp())
    >>> os.path.basename(path)
    '1'
    """
    write = choices.resolve("format", format, FORMATS, "a function")
    with _as_trained(model_or_ticket, model) as ready:
        _check(ready)
        return _write_version(ready, write, os.fspath(base), version)


def write_dense(model, path):
    """Writes a Keras model as a SavedModel, each variable once.

    Keras's own `export` writes every variable twice (in 3.15), and names the
    inputs of a subclassed model by position.
    """
    module = tf.Module()
    module.weights = [w.variable.value for w in naming.walk(model)]
    specs, arranged = _signature(model)

    def serve(**inputs):
        return _named_outputs(model, model(arranged(inputs), training=False))

    function = tf.function(serve).get_concrete_function(**specs)
    tf.saved_model.save(module, path, signatures={"serving_default": function})


FORMATS = {"dense": write_dense}


@contextlib.contextmanager
def _as_trained(model_or_ticket, model):
    """Yields the Keras model to export; one that is lent is given back."""
    if isinstance(model_or_ticket, Ticket):
        lent = model is not None
        inner = model.inner if isinstance(model, PrunedModel) else model
        target = inner if lent else tickets.rebuild(model_or_ticket)
        before = state.snapshot(target).model
        try:
            yield model_or_ticket.restore(target, "end")
        finally:
            state.restore_model(before, target)
    elif isinstance(model_or_ticket, PrunedModel):
        yield model_or_ticket.inner
    elif isinstance(model_or_ticket, keras.Model):
        yield model_or_ticket
    else:
        raise ValueError(
            "Expected a Ticket, a PrunedModel or a keras.Model, got "
            f"{type(model_or_ticket).__name__}."
        )


def _write_version(model, write, base, version):
    if version is not None and (not isinstance(version, int) or version < 0):
        raise ValueError(f"`version` must be an int >= 0, got {version!r}.")
    os.makedirs(base, exist_ok=True)
    version = _next_version(base) if version is None else version
    final = os.path.join(base, str(version))
    if os.path.lexists(final):
        raise ValueError(
            f"{final} exists, and an export is never overwritten. Leave "
            "`version` out for the next free one."
        )
    # Servers poll the directory: it appears under its number only when whole.
    aside = tempfile.mkdtemp(dir=base, prefix=".writing-")
    try:
        write(model, aside)
        os.chmod(aside, 0o755)
        os.rename(aside, final)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return final


def _check(model):
    if not model.built:
        raise ValueError(f"{model.name!r} is not built: call it once first.")
    name = state.first_not_finite(model)
    if name is not None:
        raise ValueError(f"{name!r} is not finite: nothing was exported.")


def _next_version(base):
    taken = [int(n) for n in os.listdir(base) if re.fullmatch(r"\d+", n)]
    return max(taken, default=0) + 1


def _signature(model):
    """Returns {name: TensorSpec} and how to hand such tensors to the model.

    Raises:
        ValueError: What the model is called on is not known.
    """
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


def _input_names(model, structure, count):
    if getattr(model, "inputs", None):
        return [tensor.name for tensor in keras.tree.flatten(model.inputs)]
    if isinstance(structure, dict):
        return sorted(structure)
    return ["inputs"] if count == 1 else [f"inputs_{i}" for i in range(count)]


def _named_outputs(model, outputs):
    if isinstance(outputs, dict):
        return dict(outputs)
    flat = keras.tree.flatten(outputs)
    names = getattr(model, "output_names", None) or []
    if len(names) != len(flat):
        names = [f"output_{i}" for i in range(len(flat))]
    return dict(zip(names, flat, strict=True))
