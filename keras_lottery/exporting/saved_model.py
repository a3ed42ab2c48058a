"""A ticket as a directory that TF Serving loads as it is."""

import contextlib
import os
import tempfile

import tensorflow as tf

from keras_lottery import environment
from keras_lottery.exporting import dense
from keras_lottery.exporting import describing
from keras_lottery.exporting import formats
from keras_lottery.exporting import measuring
from keras_lottery.exporting import sources
from keras_lottery.exporting import versions
from keras_lottery.exporting.card import model_card
from keras_lottery.exporting.shrinking import shrink as shrinking


def export(
    model_or_ticket,
    base,
    *,
    version=None,
    format="compact",
    values="float32",
    shrink=False,
    model=None,
    samples=None,
    measure=False,
):
    """Writes a version into a directory that TF Serving watches.

    `serving_default` takes the inputs of the model under their names and
    dtypes, with any batch size. What was written is asked before it appears,
    and its `MODEL_CARD.md` says how small it is and how its answers differ.

    Args:
        model_or_ticket: A trained `Ticket`, a `PrunedModel`, a Keras model
            pruned elsewhere, or a tf_keras model, wrapped by tfmot or not.
        base: Directory of the served model; versions are its subdirectories.
        version: Int >= 0, or None for the next free one, from 1.
        format: `"compact"`: gaps and values, decoded once when it is loaded;
            `"compact-serving"`: the smallest, for servers only; `"dense"`:
            weights as they are, zeros included; `"keras"`, `"lite"`, `"onnx"`:
            files for other runtimes.
        values: `"float32"`: as trained; `"float16"`, `"bfloat16"`, `"int8"`:
            kernels are rounded to that, and the difference is printed.
        shrink: Whether units, channels and inputs that change nothing are
            removed and batch normalisation is folded. Outputs are within 1e-5
            of the largest.
        model: The model of a ticket that carries no config, or that is of
            tf_keras.
        samples: Inputs, or `(inputs, labels)`, as for `fit`: the first become
            warm-up requests for the server, all are compared, and labels give
            accuracy before and after.
        measure: Whether load time, memory and latency are measured beside the
            dense export; about half a minute for a small model.

    Returns:
        Path of the version directory, as a str.

    Raises:
        ValueError: The version exists, the model is not built, weights are not
            finite, or what was asked is not to be had; says what is.
        TicketError: The ticket was not trained, or does not fit the model.
        ImportError: `samples` without tensorflow-serving-api.
        OSError: The disk is full.
            In every case nothing is left behind.

    Example:

    >>> import keras, os, tempfile, keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> path = lottery.export(model, tempfile.mkdtemp())
    >>> os.path.basename(path), "MODEL_CARD.md" in os.listdir(path)
    ('1', True)
    """
    chosen = formats.get(format, values)
    base = versions.local(base)
    with _quietly(), sources.as_trained(model_or_ticket, model) as trained:
        formats.check(format, trained, samples is not None, measure)
        sources.check(trained)
        asked = describing.Probe(trained, samples)
        written, shrinkage = _shrunk(trained, shrink)
        with versions.written(base, version) as writing:
            chosen.write(written, writing.path, values=values)
            facts = describing.describe(
                writing.path,
                trained,
                asked,
                ask=chosen.opened(writing.path),
                name=os.path.basename(os.path.abspath(base)),
                format=format,
                values=values,
                exported=written,
                shrink=shrinkage,
                measured=_measured(writing.path, trained, asked, measure),
                **sources.origin(model_or_ticket),
            )
            model_card.write(writing.path, facts)
    for line in describing.in_words(facts):
        print(line)
    return writing.final


@contextlib.contextmanager
def _quietly():
    """Keeps TensorFlow from telling where each of its files was written."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(before)


def _shrunk(model, wanted):
    """Returns the model to write, and what was removed from it, or None."""
    if not wanted:
        return model, None
    if environment.is_legacy(model):
        raise ValueError(
            f"`shrink` works on Keras 3 models, and {model.name!r} is of "
            "tf_keras. Leave it out."
        )
    return shrinking.shrink(model)


def _measured(path, model, asked, wanted):
    """Returns what is measured beside the dense export, or None."""
    if not wanted:
        return None
    with tempfile.TemporaryDirectory() as other:
        dense.write_dense(model, other)
        return measuring.measure({"this": path, "dense": other}, asked.inputs)
