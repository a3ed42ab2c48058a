"""What `fit` is given, made uniform and checked before anything is trained."""

import numbers

import numpy as np
import tensorflow as tf


def as_arrays(data):
    """Returns data with arrays in place of pandas frames and torch tensors.

    A series becomes a column, as in Keras. Neither package is imported.

    Args:
        data: Structure of anything.

    Raises:
        ValueError: A frame whose columns have no common dtype.

    Example:

    >>> import pandas as pd
    >>> as_arrays({"x": pd.Series([1, 2])})["x"].tolist()
    [[1], [2]]
    """
    return tf.nest.map_structure(_as_array, data)


def check_arrays(x, y, sample_weight):
    """Raises a ValueError for lists of numbers, which are no arrays."""
    if x is None or not tf.nest.flatten(x):
        raise ValueError(f"There is nothing to train on: `x` is {x!r}.")
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    for name, data in given.items():
        for leaf in tf.nest.flatten(data):
            if isinstance(leaf, (numbers.Number, str)):
                raise ValueError(
                    f"`{name}` is made of single values ({leaf!r:.40}), and "
                    "`fit` takes arrays, tensors or frames: pass "
                    f"`np.asarray({name})`."
                )


def check_validation(data, steps):
    """Raises a ValueError for what can not be validated on in every epoch.

    Args:
        data: The `validation_data`.
        steps: The `validation_steps`, or None.
    """
    if steps is not None:
        return
    endless = isinstance(data, tf.data.Dataset) and (
        data.cardinality() == tf.data.INFINITE_CARDINALITY
    )
    if endless or hasattr(data, "__next__"):
        ends = "never ends" if endless else "can be read once only"
        raise ValueError(
            f"The validation data, a {type(data).__name__}, {ends}, and is "
            "read in every epoch of every level: pass `validation_steps`, and "
            "data that goes on for ever; or arrays, or a finite dataset."
        )


def length(source, batch_size=None):
    """Returns how many batches an input has.

    Args:
        source: What `fit` got as `x`.
        batch_size: Rows of a batch, where `source` has rows.

    Raises:
        ValueError: It is not known, or there are none.
    """
    count = _batches(source, batch_size or 32)
    if count is None or count < 0:
        raise ValueError(
            f"How many batches {type(source).__name__} has is not known, and a "
            "level is so many epochs of so many steps: pass `steps_per_epoch`, "
            "the number of batches of an epoch."
        )
    if count == 0:
        raise ValueError(
            f"There is nothing to train on: {type(source).__name__} has no "
            "batches."
        )
    return count


def _batches(source, batch_size):
    if isinstance(source, tf.data.Dataset):
        return int(source.cardinality())
    if hasattr(source, "num_batches"):  # a PyDataset
        return source.num_batches
    for leaf in tf.nest.flatten(source):  # sparse or ragged rows
        if getattr(leaf, "shape", None):
            return -(-int(leaf.shape[0]) // batch_size)
    try:
        return len(source)  # torch's DataLoader
    except TypeError:
        return None


def _as_array(leaf):
    kind = type(leaf)
    if kind.__module__.split(".")[0] == "torch" and hasattr(leaf, "numpy"):
        if str(leaf.dtype) == "torch.bfloat16":  # NumPy has none
            leaf = leaf.float()
        return leaf.detach().cpu().numpy()
    if kind.__module__.split(".")[0] != "pandas" or kind.__name__ not in (
        "DataFrame",
        "Series",
    ):
        return leaf
    array = leaf.to_numpy()
    text = array.size and all(isinstance(each, str) for each in array.flat)
    if array.dtype == object and not text:
        raise ValueError(
            "The columns of the frame have no dtype of NumPy's in common: "
            f"{sorted({str(each) for each in np.atleast_1d(leaf.dtypes)})}. "
            "Pass `frame.astype('float32')`, or a dict of arrays."
        )
    return array[:, None] if kind.__name__ == "Series" else array
