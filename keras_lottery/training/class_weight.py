"""`class_weight` of Keras's `fit`: a weight for each sample, by its class."""

import keras
import numpy as np
import tensorflow as tf


def of_labels(labels, class_weight):
    """Returns the weights of samples; classes that are not named weigh 1.

    Args:
        labels: Array or tensor of class numbers, of shape (n,) or (n, 1), or
            one-hot of shape (n, ..., classes).
        class_weight: Dict from class number to weight.

    Returns:
        Tensor of shape (n, ...) and dtype `floatx`.

    Raises:
        ValueError: Labels of several outputs.

    Example:

    >>> of_labels([0, 1, 2], {1: 5.0}).numpy().tolist()
    [1.0, 5.0, 1.0]
    """
    several = isinstance(labels, list) and any(map(np.ndim, labels))
    if labels is None or several or isinstance(labels, (dict, tuple)):
        raise ValueError(
            "`class_weight` is for models with one output and labels; got "
            f"labels of {type(labels).__name__}. Pass `sample_weight`."
        )
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank is not None and labels.shape.rank > 1:
        one_hot = labels.shape[-1] != 1
        labels = tf.argmax(labels, -1) if one_hot else labels[..., 0]
    if labels.dtype.is_floating:
        labels = tf.round(labels)
    labels = tf.cast(labels, tf.int64)
    weights = tf.ones(tf.shape(labels), keras.backend.floatx())
    for number, weight in class_weight.items():
        weights = tf.where(
            labels == int(number), tf.cast(weight, weights.dtype), weights
        )
    return weights


def of_dataset(dataset, class_weight):
    """Returns a dataset of (x, y) with the weights of its samples added.

    Raises:
        ValueError: Its elements have weights, or no labels.
    """
    if not isinstance(dataset.element_spec, tuple) or (
        len(dataset.element_spec) != 2
    ):
        raise ValueError(
            "`class_weight` needs a dataset of (x, y); its elements are "
            f"{dataset.element_spec}."
        )
    return dataset.map(
        lambda x, y: (x, y, of_labels(y, class_weight)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
