"""Measuring a set: what `evaluate` says, faster."""

import keras
import numpy as np
import pytest

from keras_lottery.training import measure


def regression():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(
                2, kernel_regularizer=keras.regularizers.L2(0.1)
            ),
        ]
    )
    model.compile("sgd", "mse", metrics=["mae", "mape", "cosine_similarity"])
    return model


def classifier():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")
    model.compile("sgd", loss, metrics=["accuracy", top])
    return model


def rows(count, targets):
    rng = np.random.default_rng(count)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    if targets:
        return x, rng.normal(size=(count, targets)).astype(np.float32)
    return x, rng.integers(0, 3, count)


@pytest.mark.parametrize(("count", "batch_size"), [(25, 10), (7, 1000)])
@pytest.mark.parametrize(
    ("build", "targets"), [(regression, 2), (classifier, 0)]
)
def test_it_is_what_evaluate_says(build, targets, count, batch_size):
    model, (x, y) = build(), rows(count, targets)
    found = measure.measure_on(model, (x, y), batch_size)()
    expected = model.evaluate(
        x, y, batch_size=batch_size, return_dict=True, verbose=0
    )
    assert found.keys() == expected.keys()
    assert all(type(value) is float for value in found.values())
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_smaller_last_batch_counts_by_its_rows():
    model, (x, y) = classifier(), rows(25, 0)
    found = measure.measure_on(model, (x, y), 10)()
    right = model.predict(x, verbose=0).argmax(1) == y
    assert found["accuracy"] == pytest.approx(right.mean(), abs=1e-6)


def test_nothing_is_left_from_one_measurement_to_the_next():
    model, (x, y) = classifier(), rows(25, 0)
    measure_both = measure.measure_on(model, (x, y), 10)
    other = measure.measure_on(model, rows(9, 0))
    first = measure_both()
    other()
    assert measure_both() == first
    model.evaluate(*rows(13, 0), verbose=0)
    assert measure_both() == first


def test_it_sees_the_weights_as_they_are_then():
    model, (x, y) = classifier(), rows(25, 0)
    measured = measure.measure_on(model, (x, y), 10)
    before = measured()
    for variable in model.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    assert measured()["loss"] == pytest.approx(np.log(3), rel=1e-6)
    assert before["loss"] != measured()["loss"]


def test_it_leaves_the_model_as_it_was():
    model, (x, y) = regression(), rows(25, 2)
    before = [v.numpy().copy() for v in model.weights]
    measure.measure_on(model, (x, y), 10)()
    for value, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())
