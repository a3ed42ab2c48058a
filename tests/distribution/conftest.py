"""Four logical devices, which have to be there before TensorFlow starts.

So these tests have a process of their own: `pytest tests/distribution`. Among
others they are skipped.
"""

import contextlib
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery

HERE = pathlib.Path(__file__).parent
DEVICES = 4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def pytest_configure(config):
    """Makes the devices, where only tests of this folder are run."""
    if not all(_is_here(argument, config) for argument in config.args):
        return
    device = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(DEVICES)]
    with contextlib.suppress(RuntimeError):  # TensorFlow has started
        tf.config.set_logical_device_configuration(device, parts)


def _is_here(argument, config):
    path = config.invocation_params.dir / str(argument).split("::")[0]
    return path.resolve().is_relative_to(HERE)


@pytest.fixture(autouse=True)
def four_devices():
    """Skips a test that has one device only."""
    if len(tf.config.list_logical_devices("CPU")) < DEVICES:
        pytest.skip(
            "needs four logical devices, made before TensorFlow starts: run "
            "`python -m pytest tests/distribution` by itself"
        )


class Devices:
    """Strategies on so many devices: one for each number, in this process.

    TensorFlow numbers the groups of devices that sum together from the same
    number in every strategy; two sizes of groups need numbers of their own.
    """

    def __init__(self):
        self._made = {}

    def strategy(self, several):
        """Returns the strategy on so many devices; None for one."""
        if several == 1:
            return None
        if several not in self._made:
            group = {"_collective_key_base": 1000 * several}
            kind = tf.distribute.MirroredStrategy
            of_its_own = type(kind.__name__, (kind,), group)
            names = [f"CPU:{number}" for number in range(several)]
            self._made[several] = of_its_own(names)
        return self._made[several]

    def scope(self, several):
        """Returns the scope of `strategy(several)`."""
        strategy = self.strategy(several)
        return (
            contextlib.nullcontext() if strategy is None else strategy.scope()
        )

    def build(self, several, network, seed=0):
        """Returns what a function builds on so many devices."""
        with self.scope(several):
            keras.utils.set_random_seed(seed)
            return network()

    def pruned(self, several, network, optimizer, *, levels=2, **choices):
        """Returns a compiled pruned model on so many devices.

        Args:
            several: How many.
            network: Function () -> model.
            optimizer: Function () -> optimizer.
            levels: Of 30 % each.
            **choices: `compile_with`, a dict, and those of `lottery.prune`.
        """
        arguments = {"loss": LOSS, "metrics": ["accuracy"]}
        arguments |= choices.pop("compile_with", {})
        model = self.build(several, network)
        schedule = choices.pop(
            "schedule", lottery.IterativePruning(0.3, levels=levels)
        )
        with self.scope(several):
            pruned = lottery.prune(model, schedule, **choices)
            pruned.compile(optimizer(), **arguments)
        return pruned


@pytest.fixture(scope="session")
def devices():
    """Returns what makes models on several devices."""
    return Devices()


class Same:
    """Compares lotteries that should not depend on the number of devices."""

    @staticmethod
    def masks(one, other):
        """Masks of all levels are the same."""
        assert len(one.tickets) == len(other.tickets)
        for mine, theirs in zip(one.tickets, other.tickets, strict=True):
            assert list(mine.mask) == list(theirs.mask)
            for name in mine.mask:
                np.testing.assert_array_equal(
                    mine.mask[name], theirs.mask[name], name
                )

    @staticmethod
    def weights(one, other, tolerance=1e-5):
        """All variables are as close as rounding leaves them."""
        pairs = zip(one.variables, other.variables, strict=True)
        for mine, theirs in pairs:
            if mine.dtype == "bool" or "seed" in mine.path:
                continue
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(mine),
                keras.ops.convert_to_numpy(theirs),
                rtol=0,
                atol=tolerance,
                err_msg=mine.path,
            )

    @staticmethod
    def histories(one, other, tolerance=1e-5):
        """Losses and metrics of every epoch are as close."""
        assert list(one.history) == list(other.history)
        for name, column in one.history.items():
            np.testing.assert_allclose(
                column, other.history[name], 0, tolerance, err_msg=name
            )

    def all(self, one, other, tolerance=1e-5):
        """Masks, weights, and what the last `fit` has told."""
        self.masks(one, other)
        self.weights(one, other, tolerance)
        self.histories(one.history, other.history, tolerance)


@pytest.fixture(scope="session")
def same():
    """Returns what compares lotteries."""
    return Same()
