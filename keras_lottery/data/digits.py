"""UCI's handwritten digits: real images small enough to ship."""

import functools
import gzip
import importlib.resources

import numpy as np

from keras_lottery.data.data_set import DataSet

PARTS = {"train": 1297, "validation": 200, "test": 300}


def load_digits():
    """Returns 1,797 handwritten digits: 1,297 train, 200 validation, 300 test.

    The split is stratified, and always the same (seed 0).

    Returns:
        A `DataSet`: float32 images of shape (n, 8, 8, 1) in [0, 1], and int64
        labels of shape (n,) in 0..9.

    Example:

    >>> digits = load_digits()
    >>> digits.train[0].shape, digits.test[1].shape
    ((1297, 8, 8, 1), (300,))

    Reference: Alpaydin & Kaynak (1998), UCI Machine Learning Repository, CC BY
    4.0: the test part of the set, as scikit-learn ships it.
    """
    table = _table()
    images = (table[:, :64] / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = table[:, 64].astype(np.int64)
    parts = stratified(labels, list(PARTS.values()), seed=0)
    return DataSet(*((images[rows], labels[rows]) for rows in parts))


def stratified(labels, sizes, seed):
    """Splits rows into parts with the same share of each label.

    Rows are sorted by label and dealt out at even distances, so that every
    part has exactly its size, and of each label its share to within a row.

    Args:
        labels: Array of shape (n,).
        sizes: Sizes of the parts; they sum to n.
        seed: Seed of the order of rows within a label.

    Returns:
        List of sorted arrays of row numbers.

    Example:

    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> [labels[rows].tolist() for rows in stratified(labels, [3, 3], seed=0)]
    [[0, 0, 1], [0, 0, 1]]
    """
    if sum(sizes) != len(labels):
        raise ValueError(
            f"The parts {sizes} sum to {sum(sizes)}, not {len(labels)}."
        )
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Every part takes its rows at even distances along the rows sorted by
    # label: as many of each label as its share says.
    share = np.concatenate([(np.arange(n) + 0.5) / n for n in sizes])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    dealt = owner[np.argsort(share, kind="stable")]
    return [np.sort(by_label[dealt == i]) for i in range(len(sizes))]


@functools.cache
def _table():
    folder = importlib.resources.files("keras_lottery.data")
    content = (folder / "digits.csv.gz").read_bytes()
    rows = gzip.decompress(content).decode("ascii").split()
    return np.array([row.split(",") for row in rows], np.uint8)
