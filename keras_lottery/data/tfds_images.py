"""Image classification sets of TensorFlow Datasets, as arrays."""

import json
import logging
import os
import pathlib
import re

import numpy as np

from keras_lottery import checks
from keras_lottery.data.data_set import DataSet
from keras_lottery.data.data_set import hold_out

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def load_tfds(
    name, *, validation=5000, rows=None, data_dir=None, download=False
):
    """Returns an image classification set of `tfds`.

    Images are float32 in [0, 1], labels int64. A "validation" split of the set
    is used as it is. Otherwise `validation` rows, drawn with seed 0, are held
    out of the training part; and as many again for testing, if the set has no
    test split.

    Args:
        name: A tfds name: `"fashion_mnist"`, `"cmaterdb/bangla"`,
            `"mnist:3.0.1"`.
        validation: Rows to hold out, at most a fifth of the training part.
        rows: For quick tries: at most so many rows of each part, the first
            ones of the split as it is without `rows`. Only they are read.
        data_dir: tfds's directory; None for `TFDS_DATA_DIR`, or tfds's default.
        download: Whether tfds may download and prepare what is not there.

    Returns:
        A `DataSet`.

    Raises:
        ValueError: tfds or the set is not there, and how to get it; or the set
            is no image classification set.
    """
    rows = None if rows is None else checks.whole("rows", rows, 1)
    builder = _builder(name, directory(data_dir), download)
    _check_features(name, builder.info)
    splits = builder.info.splits
    absent = [part for part in ("validation", "test") if part not in splits]
    held = hold_out(splits["train"].num_examples, *[validation for _ in absent])
    needed = {"train": held[0], **dict(zip(absent, held[1:]))}
    parts = {part: each[:rows] for part, each in needed.items()}
    train = _read(name, builder, "train", 1 + max(map(np.max, parts.values())))
    found = {part: _taken(train, each) for part, each in parts.items()}
    for part in ("validation", "test"):
        if part not in found:
            found[part] = _taken(_read(name, builder, part, rows), slice(None))
    return DataSet(**found)


def directory(data_dir=None):
    """Returns where tfds's sets are.

    Read anew each time: tfds itself looks at the variable only when imported.
    """
    given = data_dir or os.environ.get("TFDS_DATA_DIR")
    return pathlib.Path(given or "~/tensorflow_datasets").expanduser()


def prepared(data_dir=None):
    """Returns the sets that are there, without importing tfds.

    Returns:
        Dict from name, such as `"cmaterdb/bangla"`, to the directory of its
        newest version.
    """
    folder = directory(data_dir)
    versions = [
        path.parent
        for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json")
        for path in folder.glob(pattern)
        if _VERSION.fullmatch(path.parent.name)
    ]
    versions.sort(key=lambda path: [int(n) for n in path.name.split(".")])
    found = {v.parent.relative_to(folder).as_posix(): v for v in versions}
    return dict(sorted(found.items()))


def is_there(name, data_dir=None):
    """Returns whether a set's directory is there, whatever its version."""
    base = re.split("[:/]", name)[0]
    # `""` and `".."` are directories too.
    return base.isidentifier() and (directory(data_dir) / base).is_dir()


def holds_images(version):
    """Returns whether the set prepared in `version` has images and labels."""
    try:
        described = json.loads((version / "features.json").read_text())
        features = described["featuresDict"]["features"].values()
    except (OSError, ValueError, KeyError):
        return False
    kinds = {each["pythonClassName"].split(".")[-1] for each in features}
    return {"Image", "ClassLabel"} <= kinds


def how_to_get(name, data_dir=None):
    """Returns a sentence on how to get a set that is not there."""
    folder = directory(data_dir)
    state = "" if folder.is_dir() else ", which does not exist"
    return (
        f"tfds's sets are looked for in {folder}{state}. If it is a set of "
        "tfds, prepare it once with `python -m "
        f"tensorflow_datasets.scripts.cli.main build {name}`, or allow the "
        "download with download=True (in a run: --download). If it is "
        "elsewhere, let TFDS_DATA_DIR or data_dir point there."
    )


def _builder(name, folder, download):
    tfds = _tfds(name)
    if not download and not is_there(name, folder):
        # tfds itself would search its catalogue, and may ask the internet.
        raise ValueError(_absent(name, folder))
    try:
        with _Quiet():
            builder = tfds.builder(name, data_dir=str(folder))
            if download:
                builder.download_and_prepare()
            there = builder.is_prepared()
    except (ValueError, AssertionError, OSError) as error:
        # A name, config or version that tfds does not know, or no network. The
        # first line says which; others list hundreds of names.
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"tfds cannot give {name!r}: {reason} {how_to_get(name, folder)}"
        ) from error
    if not there:
        raise ValueError(_absent(name, folder))
    return builder


def _tfds(name):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"{name!r} comes from tensorflow-datasets, which is not installed: "
            "pip install 'keras_lottery[data]'."
        ) from error
    if not hasattr(tfds, "builder"):  # it logs what failed, and goes on
        raise ValueError(
            f"{name!r} comes from tensorflow-datasets, which is installed and "
            "does not load: most often tensorflow-metadata is newer than the "
            "protobuf that TensorFlow wants. `pip check` says which; with "
            "TensorFlow 2.18 it helps to pip install 'tensorflow-metadata"
            "<1.18'."
        )
    return tfds


def _absent(name, folder):
    return (
        f"The data set {name!r} is not prepared on this machine. "
        + how_to_get(name, folder)
    )


def _check_features(name, info):
    tfds = _tfds(name)
    keys = info.supervised_keys
    pair = isinstance(keys, tuple) and len(keys) == 2
    x, y = (info.features[key] for key in keys) if pair else (None, None)
    image = isinstance(x, tfds.features.Image)
    if not image or y.shape != () or np.dtype(y.np_dtype).kind not in "iu":
        raise ValueError(
            f"{name!r} is no image classification set: its features are "
            f"{', '.join(info.features)}. Write a function that returns "
            "arrays, and name it instead (docs/adding_a_data_set.md)."
        )
    if np.dtype(x.np_dtype).kind != "u":
        raise ValueError(
            f"Images of {name!r} are {x.np_dtype}: how to scale them to [0, 1] "
            "is not known. Write a function that returns arrays, and name it "
            "instead (docs/adding_a_data_set.md)."
        )
    if "train" not in info.splits:
        raise ValueError(
            f"{name!r} has no split 'train', only {', '.join(info.splits)}. "
            "Write a function that returns arrays, and name it instead "
            "(docs/adding_a_data_set.md)."
        )


def _read(name, builder, part, count):
    """Returns (images, labels) of the first `count` rows as they are stored."""
    tfds = _tfds(name)
    rows = builder.info.splits[part].num_examples
    split = part if count is None else f"{part}[:{min(count, rows)}]"
    image, _ = builder.info.supervised_keys
    # As one batch, tfds would pad images of differing sizes with zeros.
    size = None if None in builder.info.features[image].shape else -1
    with _Quiet():
        read = tfds.as_numpy(
            builder.as_dataset(split=split, batch_size=size, as_supervised=True)
        )
        images, labels = read if size else _stacked(name, read)
    if labels.min() < 0:
        raise ValueError(
            f"The {part} split of {name!r} has no labels (they are "
            f"{labels.min()}). Write a function that holds out rows of the "
            "training part, and name it instead (docs/adding_a_data_set.md)."
        )
    return images, labels


def _stacked(name, examples):
    images, labels = zip(*examples)
    sizes = sorted({image.shape for image in images})
    if len(sizes) > 1:
        raise ValueError(
            f"The images of {name!r} differ in size: {sizes[0]}, {sizes[1]} "
            f"and so on ({len(sizes)} sizes). Write a function that resizes "
            "them and returns arrays, and name it instead "
            "(docs/adding_a_data_set.md)."
        )
    return np.stack(images), np.array(labels)


def _taken(part, rows):
    # Rows first: as floats, images take four times the memory.
    images, labels = part[0][rows], part[1][rows]
    scale = np.iinfo(images.dtype).max
    return images.astype(np.float32) / scale, labels.astype(np.int64)


class _Quiet:
    """tfds announces every step: silences all but errors while it works."""

    def __enter__(self):
        self._levels = {
            logger: logger.level
            for logger in map(logging.getLogger, ("absl", "etils"))
        }
        for logger in self._levels:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *error):
        for logger, level in self._levels.items():
            logger.setLevel(level)
