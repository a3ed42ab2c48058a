"""Datasets are read as Keras's `fit` reads them: which batch, and when."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.training import feeds
from keras_lottery.training import loop
from keras_lottery.training import step_fit
from keras_lottery.training.streams import Stream

LENGTH = 6
RAN_OUT = "ran out of data"


class Reader(keras.Model):
    """Notes the rows that it is trained on; its one weight counts them."""

    def __init__(self):
        super().__init__()
        self.count = self.add_weight(shape=(), initializer="zeros")
        self.rows = []

    def call(self, inputs):
        return inputs * self.count

    def train_step(self, data):
        def note(batch, done):
            self.rows.append(batch.astype(int).ravel().tolist())
            return np.float32(len(self.rows))

        x = data[0] if isinstance(data, tuple) else data
        # The weight is read and assigned so that steps wait for each other.
        steps = tf.numpy_function(note, [x, self.count.value], tf.float32)
        self.count.assign(tf.ensure_shape(steps, []))
        return {"steps": self.count.value + 0.0}

    @property
    def metrics(self):
        return []  # else Keras puts its own loss in place of ours


def numbered(length=LENGTH):
    """Batch i holds the number i."""
    return tf.data.Dataset.range(length).map(
        lambda i: tf.cast(i[None, None], tf.float32)
    )


def reader():
    model = Reader()
    model.compile("sgd", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def read(how, dataset, steps=None, epochs=3, first=0):
    """Returns (batches seen, epochs' logs, whether it was warned)."""
    model = reader()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if how == "keras":
            history = model.fit(
                dataset, steps_per_epoch=steps, epochs=epochs, verbose=0
            )
        else:
            feed = feeds.DatasetFeed(dataset, steps)
            planned = feeds.Epochs(feed.per_epoch, epochs)
            fit = step_fit.StepFit(model, feed, planned, {"verbose": 0})
            history = fit(first, [])
    warned = [w for w in caught if RAN_OUT in str(w.message)]
    return sum(model.rows, []), history.history, len(warned)


def assert_read_alike(make, steps=None, epochs=3):
    expected = read("keras", make(), steps, epochs)
    found = read("steps", make(), steps, epochs)
    assert found == expected
    return found


def test_without_steps_every_epoch_is_the_whole_dataset():
    rows, history, warned = assert_read_alike(numbered)
    assert rows == [*range(LENGTH)] * 3
    assert history["steps"] == [6, 12, 18] and not warned


@pytest.mark.parametrize("steps", [4, 9])
def test_with_steps_one_iterator_goes_on(steps):
    rows, _, warned = assert_read_alike(lambda: numbered().repeat(), steps)
    assert rows == [n % LENGTH for n in range(3 * steps)]
    assert not warned


def test_steps_of_a_whole_dataset_begin_it_anew():
    rows, _, warned = assert_read_alike(numbered, LENGTH)
    assert rows == [*range(LENGTH)] * 3
    assert not warned


@pytest.mark.parametrize("steps", [4, 5, 7])
def test_running_out_is_warned_of_and_ends_the_epoch(steps):
    """Epochs of 4 of a dataset of 6: 4 batches, 2, and 4 from its start."""
    rows, history, warned = assert_read_alike(numbered, steps)
    assert warned == {4: 1, 5: 1, 7: 3}[steps]
    assert len(history["steps"]) == 3
    if steps == 4:
        assert rows == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]


def unknown(length=LENGTH):
    """A dataset that does not know how long it is."""
    return numbered(length).filter(lambda batch: True)


def test_running_out_of_a_dataset_of_unknown_length():
    assert int(unknown().cardinality()) == tf.data.UNKNOWN_CARDINALITY
    rows, _, warned = assert_read_alike(unknown, 4, epochs=2)
    assert rows == [*range(LENGTH)]
    assert warned == 1


def test_what_ran_out_in_the_midst_of_a_call_loses_no_batch():
    model = reader()
    steps = loop.StepLoop(model)
    steps._per_call, steps._pace = 100, lambda count, seconds: None
    stream = Stream(numbered(), 10)
    stream.start_epoch()
    with pytest.warns(UserWarning, match=RAN_OUT):
        reached, logs = steps.call(stream, 20, 30)
    assert (reached, logs["steps"]) == (26, LENGTH)
    assert stream.ended()
    stream.start_epoch()
    assert not stream.ended()
    assert steps.call(stream, 30, 32)[0] == 32
    assert sum(model.rows, []) == [*range(LENGTH), 0, 1]


def test_the_logs_of_an_epoch_that_ran_out_between_two_calls_stay():
    model = reader()
    feed = feeds.DatasetFeed(numbered(), 4)
    fit = step_fit.StepFit(model, feed, feeds.Epochs(4, 2), {"verbose": 0})
    every = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: None
    )
    with pytest.warns(UserWarning, match=RAN_OUT):
        history = fit(0, [every])  # a call a step: 4, 2 and none
    assert history.history == {"steps": [4.0, 6.0]}


def test_a_dataset_that_reshuffles_does_so_every_epoch():
    def shuffled():
        tf.random.set_seed(5)
        return numbered().shuffle(LENGTH, seed=7, reshuffle_each_iteration=True)

    rows, *_ = read("steps", shuffled())
    orders = [tuple(rows[n : n + LENGTH]) for n in (0, 6, 12)]
    assert len(set(orders)) == 3
    # Keras makes more iterators than it reads: it sees every other order.
    plain = shuffled()
    some = [tuple(int(batch[0, 0]) for batch in plain) for _ in range(8)]
    assert set(orders) <= set(some)
    assert orders[0] == tuple(read("keras", shuffled())[0][:LENGTH])


def test_an_order_that_stays():
    def shuffled():
        tf.random.set_seed(5)
        return numbered().shuffle(
            LENGTH, seed=7, reshuffle_each_iteration=False
        )

    rows, *_ = assert_read_alike(shuffled)
    assert rows[:LENGTH] == rows[LENGTH:12] == rows[12:]
    assert rows[:LENGTH] != [*range(LENGTH)]


@pytest.mark.parametrize("first", [0, 2, 6, 8])
@pytest.mark.parametrize("steps", [None, 4])
def test_it_begins_at_any_step(first, steps):
    dataset = numbered() if steps is None else numbered().repeat()
    epochs = 3
    last = epochs * (steps or LENGTH)
    rows, *_ = read("steps", dataset, steps, epochs, first)
    assert rows == [n % LENGTH for n in range(first, last)]


def generated(begun=None):
    """A generator's dataset, of a length that was told."""

    def make():
        if begun is not None:
            begun.append(True)
        for number in range(LENGTH):
            yield np.full((1, 1), number, "float32")

    spec = tf.TensorSpec((None, 1), tf.float32)
    dataset = tf.data.Dataset.from_generator(make, output_signature=spec)
    return dataset.apply(tf.data.experimental.assert_cardinality(LENGTH))


def test_a_generators_dataset():
    rows, *_ = assert_read_alike(generated)
    assert rows == [*range(LENGTH)] * 3


def test_a_dataset_is_begun_as_often_as_by_keras():
    begun = []
    for how in ("keras", "steps"):
        times = []
        read(how, generated(times))
        begun.append(len(times))
    assert begun[1] == begun[0] == 3


def test_files_are_read(tmp_path):
    for name in range(3):
        lines = f"{2 * name}\n{2 * name + 1}\n"
        (tmp_path / f"{name}.txt").write_text(lines)

    def lines():
        files = sorted(str(each) for each in tmp_path.glob("*.txt"))
        found = tf.data.TextLineDataset(files).batch(2)
        found = found.map(lambda x: tf.strings.to_number(x)[:, None])
        return found.apply(tf.data.experimental.assert_cardinality(3))

    rows, *_ = assert_read_alike(lines)
    assert rows == [*range(6)] * 3


def test_batches_of_any_size():
    def ragged():
        sizes = tf.data.Dataset.from_tensor_slices([1, 4, 2, 3])
        return sizes.map(lambda n: tf.cast(tf.range(n)[:, None], tf.float32))

    assert ragged().element_spec.shape.as_list() == [None, 1]
    rows, *_ = assert_read_alike(ragged)
    assert rows == [0, 0, 1, 2, 3, 0, 1, 0, 1, 2] * 3


def test_one_trace_for_all_streams_of_a_kind():
    model = reader()
    steps = loop.StepLoop(model)
    for length in (6, 4):
        stream = Stream(numbered(length))
        stream.start_epoch()
        reached = 0
        while reached < length:
            reached, _ = steps.call(stream, reached, length)
    (function,) = steps._programs.values()
    assert function.experimental_get_tracing_count() == 1
    assert sum(model.rows, []) == [*range(6), *range(4)]
