"""A ticket as a SavedModel that TF Serving loads as it is."""

import contextlib
import os
import re
import shutil
import tempfile

import keras

from keras_lottery import choices
from keras_lottery.exporting.compact import write_compact
from keras_lottery.exporting.dense import write_dense
from keras_lottery.tickets import ticket as tickets
from keras_lottery.tickets.pruned_model import PrunedModel
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.training import state


def export(
    model_or_ticket, base, *, version=None, format="compact", model=None
):
    """Writes a SavedModel into a directory that TF Serving watches.

    `serving_default` takes the inputs of the Keras model under their names and
    dtypes, with any batch size, and every variable is written once.

    Args:
        model_or_ticket: A trained `Ticket`, a `PrunedModel` or a Keras model.
        base: Directory of the served model; versions are its subdirectories.
        version: Int >= 0, or None for the next free one, from 1.
        format: `"compact"`: gaps and values, decoded once when it is loaded;
            `"dense"`: weights as they are, zeros included.
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


FORMATS = {"compact": write_compact, "dense": write_dense}


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
