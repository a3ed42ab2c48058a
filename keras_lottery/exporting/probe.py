"""What an export is asked, and how far its answers are from the model's."""

import numpy as np
import tensorflow as tf

from keras_lottery.exporting.given_samples import samples

__all__ = ["accuracy", "batch", "largest_difference", "samples"]


def batch(specs, rows=16, seed=0):
    """Returns made-up inputs: equal for equal specs, rows and seed.

    Floats are standard normal, in the dtype of the spec. Integers are 0 or 1,
    which the smallest of embeddings has a row for; bools are drawn fairly.

    Args:
        specs: Dict from name to `tf.TensorSpec`, the first dimension free.
        rows: Samples to draw.
        seed: Int; each input is drawn by its own generator.

    Returns:
        Dict from name to array.

    Raises:
        ValueError: A spec has another dtype or another free dimension.

    Example:

    >>> specs = {"pixels": tf.TensorSpec((None, 3), "float16")}
    >>> drawn = batch(specs, rows=2)["pixels"]
    >>> drawn.shape, drawn.dtype.name
    ((2, 3), 'float16')
    """
    return {
        name: _drawn(name, spec, rows, np.random.default_rng([seed, i]))
        for i, (name, spec) in enumerate(specs.items())
    }


def largest_difference(expected, found):
    """Returns how far answers are apart, output by output.

    What is equal differs by 0, an infinity from itself too. A NaN, wherever it
    is, differs by infinity.

    Args:
        expected: Dict from output name to array.
        found: The same names, shapes and dtypes.

    Returns:
        Dict from name to a dict of floats: `largest_difference`,
        `largest_output` (of the finite ones expected) and `relative`, the
        first over the second.

    Raises:
        ValueError: Names, shapes or dtypes differ.

    Example:

    >>> one, other = np.float32([[3, -4]]), np.float32([[3, -3]])
    >>> largest_difference({"logits": one}, {"logits": other})["logits"]
    {'largest_difference': 1.0, 'largest_output': 4.0, 'relative': 0.25}
    """
    if set(expected) != set(found):
        raise ValueError(
            f"The outputs found are {sorted(found)}, expected "
            f"{sorted(expected)}."
        )
    return {
        name: _apart(name, np.asarray(value), np.asarray(found[name]))
        for name, value in expected.items()
    }


def accuracy(outputs, labels):
    """Returns the fraction of right answers, as Keras's "accuracy" counts it.

    Outputs of one unit are compared with 0.5 (logits too: that is what Keras
    does). Of several units the highest wins, the first of equal ones.

    Args:
        outputs: Array of shape (rows, ..., units), or a dict that holds one.
        labels: Class numbers of shape (rows, ...) or (rows, ..., 1), one-hot
            rows of the shape of the outputs, or 0 and 1 for one unit.

    Raises:
        ValueError: Several outputs, NaN among them, or labels that are none
            of these.

    Example:

    >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5
    """
    outputs = _only(outputs)
    labels = np.asarray(labels)
    classes = outputs.shape[-1]
    flat = labels.shape == outputs.shape[:-1]
    if classes == 1 and (flat or labels.shape == outputs.shape):
        _require_classes(labels, 2)
        right = (outputs > 0.5).ravel() == labels.ravel().astype(bool)
    elif flat or labels.shape == (*outputs.shape[:-1], 1):
        _require_classes(labels, classes)
        right = outputs.argmax(-1).ravel() == labels.ravel()
    elif labels.shape == outputs.shape and labels.dtype.kind in "biuf":
        right = outputs.argmax(-1) == labels.argmax(-1)
    else:
        raise ValueError(
            f"Labels of shape {labels.shape} and dtype {labels.dtype} do not "
            f"fit outputs of shape {outputs.shape}. Expected class numbers of "
            f"shape {outputs.shape[:-1]} or one-hot rows of shape "
            f"{outputs.shape}."
        )
    return float(np.mean(right))


def _drawn(name, spec, rows, generator):
    shape = (rows, *spec.shape[1:])
    dtype = tf.as_dtype(spec.dtype)
    if None in shape:
        raise ValueError(
            f"The input {name!r} has shape {spec.shape}; only its first "
            "dimension may be free."
        )
    if dtype.is_floating:
        return generator.standard_normal(shape).astype(dtype.as_numpy_dtype)
    if dtype.is_bool or dtype.is_integer:
        return generator.integers(0, 2, shape).astype(dtype.as_numpy_dtype)
    raise ValueError(
        f"The input {name!r} has dtype {dtype.name}; expected floats, integers "
        "or bools."
    )


def _apart(name, expected, found):
    if (expected.shape, expected.dtype) != (found.shape, found.dtype):
        raise ValueError(
            f"The output {name!r} has shape {found.shape} and dtype "
            f"{found.dtype}, expected {expected.shape} and {expected.dtype}."
        )
    equal = expected == found
    first, second = expected.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        distances = np.where(equal, 0.0, np.abs(first - second))
    distances = np.where(np.isnan(distances), np.inf, distances)
    difference = float(distances.max(initial=0.0))
    finite = np.where(np.isfinite(first), np.abs(first), 0.0)
    largest = float(finite.max(initial=0.0))
    relative = difference / largest if difference and largest else difference
    return {
        "largest_difference": difference,
        "largest_output": largest,
        # Against outputs that are all zero, any difference is without bound.
        "relative": relative if largest or not difference else float("inf"),
    }


def _only(outputs):
    if isinstance(outputs, dict):
        if len(outputs) != 1:
            raise ValueError(
                f"Accuracy is of one output, got {len(outputs)}: "
                f"{', '.join(map(repr, outputs))}. Pass one of them."
            )
        (outputs,) = outputs.values()
    outputs = np.asarray(outputs).astype(np.float64)
    if outputs.ndim < 2 or 0 in outputs.shape:
        raise ValueError(
            f"Outputs of shape {outputs.shape} have no accuracy; expected "
            "(rows, units), at least one of each."
        )
    if np.isnan(outputs).any():
        raise ValueError("The outputs hold NaN: they have no accuracy.")
    return outputs


def _require_classes(labels, classes):
    numbers = labels.dtype.kind in "biuf"
    whole = numbers and bool((labels == np.floor(labels)).all())
    if not whole or labels.min() < 0 or labels.max() >= classes:
        shown = f"{labels.min()} to {labels.max()}" if numbers else labels.dtype
        raise ValueError(
            f"Labels must be class numbers from 0 to {classes - 1}, got "
            f"{shown}. Leave them out if they are no classes."
        )
