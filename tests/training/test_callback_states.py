"""What callbacks have noted comes back, and nothing else does."""

import collections
import io
import json

import keras
import ml_dtypes
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.training import callback_states

X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.float32)[:, None]
A_EPOCH = 6


class Crash(Exception):
    """Stands for a process that is gone."""


def crash_after(calls):
    """Returns a callback that raises after some calls, in no state of its."""
    left = iter(range(calls - 1) if calls else iter(int, 1))

    def count(batch, logs):
        if next(left, None) is None:
            raise Crash

    return keras.callbacks.LambdaCallback(on_train_batch_end=count)


def fit(folder, callback, calls=None, dtype=None, **choices):
    """Trains two levels of three epochs; returns the pruned model."""
    keras.utils.set_random_seed(1)
    dense = keras.layers.Dense(1, dtype=dtype, name="dense")
    model = keras.Sequential([keras.Input((3,)), dense])
    schedule = choices.pop("schedule", None) or lottery.OneShot(0.5)
    pruned = lottery.prune(model, schedule, **choices)
    pruned.compile("sgd", "mse")
    pruned.fit(
        X, Y, epochs=3, batch_size=4, verbose=0, validation_data=(X, Y),
        callbacks=[callback, crash_after(calls)], checkpoint_dir=folder,
        checkpoint_steps=1,
    )  # fmt: skip
    return pruned


def in_two(folder, make, calls, **choices):
    """Returns a model whose training crashed, and its second callback."""
    with pytest.raises(Crash):
        fit(folder, make(), calls, **choices)
    second = make()
    return fit(folder, second, **choices), second


def through_json(callbacks, begun=None):
    """Returns states and arrays as a file gives them back."""
    states, arrays = callback_states.taken(callbacks, begun)
    return json.loads(json.dumps(states)), arrays


def test_bfloat16_is_kept():
    stop, other = (keras.callbacks.EarlyStopping() for _ in range(2))
    values = np.array([1.5, -0.0, np.inf], ml_dtypes.bfloat16)
    stop.best_weights, stop.best = [values], values[0]
    callback_states.put_back([other], *through_json([stop]))
    assert other.best_weights[0].dtype == ml_dtypes.bfloat16
    assert other.best_weights[0].tobytes() == values.tobytes()
    assert (other.best, type(other.best)) == (1.5, ml_dtypes.bfloat16)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_best_weights_are_restored(dtype, tmp_path):
    """Of the epoch before the crash; the epochs after it are no better."""

    def make():
        return keras.callbacks.EarlyStopping(
            "val_loss", patience=9, min_delta=10, restore_best_weights=True
        )

    whole = fit(tmp_path / "whole", make(), dtype=dtype)
    found, _ = in_two(tmp_path / "two", make, A_EPOCH + 3, dtype=dtype)
    assert len(found.tickets) == len(whole.tickets) == 2
    for one, other in zip(found.tickets, whole.tickets, strict=True):
        for name, value in other.end.items():
            assert one.end[name].tobytes() == value.tobytes()


# --------------------------------------------------------- settings, and state


class Logger(keras.callbacks.Callback):
    """Has a path, and counts in an attribute that a parameter has named."""

    def __init__(self, path, other, count=0):
        super().__init__()
        self.path, self._other, self.count = path, other, count

    def on_epoch_end(self, epoch, logs=None):
        """Counts, and notes what was not there before."""
        self.count += 1
        if not hasattr(self, "first"):
            self.first = epoch


def test_what_a_script_says_stays():
    """Other paths are no state; a counter that moved is."""
    one, two = Logger("old", ["old"]), Logger("new", ["new"])
    begun = callback_states.given([one])
    one.on_epoch_end(4)
    callback_states.put_back([two], *through_json([one], begun))
    assert (two.path, two._other, two.count, two.first) == (
        "new",
        ["new"],
        1,
        4,
    )


def test_what_changed_once_is_state():
    """Also when it comes back to the value that it began with."""
    one, two, three = (Logger("path", [], 5) for _ in range(3))
    begun = callback_states.given([one])
    assert len(callback_states.taken([one], begun)[0][0]) == 0
    one.count = 6
    changed = through_json([one], begun)
    one.count = 5
    assert through_json([one], begun)[0] == [[["count", ["value", 5]]]]
    begun = callback_states.given([two])
    callback_states.put_back([two], *changed, begun)
    two.count = 5
    three.count = 0
    callback_states.put_back([three], *through_json([two], begun))
    assert three.count == 5


def test_paths_stay_and_counters_go_on(tmp_path):
    paths = iter(("old", "new"))

    def make():
        return Logger(next(paths), [0])

    _, second = in_two(tmp_path, make, 2 * A_EPOCH + 1)
    assert (second.path, second.count, second.first) == ("new", 6, 0)


def test_methods_are_not_overwritten():
    """Whatever a folder says."""

    class Own(Logger):
        level = None  # a default of the class is state

        @property
        def rate(self):
            return 0.5

    own = Own("a", [])
    names = ["on_epoch_end", "rate", "set_model", "__class__", "level"]
    callback_states.put_back([own], [[[n, ["value", 3]] for n in names]], {})
    assert (own.rate, own.level, type(own)) == (0.5, 3, Own)
    assert set(vars(own)) - set(vars(Own("a", []))) == {"level"}


class Mean(keras.callbacks.Callback):
    """Has state of several kinds."""

    def __init__(self):
        super().__init__()
        self.last, self.seen = collections.deque([1]), {1}
        self.plain = {"a": [np.ones(2), (1, "b", None)]}
        self.file, self.call, self.module = io.StringIO(), len, json

    def on_epoch_begin(self, epoch, logs=None):
        """Makes more of it."""
        self.late = collections.OrderedDict()


def test_what_is_not_kept_is_named():
    assert callback_states.left_out([Mean()]) == ["Mean.last", "Mean.seen"]
    keras_own = keras.callbacks.History()
    keras_own.odd = {1}
    assert callback_states.left_out([keras_own]) == []


def test_it_is_named_once(tmp_path, caplog):
    fit(tmp_path, Mean())
    said = [r.message for r in caplog.records if "Not kept" in r.message]
    assert len(said) == 2
    assert "goes on: Mean.last, Mean.seen. Numbers" in said[0]
    assert "goes on: Mean.late. Numbers" in said[1]


# ------------------------------------------------------------ numbers of steps


class Numbers(keras.callbacks.Callback):
    """Notes the numbers of batches, begun and done."""

    def __init__(self):
        super().__init__()
        self.begun, self.done = [], []

    def on_train_batch_begin(self, batch, logs=None):
        """Notes one."""
        self.begun.append(batch)

    def on_train_batch_end(self, batch, logs=None):
        """Notes one."""
        self.done.append(batch)


LEVEL = 3 * [*range(A_EPOCH)]
IN_PLACE = lottery.PolynomialDecay(0.2, 0.7, 2, 14, power=1, frequency=3)
CASES = {
    "weights": ({}, 10, 2 * LEVEL),
    "level 1": ({}, 28, 2 * LEVEL),
    # A level that starts inside an epoch calls its first step 0.
    "rewind step": (
        {"rewind_step": 8}, 18 + 2, [*LEVEL, *range(4), *range(A_EPOCH)],
    ),
    "in place": ({"schedule": IN_PLACE}, 9, LEVEL),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_batches_have_the_numbers_they_would_have(name, tmp_path):
    choices, calls, expected = CASES[name]
    whole = fit(tmp_path / "whole", Numbers(), **choices)
    found, second = in_two(tmp_path / "two", Numbers, calls, **choices)
    assert second.begun == second.done == expected
    assert len(found.tickets) == len(whole.tickets)
    for one, other in zip(found.tickets, whole.tickets, strict=True):
        assert one.mask == other.mask
        assert one.end["dense/kernel"].tobytes() == (
            other.end["dense/kernel"].tobytes()
        )
