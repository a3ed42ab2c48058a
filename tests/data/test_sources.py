"""From a name to a data set."""

import subprocess
import sys

import numpy as np
import pytest

from keras_lottery.data import raw_sets
from keras_lottery.data import sources
from keras_lottery.data import tfds_images
from keras_lottery.data.data_set import DataSet
from keras_lottery.data.digits import load_digits


def own(rows=20, width=2):
    """What a user might write."""
    part = (np.ones((rows, width)), np.arange(rows) % 2)
    return part, part, part


def test_digits_by_name():
    for one, other in zip(sources.load("digits"), load_digits()):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    few = sources.load("digits", rows=250, validation=7)
    assert [len(y) for _, y in few] == [250, 200, 250]


@pytest.mark.parametrize("name", sorted(sources.DATA_SETS))
def test_every_entry_of_the_table(name):
    if name in raw_sets.FILES and raw_sets.missing(name):
        pytest.skip(f"needs {name}/: let KERAS_LOTTERY_DATA point above it")
    data = sources.load(name, rows=30)
    assert isinstance(data, DataSet)
    assert [len(y) for _, y in data] == [30, 30, 30]
    assert len({x.shape[1:] for x, _ in data}) == 1


def test_arguments_reach_the_entry():
    if raw_sets.missing("rt_polarity"):
        pytest.skip("needs rt_polarity/: let KERAS_LOTTERY_DATA point above it")
    data = sources.load("rt_polarity", rows=5, length=7, words=50)
    assert data.train[0].shape == (5, 7)
    assert data.train[0].max() < 50


def test_sets_of_tfds_by_name():
    if "mnist" not in tfds_images.prepared():
        pytest.skip("needs tfds's mnist: let TFDS_DATA_DIR point to it")
    data = sources.load("mnist", rows=12, validation=100)
    direct = tfds_images.load_tfds("mnist", rows=12, validation=100)
    np.testing.assert_array_equal(data.validation[0], direct.validation[0])
    with pytest.raises(ValueError, match="'mnist' got width. Leave them out"):
        sources.load("mnist", width=3)


def test_a_function_of_one_s_own():
    data = sources.load(own, rows=5, width=3)
    assert isinstance(data, DataSet)
    assert [x.shape for x, _ in data] == [(5, 3)] * 3
    assert len(sources.load(own).train[1]) == 20


def test_what_a_function_returns_is_checked():
    with pytest.raises(ValueError, match="three pairs"):
        sources.load(lambda: own()[:2])


def test_arguments_that_nobody_takes():
    with pytest.raises(ValueError, match=r"'own' .*\['depth'\].*rows=20, wid"):
        sources.load(own, depth=3)
    with pytest.raises(ValueError, match="'digits' .*unexpected .*'depth'"):
        sources.load("digits", depth=3)


def test_errors_inside_a_function_are_its_own():
    def broken():
        return len(3)

    with pytest.raises(TypeError, match="has no len"):
        sources.load(broken)


def prepare(folder, *names):
    for name in names:
        (folder / name / "1.0.0").mkdir(parents=True)
        (folder / name / "1.0.0" / "dataset_info.json").write_text("{}")


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("digit", "Did you mean 'digits'"),
        ("fashon_mnist", "Did you mean 'fashion_mnist'"),
        ("emnist-letters", "Did you mean 'emnist_letters'"),
        ("cifar", "Did you mean 'cifar10'"),
        ("xyzzy", "'xyzzy'. Known here are 'digits', 'emnist_letters', "),
    ],
)
def test_an_unknown_name_says_what_is_close(name, close, tmp_path):
    prepare(tmp_path, "fashion_mnist", "cifar10")
    with pytest.raises(ValueError, match=close) as found:
        sources.load(name, data_dir=tmp_path)
    assert "main build" in str(found.value)
    assert "TFDS_DATA_DIR" in str(found.value)


@pytest.mark.parametrize("name", [3, None, ["digits"]])
def test_what_is_no_name(name):
    with pytest.raises(ValueError, match="is no data set. Expected one of"):
        sources.load(name)


@pytest.mark.parametrize("name", ["", "..", "/", "../mnist"])
def test_names_are_no_paths(name, tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "mnist").mkdir()
    with pytest.raises(ValueError, match="Unknown data set"):
        sources.load(name, data_dir=tmp_path / "inside")


def test_the_listing(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_LOTTERY_DATA", raising=False)
    prepare(tmp_path, "words", "pictures", "scripts/one")
    (tmp_path / "pictures/1.0.0/features.json").write_text(
        '{"featuresDict": {"features": {'
        '"image": {"pythonClassName": "a.image_feature.Image"},'
        '"label": {"pythonClassName": "a.class_label_feature.ClassLabel"}}}}'
    )
    assert sources.known(tmp_path) == [
        ("digits", "in the package", True),
        ("emnist_letters", "$KERAS_LOTTERY_DATA/emnist_letters", False),
        ("rt_polarity", "$KERAS_LOTTERY_DATA/rt_polarity", False),
        ("pictures", str(tmp_path / "pictures/1.0.0"), True),
        ("scripts/one", str(tmp_path / "scripts/one/1.0.0"), False),
        ("words", str(tmp_path / "words/1.0.0"), False),
    ]


def test_the_listing_names_all_of_the_table(tmp_path):
    names = [name for name, _, _ in sources.known(tmp_path)]
    assert sorted(names) == sorted(sources.DATA_SETS)


def test_the_listing_sees_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_LOTTERY_DATA", str(tmp_path))
    (tmp_path / "rt_polarity").mkdir()
    for name in raw_sets.FILES["rt_polarity"]:
        (tmp_path / "rt_polarity" / name).touch()
    found = {name: rest for name, *rest in sources.known(tmp_path)}
    assert found["rt_polarity"] == [str(tmp_path / "rt_polarity"), True]
    assert found["emnist_letters"] == [str(tmp_path / "emnist_letters"), False]


def test_the_listing_needs_neither_tfds_nor_tensorflow():
    code = """
import sys
from keras_lottery.data import sources
sources.known()
sources.load("digits")
names = ("tensorflow", "tensorflow_datasets", "keras")
print([n for n in names if n in sys.modules])
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert found.stdout.strip() == "[]", found.stderr
