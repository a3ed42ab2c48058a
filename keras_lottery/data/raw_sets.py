"""Sets read from their own files, below the directory KERAS_LOTTERY_DATA."""

import collections
import gzip
import os
import pathlib

import numpy as np

from keras_lottery import checks
from keras_lottery.data.data_set import DataSet
from keras_lottery.data.data_set import hold_out
from keras_lottery.data.digits import stratified

VARIABLE = "KERAS_LOTTERY_DATA"
FILES = {
    "emnist_letters": tuple(
        f"emnist-letters-{part}-{kind}-ubyte.gz"
        for part in ("train", "test")
        for kind in ("images-idx3", "labels-idx1")
    ),
    "rt_polarity": ("rt-polarity.neg", "rt-polarity.pos"),
}
SENTENCES = {"train": 8530, "validation": 1066, "test": 1066}
PADDING, UNKNOWN = 0, 1


def load_emnist_letters(*, validation=5000, rows=None):
    """Returns EMNIST Letters: 124,800 training and 20,800 test images.

    Images are float32 of shape (n, 28, 28, 1) in [0, 1] and upright (the files
    hold them transposed), labels int64: 0 for a to 25 for z, both cases.

    tfds 4.9's `emnist/letters` is not used: it stops at 88,800 and 14,800
    images, and its test split lacks t to z.

    Args:
        validation: Rows held out of the training part, drawn with seed 0.
        rows: For quick tries: at most so many rows of each part; the test rows
            lie at even distances, for the file is sorted by label.

    Raises:
        ValueError: The files are not there, and where they belong.

    Reference: Cohen et al. (2017), EMNIST: an extension of MNIST to handwritten
    letters.
    """
    rows = None if rows is None else checks.whole("rows", rows, 1)
    paths = _files("emnist_letters")
    images, labels = (_idx(path) for path in paths[:2])
    rest, held = (p[:rows] for p in hold_out(len(labels), validation))
    train, held = ((images[each], labels[each]) for each in (rest, held))
    images, labels = (_idx(path) for path in paths[2:])
    spread = _spread(len(labels), rows)
    parts = train, held, (images[spread], labels[spread])
    return DataSet(*(_letters(*part) for part in parts))


def load_rt_polarity(*, length=56, words=10000, rows=None):
    """Returns 10,662 sentences of film reviews, half negative, half positive.

    Sentences are int64 of shape (n, length): the numbers of their words, then
    zeros. Labels are int64: 0 for negative, 1 for positive. The split (8,530
    train, 1,066 validation, 1,066 test) is stratified and always the same.

    Args:
        length: Words per sentence; longer ones lose their end.
        words: Size of the vocabulary: 0 is padding, 1 an unknown word, then
            the most frequent words of the whole training part.
        rows: For quick tries: at most so many rows of each part, the first.

    Raises:
        ValueError: The files are not there, and where they belong.

    Reference: Pang & Lee (2005), Seeing stars. The set comes without a split;
    published results are means of 10 cross-validations.
    """
    length = checks.whole("length", length, 1)
    words = checks.whole("words", words, 3)
    rows = None if rows is None else checks.whole("rows", rows, 1)
    sentences, labels = _sentences(_files("rt_polarity"))
    parts = _mixed(stratified(labels, list(SENTENCES.values()), seed=0))
    number = _vocabulary([sentences[row] for row in parts[0]], words)
    encoded = np.full((len(sentences), length), PADDING, np.int64)
    for row, sentence in enumerate(sentences):
        numbers = [number.get(word, UNKNOWN) for word in sentence[:length]]
        encoded[row, : len(numbers)] = numbers
    parts = [part[:rows] for part in parts]
    return DataSet(*((encoded[part], labels[part]) for part in parts))


def folder(name):
    """Returns where the files of a set belong, or None: no variable."""
    root = os.environ.get(VARIABLE)
    return pathlib.Path(root).expanduser() / name if root else None


def missing(name):
    """Returns the names of the files of a set that are not there."""
    place = folder(name)
    return [
        file
        for file in FILES[name]
        if place is None or not (place / file).is_file()
    ]


def _files(name):
    place, absent = folder(name), missing(name)
    if place is None:
        raise ValueError(
            f"{name} is read from files in ${VARIABLE}/{name}, but {VARIABLE} "
            f"is not set. Put {', '.join(FILES[name])} into a directory called "
            f"{name}, and let {VARIABLE} point to the directory above it."
        )
    if absent:
        raise ValueError(
            f"{name} needs {', '.join(absent)} in {place}, but they are not "
            f"there. Put them there, or let {VARIABLE} point to the directory "
            f"that has {name}/."
        )
    return [place / file for file in FILES[name]]


def _idx(path):
    """Reads an idx file of bytes: two zeros, type, rank, sizes, values."""
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, offset=4).astype(int)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if content[:3] != b"\x00\x00\x08" or values.size != shape.prod():
        raise ValueError(
            f"{path} is not a whole idx file of bytes: {values.size} values "
            f"for the shape {tuple(shape.tolist())}. Get it again."
        )
    return values.reshape(shape)


def _letters(images, labels):
    upright = images.transpose(0, 2, 1)[..., None]
    # Labels of the files are 1 for a to 26 for z.
    return upright.astype(np.float32) / 255, labels.astype(np.int64) - 1


def _spread(count, rows):
    if rows is None or rows >= count:
        return slice(None)
    return np.arange(rows) * count // rows


def _sentences(paths):
    # Not `splitlines`: it also breaks at \x85, an ellipsis in these files.
    by_label = [
        path.read_bytes().decode("latin-1").rstrip("\n").split("\n")
        for path in paths
    ]
    words = [text.split() for part in by_label for text in part]
    if len(words) != sum(SENTENCES.values()):
        raise ValueError(
            f"{paths[0].parent} holds {len(words)} sentences; expected "
            f"{sum(SENTENCES.values())}. Get the files again."
        )
    return words, np.repeat(np.arange(2), [len(part) for part in by_label])


def _mixed(parts):
    """Shuffles each part, for the files hold one class after the other."""
    generator = np.random.default_rng(0)
    return [generator.permutation(part) for part in parts]


def _vocabulary(sentences, words):
    """Numbers the most frequent words from 2 on; ties by alphabet."""
    counts = collections.Counter(word for each in sentences for word in each)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: at for at, word in enumerate(ranked[: words - 2], start=2)}
