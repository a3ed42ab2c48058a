"""The digits that ship, against the file they came from."""

import gzip
import importlib.resources

import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.data import digits as module


def _rows_of_the_file():
    folder = importlib.resources.files("keras_lottery.data")
    text = gzip.decompress((folder / "digits.csv.gz").read_bytes()).decode()
    return [tuple(map(int, line.split(","))) for line in text.splitlines()]


def _rows(part):
    images, labels = part
    pixels = np.rint(images.reshape(len(images), 64) * 16).astype(int)
    return [
        (*map(int, p), int(label))
        for p, label in zip(pixels, labels, strict=True)
    ]


def test_the_parts_have_their_sizes_and_hold_every_row_once():
    digits = lottery.load_digits()
    sizes = {name: len(getattr(digits, name)[1]) for name in digits._fields}
    assert sizes == {"train": 1297, "validation": 200, "test": 300}
    found = [row for part in digits for row in _rows(part)]
    assert sorted(found) == sorted(_rows_of_the_file())


def test_images_are_what_networks_expect():
    images, labels = lottery.load_digits().train
    assert images.dtype == np.float32 and images.shape == (1297, 8, 8, 1)
    assert images.min() == 0.0 and images.max() == 1.0
    assert labels.dtype == np.int64 and set(labels) == set(range(10))


def test_every_part_has_its_share_of_each_digit():
    labels = np.array([row[64] for row in _rows_of_the_file()])
    for part in lottery.load_digits():
        share = np.bincount(labels) * len(part[1]) / len(labels)
        assert np.abs(np.bincount(part[1]) - share).max() < 1.5


def test_the_split_is_always_the_same():
    first, again = lottery.load_digits(), lottery.load_digits()
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    # Pinned when the split was made: another one would make results differ.
    assert first.test[1][:10].tolist() == [0, 5, 0, 1, 4, 5, 7, 6, 9, 8]


def test_parts_must_add_up():
    with pytest.raises(ValueError, match="sum to 3, not 4"):
        module.stratified(np.zeros(4), [1, 2], seed=0)


def test_the_licence_ships_with_the_data():
    folder = importlib.resources.files("keras_lottery.data")
    text = (folder / "digits_LICENSE.txt").read_text()
    assert "CC BY 4.0" in text and "Alpaydin" in text
