"""Probes: what is drawn, how far answers are apart, what users may pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.exporting import given_samples
from keras_lottery.exporting import network as networks
from keras_lottery.exporting import probe

RANDOM = np.random.default_rng(0)
SPECS = {
    "a": tf.TensorSpec((None, 3, 2), "float32"),
    "b": tf.TensorSpec((None, 5), "int32"),
    "c": tf.TensorSpec((None,), "bool"),
    "d": tf.TensorSpec((None, 5), "bfloat16"),
}


def one_input():
    return keras.Sequential(
        [keras.Input((4,), name="pixels"), keras.layers.Dense(2)]
    )


def two_inputs():
    left = keras.Input((4,), name="left")
    right = keras.Input((2,), name="right", dtype="int32")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(3, 2)(right))
    both = keras.layers.Concatenate()([left, embedded])
    return keras.Model(
        {"right": right, "left": left}, keras.layers.Dense(1)(both)
    )


def test_a_batch_has_the_dtypes_and_shapes_of_the_signature():
    drawn = probe.batch(SPECS, rows=7)
    for name, spec in SPECS.items():
        assert drawn[name].shape == (7, *spec.shape[1:])
        assert drawn[name].dtype == spec.dtype.as_numpy_dtype


def test_a_batch_is_seeded():
    first, again = probe.batch(SPECS, seed=3), probe.batch(SPECS, seed=3)
    other = probe.batch(SPECS, seed=4)
    assert all((first[name] == again[name]).all() for name in SPECS)
    assert (first["a"] != other["a"]).any()
    twins = {"one": SPECS["a"], "two": SPECS["a"]}
    drawn = probe.batch(twins)
    assert (drawn["one"] != drawn["two"]).any()


def test_a_batch_is_standard_normal_and_small():
    drawn = probe.batch(SPECS, rows=4000)
    assert abs(drawn["a"].mean()) < 0.05 and abs(drawn["a"].std() - 1) < 0.05
    assert set(np.unique(drawn["b"])) == {0, 1}
    assert set(np.unique(drawn["c"])) == {False, True}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (tf.TensorSpec((None, 3), "string"), "'x' has dtype string"),
        (tf.TensorSpec((None, None), "float32"), "only its first"),
    ],
)
def test_a_batch_of_other_inputs_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        probe.batch({"x": spec})


def brute_force(expected, found):
    largest = 0.0
    for one, other in zip(expected.ravel().tolist(), found.ravel().tolist()):
        apart = 0.0 if one == other else abs(one - other)
        largest = max(largest, float("inf") if apart != apart else apart)
    return largest


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "bool"])
def test_the_largest_difference_is_that_of_a_loop(dtype):
    drawn = RANDOM.normal(0, 3, (2, 6, 4))
    expected, found = (drawn > 0 if dtype == "bool" else drawn).astype(dtype)
    answer = probe.largest_difference({"x": expected}, {"x": found})["x"]
    assert answer["largest_difference"] == brute_force(expected, found) > 0
    largest = max(abs(each) for each in expected.ravel().tolist())
    assert answer["largest_output"] == largest
    assert answer["relative"] == answer["largest_difference"] / largest


@pytest.mark.parametrize(
    ("expected", "found", "difference", "relative"),
    [
        ([1, np.nan], [1, np.nan], np.inf, np.inf),
        ([1, 2], [1, np.nan], np.inf, np.inf),
        ([1, np.nan], [1, 2], np.inf, np.inf),
        ([4, -np.inf], [3, -np.inf], 1, 0.25),
        ([4, np.inf], [4, -np.inf], np.inf, np.inf),
        ([0, 0], [0, 0], 0, 0),
        ([0, 0], [0, 0.5], 0.5, np.inf),
        ([], [], 0, 0),
    ],
)
def test_what_is_not_finite(expected, found, difference, relative):
    arrays = [np.float32([each]) for each in (expected, found)]
    answer = probe.largest_difference(*({"x": each} for each in arrays))["x"]
    assert answer["largest_difference"] == difference
    assert answer["relative"] == relative


def test_answers_of_another_form_are_no_answers():
    one = np.zeros((2, 3), np.float32)
    for other in (one.astype(np.float64), one[:, :2], one.ravel()):
        with pytest.raises(ValueError, match="'x' has shape"):
            probe.largest_difference({"x": one}, {"x": other})
    with pytest.raises(ValueError, match=r"\['y'\], expected \['x'\]"):
        probe.largest_difference({"x": one}, {"y": one})


def as_keras(outputs, labels):
    """What a compiled model reports for "accuracy"."""
    shape = outputs.shape[1:]
    model = keras.Sequential([keras.Input(shape), keras.layers.Identity()])
    model.compile(loss=lambda y, z: keras.ops.mean(z), metrics=["accuracy"])
    found = model.evaluate(outputs, labels, verbose=0, return_dict=True)
    return found["accuracy"]


@pytest.mark.parametrize("kind", ["ids", "column", "one_hot", "steps"])
def test_accuracy_of_classes_is_that_of_keras(kind):
    shape = (50, 6, 3) if kind == "steps" else (50, 3)
    outputs = RANDOM.normal(size=shape).astype(np.float32)
    ids = RANDOM.integers(0, 3, shape[:-1])
    labels = {"column": ids[:, None], "one_hot": np.eye(3)[ids]}.get(kind, ids)
    expected = float(as_keras(outputs, labels))
    assert probe.accuracy(outputs, labels) == pytest.approx(expected, abs=1e-6)
    assert 0 < expected < 1


@pytest.mark.parametrize("shape", [(50,), (50, 1)])
def test_accuracy_of_one_unit_is_that_of_keras(shape):
    outputs = RANDOM.uniform(size=(50, 1)).astype(np.float32)
    labels = RANDOM.integers(0, 2, shape)
    expected = float(as_keras(outputs, labels.reshape(50, 1)))
    assert probe.accuracy(outputs, labels) == pytest.approx(expected, abs=1e-6)
    assert probe.accuracy({"out": outputs}, labels.astype(bool)) == (
        probe.accuracy(outputs, labels)
    )


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        (np.zeros((2, 3)), [0, 3], "from 0 to 2, got 0 to 3"),
        (np.zeros((2, 3)), [-1, 0], "from 0 to 2, got -1 to 0"),
        (np.zeros((2, 3)), [0.5, 1], "class numbers"),
        (np.zeros((2, 3)), ["a", "b"], "got <U1"),
        (np.zeros((2, 1)), [0.3, 7.0], "from 0 to 1"),
        (np.zeros((2, 3)), [[0, 1], [1, 0]], r"shape \(2, 2\).* \(2, 3\)"),
        (np.zeros((2, 3)), [0, 1, 2], r"Labels of shape \(3,\)"),
        (np.zeros((0, 3)), [], "have no accuracy"),
        (np.zeros(3), [0, 1, 1], "have no accuracy"),
        (np.full((2, 3), np.nan), [0, 1], "hold NaN"),
        ({"a": np.zeros((1, 1)), "b": 0}, [0], "one output, got 2: 'a', 'b'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(outputs, labels, message):
    with pytest.raises(ValueError, match=message):
        probe.accuracy(outputs, np.asarray(labels))


X = RANDOM.normal(size=(5, 4))
Y = np.arange(5) % 2
LEFT, RIGHT = X, np.arange(10).reshape(5, 2) % 3


@pytest.mark.parametrize(
    "given",
    [
        X,
        X.tolist(),
        [X],
        tf.constant(X),
        (X,),
        {"pixels": X},
        tf.data.Dataset.from_tensor_slices(X).batch(2),
    ],
)
def test_one_input_however_it_is_passed(given):
    inputs, labels = probe.samples(given, one_input())
    assert list(inputs) == ["pixels"] and labels is None
    assert inputs["pixels"].dtype == np.float32
    assert (inputs["pixels"] == X.astype(np.float32)).all()


@pytest.mark.parametrize("data_set", [False, True])
def test_labels_stay_beside_their_rows(data_set):
    given = (X, Y)
    if data_set:
        given = tf.data.Dataset.from_tensor_slices(given).batch(2)
    inputs, labels = probe.samples(given, one_input())
    assert labels.tolist() == Y.tolist()
    assert (inputs["pixels"] == X.astype(np.float32)).all()


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        {"left": LEFT, "right": RIGHT},
        {"right": RIGHT, "left": LEFT},
        [LEFT, RIGHT],
    ],
)
def test_several_inputs_however_they_are_passed(given, labelled):
    model = two_inputs()
    network = networks.of(model)
    names = list(network.specs)
    if isinstance(given, list):  # in the model's order
        given = [dict(left=LEFT, right=RIGHT)[name] for name in names]
    given = (given, Y) if labelled else given
    inputs, labels = probe.samples(given, model)
    assert list(inputs) == names
    again, _ = probe.samples(given, network)
    assert all((again[name] == inputs[name]).all() for name in names)
    assert (inputs["left"] == LEFT.astype(np.float32)).all()
    assert (inputs["right"] == RIGHT).all()
    assert inputs["right"].dtype == np.int32
    assert (labels is not None) == labelled


def test_a_data_set_of_dicts():
    rows = ({"left": LEFT, "right": RIGHT}, Y)
    given = tf.data.Dataset.from_tensor_slices(rows).batch(3)
    inputs, labels = probe.samples(given, two_inputs())
    assert (inputs["right"] == RIGHT).all() and len(labels) == 5


def test_of_a_data_set_the_first_thousand_rows_are_used_and_it_says_so():
    rows = np.arange(4 * 1200).reshape(1200, 4)
    endless = tf.data.Dataset.from_tensor_slices((rows, rows[:, 0])).repeat()
    with pytest.warns(UserWarning, match="first 1,000 rows"):
        inputs, labels = probe.samples(endless.batch(300), one_input())
    assert (inputs["pixels"] == rows[:1000]).all()
    assert (labels == rows[:1000, 0]).all()
    with pytest.warns(UserWarning, match="first 1,000 rows"):
        probe.samples(endless.batch(250), one_input())
    just_over = tf.data.Dataset.from_tensors(rows[:1001])
    with pytest.warns(UserWarning, match="first 1,000 rows"):
        probe.samples(just_over, one_input())


def test_a_thousand_rows_are_all_used_without_a_word(recwarn):
    rows = np.zeros((1000, 4))
    whole = tf.data.Dataset.from_tensor_slices(rows).batch(250)
    inputs, _ = probe.samples(whole, one_input())
    more, _ = probe.samples(np.zeros((1200, 4)), one_input())
    assert (len(inputs["pixels"]), len(more["pixels"])) == (1000, 1200)
    assert not [w for w in recwarn if "rows" in str(w.message)]


def test_numbers_are_turned_into_the_dtype_of_the_signature():
    for kind in ("uint8", "int64", "float16", "bool"):
        inputs, _ = probe.samples(np.ones((2, 4), kind), one_input())
        assert inputs["pixels"].dtype == np.float32
        assert inputs["pixels"].tolist() == [[1.0] * 4] * 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (X[:, :3], r"'pixels' have shape \(5, 3\), expected \('rows', 4\)"),
        (X[0], r"For one sample write `samples\[None\]`"),
        (np.zeros((0, 4)), "have no rows"),
        ({"pixel": X}, "a dict with 'pixel'; the model's inputs are 'pixels'"),
        (np.full((2, 4), np.nan), "hold NaN or infinity in float32"),
        (np.full((2, 4), 1e300), "hold NaN or infinity in float32"),
        (np.full((2, 4), "a"), "are strings"),
        (np.full((2, 4), b"a", object), "are strings"),
        ([[1, 2, 3, 4], [1, 2]], "are ragged"),
        (tf.ragged.constant([[1.0, 2], [3.0]]), "a RaggedTensor"),
        (iter([X]), "are a list_iterator"),
        ((X, Y, Y), r"\(inputs, labels\), got 3"),
        ((X, Y[:4]), "rows: 'pixels' 5, 'labels' 4"),
        ((X, np.full(5, np.nan)), "'labels' hold NaN"),
        ((X, {"out": Y}), "'labels' are a dict"),
        ((X, 1), r"shape \(\)"),
        (tf.data.Dataset.from_tensor_slices(X), "batch a data set"),
        (tf.data.Dataset.from_tensor_slices(X[:0]).batch(2), "single batch"),
    ],
)
def test_samples_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        probe.samples(given, one_input())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (X, "a ndarray, but the model has 2 inputs"),
        ([X], "a list of 1, but"),
        ({"left": X}, "the model's inputs are"),
        ({"left": LEFT, "right": RIGHT + 0.5}, "float64, expected int32"),
        ({"left": LEFT, "right": RIGHT + 2**40}, "beyond int32"),
        ({"left": LEFT, "right": RIGHT[:3]}, "'right' 3"),
    ],
)
def test_several_inputs_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        probe.samples(given, two_inputs())


def test_the_channel_is_named_where_only_it_is_missing():
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=r"samples\[\.\.\., None\]"):
        probe.samples(np.zeros((3, 2, 2)), model)
    with pytest.raises(ValueError, match=r"samples\[None\]"):
        probe.samples(np.zeros((2, 2, 1)), model)


def test_it_is_one_function_under_both_names():
    assert probe.samples is given_samples.samples
