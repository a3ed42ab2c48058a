"""The rows of any step are a function of (seed, step)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.training import feeds
from keras_lottery.training.array_feed import ArrayFeed
from keras_lottery.training.feeds import DatasetFeed
from keras_lottery.training.feeds import Epochs
from keras_lottery.training.feeds import KerasFeed

ROWS = 23


def numbers(rows=ROWS):
    """Row i holds the number i."""
    return np.arange(rows, dtype="float32")[:, None]


def feed_of(data, batch_size=5, steps=None, shuffle=True, seed=3):
    return ArrayFeed(data, batch_size, steps, shuffle, seed)


def yielded(feed, step=0):
    """The rows of each batch of one pass over the dataset."""
    feed.start_epoch(step)
    dataset = feed.arguments(step)["x"]
    return [batch.numpy().ravel().astype(int).tolist() for batch in dataset]


def by_step(feed, first, count):
    return [feed.rows(step).numpy().tolist() for step in range(first, count)]


def test_epochs():
    epochs = Epochs(per_epoch=4, count=3)
    assert epochs.steps == 12
    assert [epochs.place(s) for s in (0, 3, 4, 11)] == [
        (0, 0), (0, 3), (1, 0), (2, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_every_pass_is_a_permutation(batch_size):
    feed = feed_of(numbers(), batch_size)
    per_pass = -(-ROWS // batch_size)
    assert feed.per_epoch == per_pass
    for number in range(3):
        rows = sum(
            by_step(feed, number * per_pass, (number + 1) * per_pass), []
        )
        assert sorted(rows) == list(range(ROWS))


def test_the_last_batch_of_a_pass_is_smaller():
    feed = feed_of(numbers())
    sizes = [len(rows) for rows in by_step(feed, 0, 10)]
    assert sizes == [5, 5, 5, 5, 3] * 2


def test_passes_and_seeds_differ_and_repeat():
    feed = feed_of(numbers())
    one, two = by_step(feed, 0, 5), by_step(feed, 5, 10)
    assert one != two
    assert by_step(feed_of(numbers()), 0, 5) == one
    assert by_step(feed_of(numbers(), seed=4), 0, 5) != one
    assert sum(one, []) != list(range(ROWS))


def test_a_large_seed_is_not_cut_to_another():
    high = 2**31 - 1
    one = by_step(feed_of(numbers(), seed=high), 0, 5)
    assert one != by_step(feed_of(numbers(), seed=high - 1), 0, 5)


def test_a_step_can_be_a_tensor_inside_a_function():
    feed = feed_of(numbers())
    rows = tf.function(feed.rows)
    for step in (0, 4, 7):
        found = rows(tf.constant(step)).numpy().tolist()
        assert found == feed.rows(step).numpy().tolist()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("first", [0, 3, 5, 13])
def test_the_dataset_yields_the_rows_of_the_steps(shuffle, first):
    feed = feed_of(numbers(), shuffle=shuffle)
    assert yielded(feed, first) == by_step(feed, first, first + 5)


def test_without_shuffling_the_rows_come_in_order():
    feed = feed_of(numbers(), shuffle=False)
    assert sum(yielded(feed), []) == list(range(ROWS))
    assert yielded(feed, 5) == yielded(feed, 0)
    assert yielded(feed, 4)[0] == [20, 21, 22]


def test_epochs_of_another_length_go_on_through_the_passes():
    feed = feed_of(numbers(), steps=3)
    assert feed.per_epoch == 3
    assert yielded(feed, 0) + yielded(feed, 3) == by_step(feed, 0, 6)
    longer = feed_of(numbers(), steps=7)
    assert yielded(longer, 0) == by_step(feed, 0, 7)


def test_one_row():
    feed = feed_of(numbers(1), batch_size=4)
    assert by_step(feed, 0, 3) == [[0], [0], [0]]


def test_shapes_are_static_where_batches_are_whole():
    spec = feed_of(numbers(20)).arguments(0)["x"].element_spec
    assert spec.shape.as_list() == [5, 1]
    spec = feed_of(numbers(23)).arguments(0)["x"].element_spec
    assert spec.shape.as_list() == [None, 1]


def test_fit_sees_the_rows_of_the_steps():
    seen = []

    class Watching(keras.Model):
        def train_step(self, data):
            seen.append(data.numpy().ravel().astype(int).tolist())
            return {"loss": 0.0}

    feed = feed_of(numbers())
    model = Watching()
    model.compile("sgd", run_eagerly=True)
    starts = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: feed.start_epoch(epoch * 5)
    )
    model.fit(**feed.arguments(0), epochs=3, verbose=0, callbacks=[starts])
    assert seen == by_step(feed, 0, 15)


def dtypes_of(feed):
    spec = feed.arguments(0)["x"].element_spec
    return [each.dtype for each in tf.nest.flatten(spec)]


def test_float64_becomes_float32_and_the_rest_stays():
    data = (
        np.zeros((4, 1), "float64"),
        np.zeros(4, "int64"),
        np.zeros(4, "uint8"),
        np.zeros(4, bool),
        np.zeros(4, "float32"),
    )
    expected = [tf.float32, tf.int64, tf.uint8, tf.bool, tf.float32]
    assert dtypes_of(feed_of(data)) == expected


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 1), "float16"),
        tf.zeros((4, 1), tf.float16),
        tf.zeros((4, 1), tf.float64),
    ],
    ids=["float16", "float16 tensor", "float64 tensor"],
)
def test_any_float_becomes_floatx_as_in_fit_of_keras(array):
    expected = []

    class Watching(keras.Model):
        def train_step(self, data):
            expected.append(data.dtype)
            return {"loss": 0.0}

    model = Watching()
    model.compile("sgd", run_eagerly=True)
    model.fit(array, verbose=0)
    assert dtypes_of(feed_of(array)) == expected == [tf.float32]


def test_dicts_and_tuples_keep_their_structure():
    x = {"b": numbers(), "a": 10 * numbers()}
    feed = feed_of((x, numbers()[:, 0]))
    feed.start_epoch(0)
    inputs, labels = next(feed.arguments(0)["x"].as_numpy_iterator())
    assert set(inputs) == {"a", "b"}
    assert labels.tolist() == feed.rows(0).numpy().tolist()
    assert (inputs["b"][:, 0] == labels).all()
    assert (inputs["a"][:, 0] == 10 * labels).all()


def test_rows_that_differ_in_number_are_refused():
    with pytest.raises(ValueError, match=r"differ in rows: \[22, 23\]"):
        feed_of((numbers(), numbers(22)))


def made(x, y=None, **arguments):
    given = {
        "sample_weight": None,
        "batch_size": None,
        "steps_per_epoch": None,
        "shuffle": True,
        "seed": 0,
        **arguments,
    }
    return feeds.make(x, y, **given)


def test_make_chooses_by_the_input():
    dataset = tf.data.Dataset.range(3).batch(1)
    assert type(made(numbers(), numbers())) is ArrayFeed
    assert type(made(tf.zeros((4, 1)))) is ArrayFeed
    assert type(made({"a": numbers()}, numbers())) is ArrayFeed
    assert type(made(dataset)) is DatasetFeed
    assert type(made(Sequence())) is KerasFeed
    assert type(made(iter([1]), steps_per_epoch=2)) is KerasFeed


def test_batches_have_32_rows_where_nothing_is_said():
    assert made(numbers(100)).per_epoch == 4
    assert made(numbers(100), batch_size=10).per_epoch == 10
    assert made(numbers(100), steps_per_epoch=7).per_epoch == 7


def test_weights_of_samples_come_third():
    feed = made(numbers(), numbers(), sample_weight=numbers()[:, 0])
    assert len(feed.arguments(0)["x"].element_spec) == 3


class Sequence(keras.utils.PyDataset):
    """Six batches."""

    @property
    def num_batches(self):
        return 6

    def __getitem__(self, index):
        return np.full((2, 1), index, "float32")


class Endless(Sequence):
    @property
    def num_batches(self):
        return None


def batches(count):
    return tf.data.Dataset.range(count).batch(1)


def test_length_of_an_input():
    assert DatasetFeed(batches(6), None).per_epoch == 6
    assert DatasetFeed(batches(6), 4).per_epoch == 4
    assert DatasetFeed(batches(6).repeat(), 4).per_epoch == 4
    assert KerasFeed(Sequence(), None, {}).per_epoch == 6
    assert KerasFeed(Endless(), 5, {}).per_epoch == 5


@pytest.mark.parametrize(
    "source",
    [
        batches(6).repeat(),
        batches(6).filter(lambda number: True),
        Endless(),
        iter([1]),
    ],
    ids=["endless", "unknown", "PyDataset", "generator"],
)
def test_an_unknown_length_is_an_error(source):
    with pytest.raises(ValueError, match="pass `steps_per_epoch`"):
        made(source)


def test_a_dataset_goes_to_keras_as_it_is():
    dataset = batches(6)
    feed = DatasetFeed(dataset, None)
    for step in (0, 6, 12):
        arguments = feed.arguments(step)
        assert arguments["x"] is dataset
        assert arguments["steps_per_epoch"] is None
    feed.start_epoch(3)
    assert len(list(feed.arguments(0)["x"])) == 6


@pytest.mark.parametrize("step", [2, 8])
def test_a_dataset_can_start_inside_an_epoch(step):
    arguments = DatasetFeed(batches(6), None).arguments(step)
    assert arguments["steps_per_epoch"] == 6
    found = [int(b[0]) for b in arguments["x"].take(13)]
    assert found == [2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 2]


@pytest.mark.parametrize(("length", "step"), [(6, 2), (6, 4), (6, 9), (-1, 9)])
def test_epochs_of_another_length_start_where_level_0_was(length, step):
    """Epochs of 4 of a dataset of 6, or of an endless one: step 9 is row 9."""
    endless = [row % 6 for row in range(40)]
    dataset = batches(6) if length > 0 else batches(6).repeat()
    arguments = DatasetFeed(dataset, 4).arguments(step)
    assert arguments["steps_per_epoch"] == 4
    found = [int(b[0]) for b in arguments["x"].take(13)]
    assert found == endless[step : step + 13]


def test_other_inputs_start_at_epochs_only():
    source = Sequence()
    feed = KerasFeed(source, None, {"shuffle": False})
    assert feed.arguments(12)["x"] is source
    assert feed.arguments(12)["shuffle"] is False
    with pytest.raises(ValueError, match="Step 8 lies inside an epoch of 6"):
        feed.arguments(8)


def test_make_hands_on_what_keras_needs():
    feed = made(Sequence(), shuffle=False)
    arguments = feed.arguments(0)
    assert arguments["shuffle"] is False
    assert arguments["y"] is None
    assert "batch_size" not in arguments


def test_split_takes_the_last_rows_as_keras_does():
    x, y = numbers(10), numbers(10)[:, 0]
    (x_train, y_train, weights), validation = feeds.split(x, y, None, 0.25)
    assert x_train[:, 0].tolist() == list(range(7))
    assert y_train.tolist() == list(range(7))
    assert weights is None
    assert [len(v) for v in validation] == [3, 3]
    assert validation[1].tolist() == [7, 8, 9]


def test_split_of_dicts_and_weights():
    x, y = {"a": numbers(10), "b": numbers(10)}, numbers(10)
    train, validation = feeds.split(x, y, y[:, 0], 0.5)
    assert [len(train[0]["a"]), len(train[1]), len(train[2])] == [5, 5, 5]
    assert validation[0]["b"][:, 0].tolist() == [5, 6, 7, 8, 9]
    assert validation[2].tolist() == [5, 6, 7, 8, 9]


def test_split_of_inputs_without_labels():
    _, validation = feeds.split(numbers(10), None, None, 0.5)
    assert len(validation) == 1


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_split_leaves_no_part_empty(fraction):
    with pytest.raises(ValueError, match="leaves one part empty"):
        feeds.split(numbers(3)[:1], None, None, fraction)


def test_split_needs_arrays():
    with pytest.raises(ValueError, match="pass `validation_data` instead"):
        feeds.split(batches(6), None, None, 0.5)


def noisy(inputs, seed):
    """Adds a number below one: rows stay legible."""
    shape = tf.shape(inputs)
    return inputs + tf.random.stateless_uniform(shape, seed, maxval=0.9)


def augmented(first, seed=3, data=None):
    data = numbers() if data is None else data
    feed = ArrayFeed(data, 5, None, True, seed, augment=noisy)
    feed.start_epoch(first)
    return list(feed.arguments(first)["x"].as_numpy_iterator())


def test_a_step_is_augmented_alike_wherever_the_feed_started():
    whole = augmented(0) + augmented(5) + augmented(10)
    for step in (0, 1, 4, 7, 10):
        for batch, expected in zip(augmented(step), whole[step:]):
            np.testing.assert_array_equal(batch, expected)


def test_augmentation_leaves_the_rows_of_the_steps():
    feed = feed_of(numbers())
    found = [np.floor(b).ravel().astype(int).tolist() for b in augmented(0)]
    assert found == by_step(feed, 0, 5)


def test_augmentation_differs_by_step_and_seed():
    fractions = [
        tuple((batch % 1)[:3].ravel().tolist())
        for seed in (3, 4)
        for first in (0, 5)
        for batch in augmented(first, seed)
    ]
    assert len(set(fractions)) == 20


def test_only_the_inputs_are_augmented():
    ones = np.ones(ROWS, "float32")
    feed = feed_of(numbers())
    inputs, labels, weights = augmented(0, data=(numbers(), numbers(), ones))[0]
    assert (inputs != labels).any()
    assert labels.ravel().tolist() == feed.rows(0).numpy().tolist()
    assert (weights == 1).all()


def test_inputs_that_are_a_dict_are_augmented_as_one():
    seen = []

    def keep(inputs, seed):
        seen.append((sorted(inputs), seed.shape.as_list()))
        return inputs

    data = ({"a": numbers(), "b": numbers()}, numbers())
    feed = ArrayFeed(data, 5, None, True, 0, augment=keep)
    assert len(list(feed.arguments(0)["x"])) == 5
    assert seen == [(["a", "b"], [2])]


def weighed(y, weights, **more):
    arguments = {"batch_size": 5, "steps_per_epoch": None, "shuffle": True}
    x = numbers()
    return feeds.make(
        x,
        y,
        seed=3,
        class_weight=weights,
        **{"sample_weight": None, **more, **arguments},
    )


def test_class_weights_of_arrays_go_with_their_rows():
    y = np.arange(ROWS) % 3
    feed = weighed(y, {0: 0.25, 2: 8.0})
    assert isinstance(feed, ArrayFeed)
    for step in (0, 4, 7):
        step = tf.constant(step, tf.int64)
        rows, labels, weights = feed.recipe.batch(
            feed.tensors, feed.seeds, step
        )
        np.testing.assert_array_equal(rows[:, 0] % 3, labels)
        expected = np.array([0.25, 1.0, 8.0])[labels.numpy()]
        np.testing.assert_array_equal(weights, expected)


def test_without_class_weights_there_are_none():
    assert len(weighed(np.arange(ROWS) % 3, None).tensors) == 2


def test_class_weights_and_sample_weights_are_too_much():
    with pytest.raises(ValueError, match="not both: multiply"):
        weighed(np.arange(ROWS), {1: 2.0}, sample_weight=np.ones(ROWS))


def test_class_weights_of_several_outputs_are_refused():
    y = {"a": np.arange(ROWS), "b": np.arange(ROWS)}
    with pytest.raises(ValueError, match="models with one output"):
        weighed(y, {1: 2.0})
    with pytest.raises(ValueError, match="models with one output"):
        weighed([*y.values()], {1: 2.0})


def test_class_weights_of_other_inputs_go_to_keras():
    feed = made(Sequence(), class_weight={1: 2.0})
    assert feed.arguments(0)["class_weight"] == {1: 2.0}
