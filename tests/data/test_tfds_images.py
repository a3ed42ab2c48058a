"""Sets of tfds: those prepared here, and small ones made by the tests."""

import functools
import logging
import sys
import types

import numpy as np
import pytest

from keras_lottery.data import data_set
from keras_lottery.data import tfds_images
from keras_lottery.data.tfds_images import load_tfds

pytestmark = pytest.mark.thorough

tfds = pytest.importorskip("tensorflow_datasets")


def need(name):
    if name not in tfds_images.prepared():
        pytest.skip(f"needs tfds's {name!r}: let TFDS_DATA_DIR point to it")


@pytest.fixture(scope="module")
def whole():
    """Loads each set once, and lets go of it after this file."""

    @functools.cache
    def loaded(name):
        need(name)
        return load_tfds(name)

    return loaded


def as_tfds_has_it(name):
    return tfds.as_numpy(
        tfds.load(
            name,
            split=["train", "test"],
            batch_size=-1,
            as_supervised=True,
            download=False,
            data_dir=str(tfds_images.directory()),
        )
    )


def sizes(data):
    return [(len(x), len(y)) for x, y in data]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist", [(55000, 55000), (5000, 5000), (10000, 10000)]),
        ("cifar10_jpeg", [(45000, 45000), (5000, 5000), (10000, 10000)]),
    ],
)
def test_sizes_are_those_of_the_paper(whole, name, expected):
    data = whole(name)
    assert sizes(data) == expected
    assert data_set.classes(data) == 10
    assert {x.dtype for x, _ in data} == {np.dtype("float32")}
    assert {y.dtype for _, y in data} == {np.dtype("int64")}


def test_rows_are_those_of_the_first_release(whole):
    """As it was written there; results depend on it."""
    data, (train, test) = whole("mnist"), as_tfds_has_it("mnist")
    order = np.random.default_rng(0).permutation(60000)
    held, rest = np.sort(order[:5000]), np.sort(order[5000:])
    for (x, y), (images, labels) in zip(
        data,
        [
            (train[0][rest], train[1][rest]),
            (train[0][held], train[1][held]),
            test,
        ],
    ):
        assert (y == labels).all()
        assert (x == images.astype("float32") / 255).all()


@pytest.mark.parametrize(
    ("name", "means", "stds"),
    [
        ("mnist", 0.1307, 0.3081),
        ("cifar10_jpeg", [0.4868, 0.4822, 0.4414], [0.2451, 0.2425, 0.2605]),
        ("cmaterdb/bangla", 0.6784, 0.4671),
    ],
)
def test_statistics_are_those_measured_when_the_sets_were_made(
    whole, name, means, stds
):
    need(name)
    small = name.startswith("cmaterdb")
    data = load_tfds(name, validation=1000) if small else whole(name)
    # The figures are of the training part before anything was held out.
    joined = [np.concatenate(each) for each in zip(data[0], data[1])]
    found = data_set.channel_statistics(data._replace(train=tuple(joined)))
    np.testing.assert_allclose(found[0], means, atol=5.1e-5)
    np.testing.assert_allclose(found[1], stds, atol=5.1e-5)


@pytest.mark.parametrize("name", ["mnist", "cifar10_jpeg"])
def test_few_rows_are_the_first_of_all(whole, name):
    everything = whole(name)
    for few, all_ in zip(load_tfds(name, rows=70), everything):
        np.testing.assert_array_equal(few[0], all_[0][:70])
        np.testing.assert_array_equal(few[1], all_[1][:70])


def test_few_rows_read_only_what_they_need(monkeypatch):
    need("cifar10_jpeg")
    asked = []
    read = tfds_images._read
    monkeypatch.setattr(
        tfds_images,
        "_read",
        lambda name, builder, part, count: (
            asked.append((part, count)) or read(name, builder, part, count)
        ),
    )
    data = load_tfds("cifar10_jpeg", rows=600)
    assert sizes(data) == [(600, 600)] * 3
    (part, train), test = asked
    assert part == "train" and train < 7000 and test == ("test", 600)


def test_names_with_version_and_configuration():
    need("mnist")
    need("cmaterdb/telugu")
    one, other = (load_tfds(n, rows=9) for n in ("mnist", "mnist:3.0.1"))
    np.testing.assert_array_equal(one.train[0], other.train[0])
    telugu = load_tfds("cmaterdb/telugu:1.0.0", validation=500)
    assert sizes(telugu) == [(2000, 2000), (500, 500), (500, 500)]


def test_a_small_set_says_what_to_pass():
    need("cmaterdb/bangla")
    with pytest.raises(ValueError, match=r"5,000 .* at most validation=1000"):
        load_tfds("cmaterdb/bangla")


def test_text_is_no_image_set():
    need("tiny_shakespeare")
    with pytest.raises(ValueError, match="features are text.*a function"):
        load_tfds("tiny_shakespeare")
    path = tfds_images.prepared()["tiny_shakespeare"]
    assert not tfds_images.holds_images(path)


class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Random images, split by split."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = {}
    FEATURES = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self.FEATURES),
            supervised_keys=tuple(self.FEATURES)[:2],
        )

    def _split_generators(self, manager):
        return {n: self._generate_examples(v) for n, v in self.SPLITS.items()}

    def _generate_examples(self, examples):
        for number, example in enumerate(examples):
            yield number, dict(zip(self.FEATURES, example))


def make(folder, name, splits, *, shape=(4, 4, 1), classes=3, dtype="uint8"):
    """Prepares a small set; returns its examples as tfds orders them."""
    features = {
        "image": tfds.features.Image(shape=shape, dtype=getattr(np, dtype)),
        "label": tfds.features.ClassLabel(num_classes=classes),
    }
    kind = type(
        name,
        (Made,),
        {"SPLITS": splits, "FEATURES": features},
        skip_registration=True,
    )
    kind(data_dir=str(folder)).download_and_prepare()


def examples(rows, seed, *, shape=(4, 4, 1), dtype="uint8"):
    generator = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    images = generator.integers(0, top, (rows, *shape), dtype, endpoint=True)
    return [(image, int(i % 3)) for i, image in enumerate(images)]


def keys(part):
    """Images as bytes, to compare sets of rows."""
    return {np.rint(image * 255).astype("uint8").tobytes() for image in part[0]}


def raw(rows):
    return {image.tobytes() for image, _ in rows}


def test_a_set_with_its_own_validation_part(tmp_path):
    splits = {
        "train": examples(20, 0),
        "validation": examples(6, 1),
        "test": examples(5, 2),
    }
    make(tmp_path, "WithValidation", splits)
    data = load_tfds("with_validation", data_dir=tmp_path)
    assert sizes(data) == [(20, 20), (6, 6), (5, 5)]
    for name, rows in splits.items():
        assert keys(getattr(data, name)) == raw(rows)
    few = load_tfds("with_validation", data_dir=tmp_path, rows=2)
    assert sizes(few) == [(2, 2)] * 3
    np.testing.assert_array_equal(few.validation[0], data.validation[0][:2])


def test_a_set_without_a_test_part_gives_as_many_rows_again(tmp_path):
    rows = examples(50, 0)
    make(tmp_path, "OnlyTrain", {"train": rows})
    data = load_tfds("only_train", data_dir=tmp_path, validation=10)
    assert sizes(data) == [(30, 30), (10, 10), (10, 10)]
    found = [keys(part) for part in data]
    assert set.union(*found) == raw(rows)
    assert sum(map(len, found)) == len(raw(rows)) == 50
    few = load_tfds("only_train", data_dir=tmp_path, validation=10, rows=4)
    for one, other in zip(few, data):
        np.testing.assert_array_equal(one[0], other[0][:4])


def test_a_set_with_validation_but_no_test_part(tmp_path):
    splits = {"train": examples(50, 0), "validation": examples(7, 1)}
    make(tmp_path, "WithoutTest", splits)
    data = load_tfds("without_test", data_dir=tmp_path, validation=9)
    assert sizes(data) == [(41, 41), (7, 7), (9, 9)]
    assert keys(data.train) | keys(data.test) == raw(splits["train"])


def test_sixteen_bits_are_scaled_by_their_own_maximum(tmp_path):
    rows = examples(20, 0, dtype="uint16")
    splits = {"train": rows, "validation": rows[:5], "test": rows[:5]}
    make(tmp_path, "Deep", splits, dtype="uint16")
    images = load_tfds("deep", data_dir=tmp_path).train[0]
    brightest = max(int(image.max()) for image, _ in rows)
    assert images.max() == np.float32(brightest) / np.float32(65535)


def test_images_of_differing_sizes_are_refused(tmp_path):
    rows = [*examples(10, 0), *examples(10, 1, shape=(5, 4, 1))]
    make(
        tmp_path, "Uneven", {"train": rows, "test": rows}, shape=(None, None, 1)
    )
    with pytest.raises(ValueError, match="'uneven' differ in size.*resizes"):
        load_tfds("uneven", data_dir=tmp_path, validation=2)


def test_sizes_that_are_not_fixed_may_still_be_equal(tmp_path):
    splits = {"train": examples(20, 0), "test": examples(5, 1)}
    make(tmp_path, "Open", splits, shape=(None, None, 1))
    data = load_tfds("open", data_dir=tmp_path, validation=4)
    assert [x.shape for x, _ in data] == [(n, 4, 4, 1) for n in (16, 4, 5)]
    assert keys(data.train) | keys(data.validation) == raw(splits["train"])
    assert data.train[0].dtype == np.float32
    assert data.train[1].dtype == np.int64


def test_a_split_without_labels_is_refused(tmp_path):
    hidden = [(image, -1) for image, _ in examples(5, 1)]
    make(tmp_path, "Hidden", {"train": examples(20, 0), "test": hidden})
    with pytest.raises(
        ValueError, match="test split of 'hidden' has no labels"
    ):
        load_tfds("hidden", data_dir=tmp_path, validation=4)


def test_a_set_without_training_rows_is_refused(tmp_path):
    make(tmp_path, "NoTrain", {"extra": examples(5, 0)})
    with pytest.raises(ValueError, match="no split 'train', only extra"):
        load_tfds("no_train", data_dir=tmp_path)


def test_what_is_prepared_is_found_by_its_files(tmp_path):
    for path in (
        "one/1.0.0",
        "one/1.10.0",
        "one/1.9.0",
        "two/small/2.0.0",
        "two/large/2.0.0",
        "three/1.0.0.incompleteABC",
        "four",
    ):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "dataset_info.json").write_text("{}")
    (tmp_path / "five/1.0.0").mkdir(parents=True)
    assert tfds_images.prepared(tmp_path) == {
        "one": tmp_path / "one/1.10.0",
        "two/large": tmp_path / "two/large/2.0.0",
        "two/small": tmp_path / "two/small/2.0.0",
    }
    assert tfds_images.prepared(tmp_path / "nowhere") == {}


def test_the_directory_is_the_argument_the_variable_or_tfds_s(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "by_variable")
    assert str(tfds_images.directory("given")) == "given"
    assert str(tfds_images.directory()) == "by_variable"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert tfds_images.directory().parts[-1] == "tensorflow_datasets"
    assert tfds_images.directory().is_absolute()


@pytest.mark.parametrize(
    "expected",
    [
        "'kmnist' is not prepared on this machine",
        r"tensorflow_datasets\.scripts\.cli\.main build kmnist",
        "download=True .in a run: --download.",
        "let TFDS_DATA_DIR or data_dir point there",
    ],
)
def test_what_is_not_there_is_never_downloaded(tmp_path, expected):
    with pytest.raises(ValueError, match=expected):
        load_tfds("kmnist", data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_started_download_is_no_set(tmp_path):
    """tfds knows the name, but its directory holds nothing."""
    (tmp_path / "kmnist" / "3.0.1").mkdir(parents=True)
    with pytest.raises(ValueError, match="'kmnist' is not prepared"):
        load_tfds("kmnist", data_dir=tmp_path)


def test_a_directory_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match="nowhere, which does not exist"):
        load_tfds("mnist", data_dir=tmp_path / "nowhere")


def test_a_version_that_is_not_there(tmp_path):
    make(tmp_path, "Versioned", {"train": examples(20, 0)})
    with pytest.raises(ValueError, match="'versioned:9.9.9'"):
        load_tfds("versioned:9.9.9", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["no_such_set", "not a name"])
def test_allowing_a_download_does_not_invent_sets(tmp_path, name):
    with pytest.raises(
        ValueError, match=f"cannot give '{name}'.*build"
    ) as found:
        load_tfds(name, data_dir=tmp_path, download=True)
    assert len(str(found.value)) < 800  # not tfds's whole catalogue


def test_a_download_prepares_what_is_not_there(tmp_path, monkeypatch):
    kind = type(
        "Fetched",
        (Made,),
        {
            "SPLITS": {"train": examples(20, 0), "test": examples(5, 1)},
            "FEATURES": {
                "image": tfds.features.Image(shape=(4, 4, 1)),
                "label": tfds.features.ClassLabel(num_classes=3),
            },
        },
        skip_registration=True,
    )
    monkeypatch.setattr(
        tfds, "builder", lambda name, data_dir: kind(data_dir=data_dir)
    )
    data = load_tfds("fetched", data_dir=tmp_path, validation=4, download=True)
    assert sizes(data) == [(16, 16), (4, 4), (5, 5)]


def test_no_network_is_said(tmp_path, monkeypatch):
    class Offline:
        def download_and_prepare(self):
            raise ConnectionError("no route to host")

    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Offline())
    with pytest.raises(ValueError, match="no route to host.*TFDS_DATA_DIR"):
        load_tfds("kmnist", data_dir=tmp_path, download=True)


def test_tfds_must_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        ValueError, match=r"pip install 'keras_lottery\[data\]'"
    ):
        load_tfds("mnist")


def test_loading_is_quiet(tmp_path, capfd):
    make(tmp_path, "Silent", {"train": examples(20, 0)})
    (tmp_path / "kmnist" / "3.0.1").mkdir(parents=True)
    absl, told = logging.getLogger("absl"), []
    watching = logging.Handler()
    watching.emit = lambda record: told.append(record.getMessage())
    level = absl.level
    absl.addHandler(watching)
    absl.setLevel(logging.INFO)
    capfd.readouterr()
    try:
        load_tfds("silent", data_dir=tmp_path, validation=4)
        with pytest.raises(ValueError, match="not prepared"):
            load_tfds("kmnist", data_dir=tmp_path)
        assert told == []
        assert "".join(capfd.readouterr()) == ""
        assert absl.level == logging.INFO
        # Without silence there is something to hear.
        other = str(tmp_path / "other")
        tfds.builder("kmnist", data_dir=other).is_prepared()
        assert told != []
    finally:
        absl.removeHandler(watching)
        absl.setLevel(level)


def test_a_tfds_that_does_not_load_is_said(monkeypatch):
    broken = types.ModuleType("tensorflow_datasets")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", broken)
    with pytest.raises(ValueError, match="does not load: .*pip check"):
        load_tfds("mnist")
