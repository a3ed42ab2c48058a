"""Weights of classes: those that Keras's `fit` makes of them."""

import numpy as np
import pytest
import tensorflow as tf
from keras.src.trainers.data_adapters import data_adapter_utils

from keras_lottery.training import class_weight

CLASSES = np.array([2, 0, 1, 1, 2, 0, 3])
LABELS = {
    "int": CLASSES,
    "int32": CLASSES.astype("int32"),
    "uint8": CLASSES.astype("uint8"),
    "float": CLASSES.astype("float32"),
    "nearly whole": CLASSES + np.array([0.4, -0.4, 0.3, -0.2, 0, 0.1, 0]),
    "column": CLASSES[:, None],
    "column of floats": CLASSES[:, None].astype("float32"),
    "one-hot": np.eye(4, dtype="float32")[CLASSES],
    "one-hot ints": np.eye(4, dtype="int64")[CLASSES],
    "soft": 0.1 + 0.6 * np.eye(4)[CLASSES],
    "two columns": np.eye(2)[CLASSES % 2],
}
WEIGHTS = [
    {0: 0.5, 1: 1.0, 2: 4.0, 3: 0.0},
    {2: 7.5},
    {9: 3.0},
    {np.int64(1): np.float32(0.25)},
    {},
]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("kind", LABELS)
def test_weights_are_those_of_keras(kind, weights):
    labels = LABELS[kind]
    expected = data_adapter_utils.class_weight_to_sample_weights(
        labels, weights
    )
    for given in (labels, tf.constant(labels)):
        found = class_weight.of_labels(given, weights)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_every_place_of_a_sequence_has_a_weight():
    one_hot = np.eye(4)[CLASSES.reshape(7, 1)]
    found = class_weight.of_labels(one_hot, {2: 5.0})
    expected = np.where(CLASSES == 2, 5.0, 1.0)[:, None]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", LABELS)
def test_weights_of_a_dataset_are_those_of_its_labels(kind):
    labels = LABELS[kind]
    batches = tf.data.Dataset.from_tensor_slices(
        (np.arange(7.0), labels)
    ).batch(3)
    weighed = class_weight.of_dataset(batches, {2: 7.5, 1: 0.5})
    assert int(weighed.cardinality()) == 3
    rows, _, weights = (
        np.concatenate(part) for part in zip(*weighed.as_numpy_iterator())
    )
    assert rows.tolist() == [*range(7)]
    expected = class_weight.of_labels(labels, {2: 7.5, 1: 0.5})
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize(
    "labels",
    [None, {"a": CLASSES}, (CLASSES, CLASSES)],
    ids=["none", "dict", "tuple"],
)
def test_labels_of_several_outputs_are_refused(labels):
    with pytest.raises(ValueError, match="models with one output"):
        class_weight.of_labels(labels, {1: 2.0})


@pytest.mark.parametrize(
    "element",
    [
        np.arange(7.0),
        (np.arange(7.0),),
        (np.arange(7.0), CLASSES, np.ones(7)),
        {"x": np.arange(7.0), "y": CLASSES},
    ],
    ids=["x", "(x,)", "weighted", "dict"],
)
def test_other_datasets_are_refused(element):
    dataset = tf.data.Dataset.from_tensor_slices(element).batch(3)
    with pytest.raises(ValueError, match=r"needs a dataset of \(x, y\)"):
        class_weight.of_dataset(dataset, {1: 2.0})
