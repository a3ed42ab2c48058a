"""What every kind of model has to do, once: a lottery of two levels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.pruning import weights


@pytest.fixture(autouse=True)
def same_weights():
    """A layer of a few weights may lose all of them, with other ones."""
    keras.utils.set_random_seed(0)


class Watch(keras.callbacks.Callback):
    """Notes removed weights that are not zero, after every step."""

    def __init__(self):
        super().__init__()
        self.leaks, self.levels = [], []

    def on_train_batch_end(self, batch, logs=None):
        """Counts."""
        self.leaks.append(leaks(self.model))
        self.levels.append(self.model.level)


def leaks(pruned):
    """Returns how many removed weights are not zero."""
    named, mask = weights.by_name(pruned.inner), pruned.mask
    return sum(np.count_nonzero(named[n].numpy()[~mask[n]]) for n in mask)


def values(model):
    """Returns copies of all variables, by name."""
    return {
        name: np.array(variable.numpy())
        for name, variable in weights.by_name(model).items()
    }


def same_bits(one, other):
    """Asserts that two dicts of arrays are the same, bit for bit."""
    assert set(one) == set(other)
    for name in one:
        assert np.asarray(one[name]).tobytes() == (
            np.asarray(other[name]).tobytes()
        ), name


def close(one, other, tolerance=1e-6):
    """Asserts that two dicts of arrays differ by rounding only."""
    assert set(one) == set(other)
    for name in one:
        here, there = np.float64(one[name]), np.float64(other[name])
        assert np.abs(here - there).max(initial=0.0) <= tolerance, name


class Played:
    """A lottery of two levels that has been played, and what it showed.

    Args:
        build: Function that returns a new model, the same at every call.
        compiled: Function that compiles a model.
        given: The arguments of `fit`.
        choices: Those of `lottery.prune`.
    """

    def __init__(self, build, compiled, given, **choices):
        self.build, self.compiled, self.given = build, compiled, given
        self.model, self.watch = build(), Watch()
        self.first = values(self.model)
        schedule = lottery.IterativePruning(0.5, levels=2)
        self.pruned = lottery.prune(self.model, schedule, **choices)
        compiled(self.pruned)
        self.history = self.pruned.fit(
            **{"verbose": 0, "shuffle": False, **given},
            callbacks=[self.watch],
        )
        self.tickets = self.pruned.tickets

    def counts(self, sizes, steps):
        """Asserts what is pruned, and to how many weights, and that it held.

        Args:
            sizes: Dict from name to number of weights.
            steps: Steps of a level.
        """
        size = sum(sizes.values())
        assert self.pruned.mask.sizes == sizes
        kept = [ticket.mask.kept for ticket in self.tickets]
        assert kept == [size - round(size * gone) for gone in (0.0, 0.5, 0.75)]
        assert self.watch.leaks == [0] * 3 * steps
        assert self.watch.levels == [0] * steps + [1] * steps + [2] * steps

    def restores(self):
        """Asserts that the ticket gives a fresh model every variable."""
        fresh = self.tickets[-1].restore(self.build(), "end")
        same_bits(values(fresh), values(self.model))
        again = self.tickets[-1].restore(self.build(), "start")
        found, mask = values(again), self.tickets[-1].mask
        for name in found:
            kept = mask[name] if name in mask else np.array(True)
            expected = np.where(kept, self.first[name], 0)
            np.testing.assert_array_equal(found[name], expected, name)

    def level_0_is_keras_s(self, tolerance=1e-6):
        """Asserts that the dense level is what plain Keras trains."""
        plain = self.build()
        self.compiled(plain)
        plain.fit(**{"verbose": 0, "shuffle": False, **self.given})
        ticket = self.tickets[0]
        found = {**ticket.weights("end"), **ticket.end_state}
        close(found, values(plain), tolerance)

    def exports(self, folder, x):
        """Asserts that a compact export answers as the model does."""
        path = lottery.export(self.model, folder / "compact")
        served = tf.saved_model.load(path).signatures["serving_default"]
        names = served.structured_input_signature[1]
        given = x if isinstance(x, dict) else dict(zip(names, [x]))
        asked = served(**{name: tf.constant(given[name]) for name in names})
        expected = keras.tree.flatten(self.model(x, training=False))
        assert len(asked) == len(expected)
        for each in expected:  # whatever the outputs are called
            same_shape = [a for a in asked.values() if a.shape == each.shape]
            off = [float(np.abs(a - each).max()) for a in same_shape]
            assert min(off) < 1e-5


@pytest.fixture
def played():
    """The class `Played`."""
    return Played


@pytest.fixture
def seeded():
    """Function from one that builds to one that always builds the same."""

    def decorate(build):
        def again():
            keras.utils.set_random_seed(1)
            return build()

        return again

    return decorate


@pytest.fixture
def compiled():
    """Function that compiles a classifier of logits."""

    def compile_(model):
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )

    return compile_


@pytest.fixture
def data():
    """Function of a number of rows to x of 5 numbers and labels 0 to 2."""

    def make(rows=24):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(rows, 5)).astype(np.float32)
        return x, rng.integers(0, 3, rows)

    return make
