"""tf_keras models through tfmot's wrappers, on several devices as on one."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_lottery as lottery
from keras_lottery.errors import RunError

pytestmark = pytest.mark.thorough

ROWS, BATCH = 120, 20
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 6)).astype("f")
Y = X[:, :3].argmax(1)
LOSS = tf_keras.losses.SparseCategoricalCrossentropy


def network():
    return tf_keras.Sequential(
        [
            tf_keras.Input((6,)),
            tf_keras.layers.Dense(5, activation="tanh", name="hidden"),
            tf_keras.layers.Dense(3, name="output"),
        ]
    )


@pytest.fixture(scope="module")
def made(devices):
    """Returns a function: a compiled pruned model on so many devices."""

    def make(several, optimizer, schedule=None):
        schedule = schedule or lottery.IterativePruning(0.3, levels=2)
        with devices.scope(several):
            tf_keras.utils.set_random_seed(0)
            pruned = lottery.prune(network(), schedule)
            pruned.compile(
                optimizer(), LOSS(from_logits=True), metrics=["accuracy"]
            )
        return pruned

    return make


def momentum():
    return tf_keras.optimizers.SGD(0.1, momentum=0.9)


def adam():
    return tf_keras.optimizers.Adam(0.01)


@pytest.mark.parametrize(
    "optimizer, data",
    [
        (momentum, "arrays"),
        pytest.param(adam, "dataset", marks=pytest.mark.thorough),
    ],
)
def test_as_on_one_device(made, optimizer, data):
    one, many = made(1, optimizer), made(2, optimizer)
    for pruned in (one, many):
        fit = {"epochs": 2, "verbose": 0, "shuffle": False}
        if data == "arrays":
            fit["validation_data"] = X[:30], Y[:30]
            pruned.fit(X, Y, batch_size=BATCH, **fit)
        else:
            rows = tf.data.Dataset.from_tensor_slices((X, Y))
            pruned.fit(rows.batch(BATCH), **fit)
    assert [each.mask.kept for each in one.tickets] == [45, 31, 22]
    for mine, theirs in zip(one.tickets, many.tickets, strict=True):
        for name, value in mine.weights().items():
            np.testing.assert_array_equal(mine.mask[name], theirs.mask[name])
            np.testing.assert_allclose(theirs.weights()[name], value, 0, 1e-5)
    told = [each.history.history for each in (one, many)]
    assert ("val_loss" in told[1]) == (data == "arrays")
    for name in told[0]:
        found = [each[name] for each in told]
        np.testing.assert_allclose(*found, 0, 1e-5)


class Tamper(tf_keras.callbacks.Callback):
    """Changes what the second replica has, in level 1."""

    def __init__(self, what):
        super().__init__()
        self._what, self._trainings = what, 0

    def on_train_begin(self, logs=None):
        """Counts the levels."""
        self._trainings += 1

    def on_train_end(self, logs=None):
        """Changes a sign."""
        if self._trainings == 2:
            (found,) = [
                each
                for each in self.model.variables
                if self._what in each.name and "output" in each.name
            ]
            copy = found.values[1]
            copy.assign(tf.tensor_scatter_nd_add(copy, [[0, 0]], [1e-6]))


@pytest.mark.parametrize("what", ["kernel", "mask"])
def test_a_replica_that_differs_is_noticed(made, what):
    pruned = made(2, momentum)
    told = r"1 variables are not the same on all replicas \(.*output/kernel;"
    with pytest.raises(RunError, match=told):
        pruned.fit(
            *(X, Y),
            batch_size=BATCH,
            epochs=1,
            verbose=0,
            callbacks=[Tamper(what)],
        )
    assert [ticket.level for ticket in pruned.tickets] == [0]


def test_a_ticket_restores_on_one_device(made, devices):
    pruned = made(2, momentum, lottery.OneShot(0.5))
    pruned.fit(X, Y, batch_size=BATCH, verbose=0, shuffle=False)
    ticket = pruned.tickets[-1]
    assert ticket.mask.kept == 23
    plain = lottery.legacy.restore(ticket, network())
    np.testing.assert_allclose(
        plain.predict(X, verbose=0), pruned.predict(X, verbose=0), 0, 1e-6
    )
