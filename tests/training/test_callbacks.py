"""Counting steps, cutting epochs, stopping where training diverges."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.errors import RunError
from keras_lottery.training import callbacks as hooks
from keras_lottery.training.array_feed import ArrayFeed
from keras_lottery.training.feeds import DatasetFeed
from keras_lottery.training.feeds import Epochs

PER_EPOCH = 4


class Recorder(keras.Model):
    """Records the rows it is trained on; its loss is what `losses` says."""

    def __init__(self, losses=None):
        super().__init__()
        self.rows, self.planned = [], losses

    @property
    def metrics(self):
        return []  # else Keras puts its own loss in place of ours

    def train_step(self, data):
        self.rows.append(data.numpy().ravel().astype(int).tolist())
        loss = self.planned[len(self.rows) - 1] if self.planned else 0.5
        return {"loss": loss}

    def test_step(self, data):
        return {"loss": 0.25}


class Playing:
    """One level from `first_step` on, as `tickets/fitting.py` plays it."""

    def __init__(
        self,
        first_step=0,
        epochs=3,
        at=None,
        extra=(),
        losses=None,
        dataset=False,
        validate=False,
        steps_per_execution=1,
    ):
        numbers = np.arange(8, dtype="float32")[:, None]
        self.feed = ArrayFeed(numbers, 2, None, True, seed=1)
        if dataset:
            batches = tf.data.Dataset.from_tensor_slices(numbers).batch(2)
            self.feed = DatasetFeed(batches, None)
        self.epochs = Epochs(PER_EPOCH, epochs)
        self.steps = hooks.Steps(self.feed, self.epochs, first_step, at or {})
        self.curve = hooks.Curve(self.steps)
        self.model = Recorder(losses)
        self.model.compile(
            "sgd",
            run_eagerly=True,
            steps_per_execution=steps_per_execution,
        )
        self.history = self.model.fit(
            **self.feed.arguments(first_step),
            initial_epoch=self.epochs.place(first_step)[0],
            epochs=epochs,
            verbose=0,
            validation_data=numbers if validate else None,
            callbacks=[
                self.steps,
                hooks.StopOnDivergence(self.steps, "level 3"),
                self.curve,
                *extra,
                hooks.CutEpoch(self.steps),
            ],
        )

    def expected(self, first, last):
        return [self.feed.rows(s).numpy().tolist() for s in range(first, last)]


def test_a_level_from_its_start():
    played = Playing()
    assert played.steps.step == 12
    assert played.model.rows == played.expected(0, 12)
    assert [row["step"] for row in played.curve.rows] == [4, 8, 12]


@pytest.mark.parametrize("first", [1, 3, 4, 5, 8, 11])
def test_a_level_from_any_step(first):
    """The rest of a started epoch is trained, and no step more."""
    played = Playing(first)
    assert played.steps.step == 12
    assert played.model.rows == played.expected(first, 12)
    steps = [row["step"] for row in played.curve.rows]
    assert steps == [s for s in (4, 8, 12) if s > first]
    assert not played.steps.cut


@pytest.mark.parametrize("first", [0, 3, 4, 6])
def test_a_level_over_a_dataset_from_any_step(first):
    played = Playing(first, dataset=True)
    rows = [[2 * (s % 4), 2 * (s % 4) + 1] for s in range(first, 12)]
    assert played.model.rows == rows
    assert played.steps.step == 12


def test_calls_back_once_when_so_many_steps_are_done():
    seen = []
    at = {step: lambda s=step: seen.append(s) for step in (1, 4, 7, 12, 99)}
    played = Playing(at=at)
    assert seen == [1, 4, 7, 12]
    assert set(at) == {1, 4, 7, 12, 99}
    assert played.steps.step == 12


def test_what_is_called_back_sees_the_step_done():
    seen = []
    at = {5: lambda: seen.append("five")}
    order = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    Playing(at=at, extra=[order], epochs=2)
    assert seen == [0, 1, 2, 3, "five", 0, 1, 2, 3]


def test_calls_of_several_steps():
    seen = []
    at = {2: lambda: seen.append(2), 8: lambda: seen.append(8)}
    played = Playing(at=at, steps_per_execution=2)
    assert seen == [2, 8]
    assert [row["step"] for row in played.curve.rows] == [4, 8, 12]


class StopAt(keras.callbacks.Callback):
    """Asks to stop at a batch of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            self.model.stop_training = True


@pytest.mark.parametrize("batch", [0, 1])
def test_a_stop_in_the_cut_epoch_stays_a_stop(batch):
    """Batch 1 is the very one after which the epoch is cut."""
    played = Playing(6, extra=[StopAt(1, batch)])
    assert played.model.rows == played.expected(6, 7 + batch)
    assert played.steps.step == 7 + batch
    assert played.model.stop_training


def test_a_stop_at_the_end_of_the_cut_epoch_stays_a_stop():
    def stop(epoch, logs):
        played_model[0].stop_training = True

    played_model = []
    remember = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    remember.set_model = played_model.append
    played = Playing(6, extra=[remember])
    assert played.model.rows == played.expected(6, 8)


def test_early_stopping_acts_within_a_level():
    stopping = keras.callbacks.EarlyStopping("loss", patience=1)
    played = Playing(2, epochs=9, extra=[stopping])
    assert [row["step"] for row in played.curve.rows] == [4, 8]


def test_the_curve_has_every_log_with_its_step():
    played = Playing(validate=True)
    assert played.curve.rows == [
        {"step": step, "loss": 0.5, "val_loss": 0.25} for step in (4, 8, 12)
    ]
    assert all(type(row["loss"]) is float for row in played.curve.rows)


def test_the_curve_leaves_out_what_is_no_number():
    curve = hooks.Curve(hooks.Steps(None, Epochs(4, 1), 3, {}))
    curve.on_epoch_end(0, {"loss": np.float32(1), "matrix": np.ones((2, 2))})
    curve.on_epoch_end(1, None)
    assert curve.rows == [{"step": 3, "loss": 1.0}, {"step": 3}]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_divergence_stops_at_its_step(bad):
    losses = [0.5] * 6 + [bad] + [0.5] * 5
    with pytest.raises(RunError, match=r"at level 3, step 7: loss is"):
        Playing(losses=losses)


def test_finite_losses_and_missing_ones_go_on():
    guard = hooks.StopOnDivergence(hooks.Steps(None, Epochs(4, 1), 0, {}), "x")
    guard.on_train_batch_end(0, None)
    guard.on_train_batch_end(0, {"accuracy": float("nan")})
    guard.on_train_batch_end(0, {"loss": 1e30})


def ignore(steps):
    pass


def test_between_steps_numbers_them_over_epochs():
    begun, done = [], []
    Playing(extra=[hooks.BetweenSteps(begun.append, done.append)])
    assert begun == list(range(12))
    assert done == list(range(1, 13))


def test_between_steps_comes_before_and_after_the_batch():
    order = []
    between = hooks.BetweenSteps(
        lambda steps: order.append(("before", steps)),
        lambda steps: order.append(("after", steps)),
    )

    class Watching(Recorder):
        def train_step(self, data):
            order.append("step")
            return {"loss": 0.0}

    model = Watching()
    model.compile("sgd", run_eagerly=True)
    model.fit(np.zeros((4, 1)), batch_size=2, verbose=0, callbacks=[between])
    assert order == [
        ("before", 0),
        "step",
        ("after", 1),
        ("before", 1),
        "step",
        ("after", 2),
    ]


def test_between_steps_counts_epochs_that_were_stopped_early():
    seen = []
    between = hooks.BetweenSteps(seen.append, ignore)
    for epoch, count in [(0, 2), (1, 3)]:
        between.on_epoch_begin(epoch)
        for batch in range(count):
            between.on_train_batch_begin(batch)
            between.on_train_batch_end(batch)
    assert seen == [0, 1, 2, 3, 4]


def test_between_steps_counts_the_steps_of_a_call():
    done = []
    between = hooks.BetweenSteps(ignore, done.append)
    between.on_epoch_begin(0)
    for last in (7, 15):  # two calls of eight steps
        between.on_train_batch_begin(last - 7)
        between.on_train_batch_end(last)
    between.on_epoch_begin(1)
    between.on_train_batch_begin(0)
    between.on_train_batch_end(3)
    assert done == [8, 16, 20]
