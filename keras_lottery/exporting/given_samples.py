"""Samples as users pass them, checked against the signature of a model."""

import warnings

import numpy as np
import tensorflow as tf

from keras_lottery.exporting import network as networks

MOST_ROWS = 1000  # of a data set, which may not end


def samples(given, model):
    """Returns samples as a signature takes them, and their labels.

    Args:
        given: Inputs, or a tuple `(inputs, labels)`, or a `tf.data.Dataset`
            of batches of either, of which the first 1,000 rows are taken.
            Inputs are an array, a list of arrays in the order of the model's
            inputs, or a dict by their names.
        model: A built model, or the `Network` of one.

    Returns:
        Dict from input name to array in the dtype of the signature, and the
        labels as an array, or None.

    Raises:
        ValueError: Names, shapes, kinds of dtype or numbers of rows that do
            not fit, no rows, strings, ragged rows, or numbers not finite.

    Example:

    >>> import keras
    >>> model = keras.Sequential(
    ...     [keras.Input((4,), name="pixels"), keras.layers.Dense(2)]
    ... )
    >>> inputs, labels = samples((np.ones((3, 4)), [0, 1, 1]), model)
    >>> inputs["pixels"].dtype.name, labels.tolist()
    ('float32', [0, 1, 1])
    """
    made = isinstance(model, networks.Network)
    specs = (model if made else networks.of(model)).specs
    if isinstance(given, tf.data.Dataset):
        return _of_data_set(given, specs)
    return _checked(given, specs)


def _of_data_set(given, specs):
    parts, rows, cut = [], 0, False
    for element in given:
        if rows == MOST_ROWS:
            cut = True
            break
        inputs, labels = _checked(element, specs)
        found = len(next(iter(inputs.values())))
        room = min(found, MOST_ROWS - rows)
        cut = cut or room < found
        inputs = {name: value[:room] for name, value in inputs.items()}
        parts.append((inputs, None if labels is None else labels[:room]))
        rows += room
    if not parts:
        raise ValueError("`samples` is a data set without a single batch.")
    if cut:
        warnings.warn(
            f"`samples` is a data set: its first {MOST_ROWS:,} rows are used. "
            "Pass arrays to use all of them.",
            stacklevel=3,
        )
    return {
        name: np.concatenate([inputs[name] for inputs, _ in parts])
        for name in specs
    }, _joined([labels for _, labels in parts])


def _joined(labels):
    return None if labels[0] is None else np.concatenate(labels)


def _checked(given, specs):
    given, labels = _parted(given)
    named = _named(given, specs)
    inputs = {name: _input(name, named[name], specs[name]) for name in specs}
    rows = {name: len(value) for name, value in inputs.items()}
    if labels is not None:
        labels = _array("labels", labels)
        if labels.dtype.kind not in "biuf" or not labels.ndim:
            raise ValueError(
                f"The labels of `samples` have dtype {labels.dtype} and shape "
                f"{labels.shape}; expected numbers, a row for each sample. "
                "Leave them out if the model has several outputs."
            )
        _require_finite("labels", labels)
        rows["labels"] = len(labels)
    if len(set(rows.values())) != 1:
        counts = ", ".join(f"{name!r} {count}" for name, count in rows.items())
        raise ValueError(
            f"`samples` holds different numbers of rows: {counts}. Expected "
            "one row of each for every sample."
        )
    return inputs, labels


def _parted(given):
    if not isinstance(given, tuple):
        return given, None
    if len(given) == 1:
        return given[0], None
    if len(given) != 2:
        raise ValueError(
            f"A tuple as `samples` is (inputs, labels), got {len(given)} "
            "entries. Several inputs go into a list or a dict; weights of "
            "samples are not used."
        )
    return given


def _named(given, specs):
    """Returns a dict by the names of the signature, whatever was passed."""
    if isinstance(given, dict):
        if set(given) == set(specs):
            return given
        raise ValueError(
            f"`samples` is a dict with {', '.join(map(repr, given)) or 'none'}"
            f"; the model's inputs are {', '.join(map(repr, specs))}."
        )
    if len(specs) == 1:
        return {next(iter(specs)): given}
    if not isinstance(given, (list, tuple)) or len(given) != len(specs):
        count = f" of {len(given)}" if isinstance(given, (list, tuple)) else ""
        raise ValueError(
            f"`samples` is a {type(given).__name__}{count}, but the model has "
            f"{len(specs)} inputs. Pass a dict with "
            f"{', '.join(map(repr, specs))}, or a list in that order."
        )
    return dict(zip(specs, given, strict=True))


def _input(name, given, spec):
    # A list of one array for one input, as Keras takes it.
    nested = isinstance(given, (list, tuple)) and len(given) == 1
    if nested and np.ndim(given[0]) == len(spec.shape):
        given = given[0]
    array = _array(name, given)
    shape = tuple(spec.shape[1:])
    if array.ndim == 0 or array.shape[1:] != shape:
        raise ValueError(
            f"`samples` for {name!r} have shape {array.shape}, expected "
            f"{('rows', *shape)}. {_mend(array.shape, shape)}"
        )
    if not len(array):
        raise ValueError(f"`samples` for {name!r} have no rows.")
    _require_kind(name, array, spec.dtype)
    dtype = tf.as_dtype(spec.dtype)
    if dtype.is_integer and (
        array.max() > dtype.max or array.min() < dtype.min
    ):
        raise ValueError(
            f"`samples` for {name!r} hold {array.min()} to {array.max()}, "
            f"beyond {dtype.name}."
        )
    with np.errstate(over="ignore"):
        array = array.astype(dtype.as_numpy_dtype)
    _require_finite(name, array)
    return array


def _array(name, given):
    if isinstance(given, (tf.RaggedTensor, tf.SparseTensor)):
        raise ValueError(
            f"`samples` for {name!r} are a {type(given).__name__}: a signature "
            "takes dense rows of one shape. Call `.to_tensor()` or "
            "`tf.sparse.to_dense` first."
        )
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ValueError(
            f"`samples` for {name!r} are ragged or no array: {error} Expected "
            "rows of one shape."
        ) from error
    # bfloat16 and its kind are numbers that numpy calls void.
    known = array.dtype.kind in "biuf" or array.dtype.name == "bfloat16"
    if not known:
        raise ValueError(
            f"`samples` for {name!r} are {_kind(given, array)}, expected "
            "arrays of numbers. Turn text into numbers before the model."
        )
    return array


def _kind(given, array):
    strings = array.dtype.kind in "SU" or (
        array.size and isinstance(array.flat[0], (str, bytes))
    )
    return "strings" if strings else f"a {type(given).__name__}"


def _require_kind(name, array, dtype):
    dtype = tf.as_dtype(dtype)
    kind = "b" if dtype.is_bool else "iu" if dtype.is_integer else "biuf"
    fits = array.dtype.kind in kind or dtype.is_floating
    if not fits:
        raise ValueError(
            f"`samples` for {name!r} have dtype {array.dtype}, expected "
            f"{dtype.name}. Convert them: `.astype({dtype.name!r})`."
        )


def _require_finite(name, array):
    if not np.isfinite(array.astype(np.float64)).all():
        raise ValueError(
            f"`samples` for {name!r} hold NaN or infinity in "
            f"{array.dtype.name}: nothing can be compared then."
        )


def _mend(found, expected):
    if found == expected:
        return "For one sample write `samples[None]`; batch a data set."
    if (*found[1:], 1) == expected:
        return "Add the channel: `samples[..., None]`."
    return "Reshape them as the model was built."
