"""What counts as a data set, and what is said where it does not."""

import subprocess
import sys

import numpy as np
import pytest

from keras_lottery.data import data_set
from keras_lottery.data.data_set import DataSet


def part(rows, width=3, labels=2):
    """Distinct numbers, and labels that take turns."""
    x = np.arange(rows * width, dtype="float32").reshape(rows, width)
    return x, np.arange(rows) % labels


def parts():
    return [part(6), part(2), part(3)]


def changed(index, x=None, y=None):
    """Good parts, but for the x or y of one."""
    found = parts()
    old = found[index]
    found[index] = (old[0] if x is None else x, old[1] if y is None else y)
    return found


@pytest.mark.parametrize("form", [tuple, list, lambda p: DataSet(*p)])
def test_three_pairs_are_a_data_set(form):
    found = data_set.check(form(parts()))
    assert type(found) is DataSet
    for name, expected in zip(("train", "validation", "test"), parts()):
        x, y = getattr(found, name)
        np.testing.assert_array_equal(x, expected[0])
        np.testing.assert_array_equal(y, expected[1])


def test_arrays_are_not_copied():
    given = parts()
    assert data_set.check(given).train[0] is given[0][0]


def test_lists_and_tensors_become_arrays():
    import tensorflow as tf

    given = [([[1.0], [2.0]], [0, 1])] * 2 + [(tf.ones((2, 1)), tf.ones(2))]
    given[2] = (given[2][0], tf.constant([1, 0]))
    found = data_set.check(given)
    assert all(type(a) is np.ndarray for p in found for a in p)
    assert found.test[1].tolist() == [1, 0]


def test_targets_may_be_floats_of_any_shape():
    given = [(np.zeros((n, 2)), np.zeros((n, 4, 5))) for n in (3, 2, 1)]
    assert data_set.check(given).test[1].shape == (1, 4, 5)


nan = part(6)[0].copy()
nan[2, 1], nan[3, 0] = np.nan, np.inf
ragged = [[1.0, 2.0], [1.0]] * 3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "three pairs .* got NoneType"),
        (np.zeros((3, 2)), "three pairs .* got a ndarray of 3"),
        (parts()[:2], "three pairs .* got a list of 2.*hold out rows"),
        (dict(zip("abc", parts())), "three pairs .* got a dict of 3"),
        ([part(6), part(2), None], r"test part must be a pair .* got NoneType"),
        ([part(6), (1, 2, 3), part(3)], "validation part .* a tuple of 3"),
        (changed(0, y=np.zeros(5, int)), "train part differ in rows: 6 and 5"),
        ([part(6), part(0), part(3)], "validation part is empty"),
        (changed(2, x=[["a", "b", "c"]] * 3), "x of the test part has dtype"),
        (changed(2, y=[None, 1, 2]), "y of the test part has dtype object"),
        (changed(0, x=ragged), "x of the train part is no array"),
        (changed(0, x=1.0), "x of the train part is the single number 1.0"),
        (changed(0, x=nan), "train part holds 2 values that are not finite"),
        (
            [part(6), part(2, width=4), part(3)],
            r"x have shape \(3,\) in the train part and \(4,\) in the valid",
        ),
        (
            changed(2, y=np.zeros((3, 2), int)),
            r"y have shape \(\) in the train part and \(2,\) in the test",
        ),
        (
            changed(2, x=np.zeros((3, 3), "uint8")),
            "x is float32 in the train part and uint8 in the test part",
        ),
    ],
)
def test_errors_say_what_is_wrong(given, expected):
    with pytest.raises(ValueError, match=expected):
        data_set.check(given)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0, 1], [2, 0], [1, 5]], 6),
        ([[0, 1], [0, 7], [1, 1]], 8),
        ([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], None),
        ([[[0], [1]], [[0], [1]], [[0], [1]]], None),
        ([[-1, 1], [1, 1], [1, 1]], None),
        ([[True, False]] * 3, None),
    ],
)
def test_number_of_classes(labels, expected):
    given = [(np.zeros((2, 1)), np.array(each)) for each in labels]
    assert data_set.classes(DataSet(*given)) == expected


def test_a_small_type_of_label_does_not_overflow():
    given = (np.zeros((2, 1)), np.array([0, 255], "uint8"))
    assert data_set.classes(DataSet(given, given, given)) == 256


@pytest.mark.parametrize("shape", [(7, 5, 4, 3), (9, 6), (11,)])
def test_statistics_are_those_of_the_training_part(shape):
    generator = np.random.default_rng(0)
    x = generator.normal(3, 2, shape).astype("float32")
    other = (x + 100, np.zeros(len(x)))
    data = DataSet((x, np.zeros(len(x))), other, other)
    means, stds = data_set.channel_statistics(data)
    channels = x.astype("float64").reshape(-1, shape[-1] if x.ndim > 1 else 1)
    np.testing.assert_allclose(means, channels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stds, channels.std(axis=0), rtol=1e-12)
    assert means.dtype == stds.dtype == np.float64


def test_statistics_over_several_blocks():
    """More than 2**20 pixels, far from zero: float32 sums would be off."""
    x = np.random.default_rng(0).random((3, 1000, 1000, 1)) + 1000
    x = x.astype("float32")
    data = DataSet(*[(x, np.zeros(3))] * 3)
    means, stds = data_set.channel_statistics(data)
    np.testing.assert_allclose(means, x.astype("float64").mean(), rtol=1e-12)
    np.testing.assert_allclose(stds, x.astype("float64").std(), rtol=1e-10)


def test_first_rows():
    data = data_set.check(parts())
    assert data_set.first(data, None) is data
    found = data_set.first(data, 3)
    assert [len(x) for x, _ in found] == [3, 2, 3]
    np.testing.assert_array_equal(found.train[0], data.train[0][:3])
    with pytest.raises(ValueError, match="`rows` must be an int >= 1, got 0"):
        data_set.first(data, 0)


def test_held_out_rows():
    rest, one, two = data_set.hold_out(100, 20, 10)
    assert [len(rest), len(one), len(two)] == [70, 20, 10]
    assert sorted([*rest, *one, *two]) == list(range(100))
    assert all((np.diff(part) > 0).all() for part in (rest, one, two))
    np.testing.assert_array_equal(data_set.hold_out(100, 20)[1], one)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (21, "validation=21 is more than a fifth of the 100 .*validation=20"),
        (0, "`validation` must be an int >= 1, got 0"),
    ],
)
def test_holding_out_the_wrong_number_of_rows(size, expected):
    with pytest.raises(ValueError, match=expected):
        data_set.hold_out(100, size)


def test_digits_need_neither_tensorflow_nor_keras():
    code = """
import sys
import keras_lottery.data.digits as digits
digits.load_digits()
print([n for n in ("tensorflow", "keras") if n in sys.modules])
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert found.stdout.strip() == "[]", found.stderr
