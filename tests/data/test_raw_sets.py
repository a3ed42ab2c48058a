"""Sets read from files, against the bytes of the files."""

import collections
import gzip
import struct

import numpy as np
import pytest

from keras_lottery.data import raw_sets
from keras_lottery.data.raw_sets import load_emnist_letters
from keras_lottery.data.raw_sets import load_rt_polarity


def file(name, number):
    """Path of a file of a set, or a skip."""
    if raw_sets.missing(name):
        pytest.skip(f"needs {name}/: let KERAS_LOTTERY_DATA point above it")
    return raw_sets.folder(name) / raw_sets.FILES[name][number]


@pytest.fixture(scope="module")
def letters():
    file("emnist_letters", 0)
    return load_emnist_letters()


def bytes_of(number):
    return gzip.open(file("emnist_letters", number)).read()


def test_letters_are_all_there(letters):
    sizes = [len(y) for _, y in letters]
    assert sizes == [119800, 5000, 20800]
    train = np.concatenate([letters.train[1], letters.validation[1]])
    assert np.bincount(train).tolist() == [4800] * 26
    assert np.bincount(letters.test[1]).tolist() == [800] * 26
    for x, y in letters:
        assert x.shape == (len(y), 28, 28, 1)
        assert x.dtype == np.float32 and y.dtype == np.int64
        assert x.min() == 0 and x.max() == 1


def test_letters_are_those_of_the_files(letters):
    """Pixel by pixel, as the format's description says; transposed."""
    images, labels = bytes_of(2), bytes_of(3)
    assert struct.unpack(">IIII", images[:16]) == (2051, 20800, 28, 28)
    assert struct.unpack(">II", labels[:8]) == (2049, 20800)
    x, y = letters.test
    for number in (0, 1, 9999, 20799):
        assert y[number] == labels[8 + number] - 1
        for down, right in np.ndindex(28, 28):
            at = 16 + 784 * number + 28 * right + down
            assert x[number, down, right, 0] == np.float32(images[at]) / 255


def test_every_training_letter_is_in_one_part(letters):
    images, labels = bytes_of(0), bytes_of(1)
    expected = collections.Counter(
        labels[8 + n : 9 + n] + images[16 + 784 * n : 16 + 784 * (n + 1)]
        for n in range(124800)
    )
    found = collections.Counter()
    for x, y in letters[:2]:
        pixels = np.rint(x[..., 0] * 255).astype("uint8").transpose(0, 2, 1)
        rows = pixels.reshape(len(x), 784)
        found.update(
            bytes([label + 1]) + row.tobytes() for row, label in zip(rows, y)
        )
    assert found == expected


def test_letters_stand_upright(letters):
    """An l (and L) is tall, whichever way it is written."""
    x, y = letters.test
    mean = x[y == 11].mean(axis=0)[..., 0]
    height, width = (mean.mean(axis=a) > 0.1 for a in (1, 0))
    assert height.sum() > width.sum()


def test_few_letters(letters):
    few = load_emnist_letters(rows=100)
    assert [len(y) for _, y in few] == [100] * 3
    for one, all_ in zip(few[:2], letters[:2]):
        np.testing.assert_array_equal(one[0], all_[0][:100])
        np.testing.assert_array_equal(one[1], all_[1][:100])
    # The file is sorted: the first hundred would all be an a.
    assert set(few.test[1]) == set(range(26))
    assert len(load_emnist_letters(rows=10**6).test[1]) == 20800


def test_other_numbers_of_validation_letters():
    file("emnist_letters", 0)
    data = load_emnist_letters(validation=20800, rows=30000)
    assert [len(y) for _, y in data] == [30000, 20800, 20800]
    with pytest.raises(ValueError, match="at most validation=24960"):
        load_emnist_letters(validation=24961)


def sentences(number):
    """Words of each line, as the bytes have them."""
    lines = file("rt_polarity", number).read_bytes().split(b"\n")
    assert lines.pop() == b""
    return [line.decode("latin-1").split() for line in lines]


@pytest.fixture(scope="module")
def reviews():
    file("rt_polarity", 0)
    return load_rt_polarity()


def test_reviews_are_split_evenly(reviews):
    assert [len(y) for _, y in reviews] == [8530, 1066, 1066]
    counts = [np.bincount(y).tolist() for _, y in reviews]
    assert counts == [[4265, 4265], [533, 533], [533, 533]]
    for x, y in reviews:
        assert x.shape == (len(y), 56)
        assert x.dtype == y.dtype == np.int64
        assert x.min() == 0 and x.max() < 10000


def test_every_review_is_in_one_part():
    """With the whole vocabulary, numbers are words: the files come back."""
    expected = [
        (label, *words) for label in (0, 1) for words in sentences(label)
    ]
    data = load_rt_polarity(length=60, words=10**6)
    lengths, labels = [], []
    for x, y in data:
        lengths += (x > 0).sum(axis=1).tolist()
        labels += y.tolist()
        assert ((x > 0) == (np.arange(60) < (x > 0).sum(1)[:, None])).all()
    found = collections.Counter(zip(labels, lengths))
    assert found == collections.Counter((e[0], len(e) - 1) for e in expected)
    # Each number of the training part stands for one word, and only one.
    train = {(int(y), *row[row > 0].tolist()) for row, y in zip(*data.train)}
    assert all(1 not in row[1:] for row in train)
    ranked = collections.Counter(n for row in data.train[0] for n in row if n)
    counts = [ranked[n] for n in sorted(ranked)]
    assert sorted(ranked) == list(range(2, 2 + len(ranked)))
    assert counts == sorted(counts, reverse=True)


def test_the_vocabulary_is_that_of_the_training_part(reviews):
    """Decodes the training part, and encodes all parts by hand."""
    everything = [(w, y) for y in (0, 1) for w in sentences(y)]
    wide = load_rt_polarity(length=60, words=10**6)
    decoded = _decoded(wide, everything)
    counts = collections.Counter(
        word for words in decoded["train"] for word in words
    )
    order = sorted(counts, key=lambda word: (-counts[word], word))
    number = {word: 2 + i for i, word in enumerate(order[:9998])}
    for name in ("train", "validation", "test"):
        x, _ = getattr(reviews, name)
        for row, words in zip(x, decoded[name]):
            numbers = [number.get(word, 1) for word in words][:56]
            assert row.tolist() == numbers + [0] * (56 - len(numbers))


def _decoded(data, everything):
    """Sentences of each part: found by their split, drawn again by hand."""
    labels = np.array([label for _, label in everything])
    sizes = [len(y) for _, y in data]
    parts = raw_sets.stratified(labels, sizes, seed=0)
    generator = np.random.default_rng(0)
    found = {}
    for name, part in zip(data._fields, parts):
        rows = generator.permutation(part)
        assert (labels[rows] == getattr(data, name)[1]).all()
        found[name] = [everything[row][0] for row in rows]
    return found


def test_few_reviews_are_the_first_in_the_same_code(reviews):
    few = load_rt_polarity(rows=50)
    for one, all_ in zip(few, reviews):
        np.testing.assert_array_equal(one[0], all_[0][:50])
        assert set(one[1]) == {0, 1}


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (load_emnist_letters, "emnist_letters"),
        (load_rt_polarity, "rt_polarity"),
    ],
)
def test_errors_say_where_to_put_what(load, name, tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_LOTTERY_DATA", raising=False)
    first = raw_sets.FILES[name][0]
    assert raw_sets.folder(name) is None
    with pytest.raises(ValueError, match=f"is not set. Put {first}"):
        load()
    monkeypatch.setenv("KERAS_LOTTERY_DATA", str(tmp_path))
    assert raw_sets.missing(name) == list(raw_sets.FILES[name])
    with pytest.raises(ValueError, match=f"needs {first}.*not there"):
        load()
    (tmp_path / name).mkdir()
    (tmp_path / name / first).touch()
    assert raw_sets.missing(name) == list(raw_sets.FILES[name])[1:]


def test_half_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_LOTTERY_DATA", str(tmp_path))
    (tmp_path / "emnist_letters").mkdir()
    header = struct.pack(">IIII", 2051, 10, 28, 28)
    for file_name in raw_sets.FILES["emnist_letters"]:
        path = tmp_path / "emnist_letters" / file_name
        path.write_bytes(gzip.compress(header + bytes(784 * 9)))
    with pytest.raises(ValueError, match=r"7056 values for .*\(10, 28, 28\)"):
        load_emnist_letters()


def test_too_few_sentences_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_LOTTERY_DATA", str(tmp_path))
    (tmp_path / "rt_polarity").mkdir()
    for file_name in raw_sets.FILES["rt_polarity"]:
        (tmp_path / "rt_polarity" / file_name).write_text("good\nbad\n")
    with pytest.raises(ValueError, match="4 sentences; expected 10662"):
        load_rt_polarity()
