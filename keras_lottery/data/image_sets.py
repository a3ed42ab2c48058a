"""Image classification sets of TensorFlow Datasets, as arrays."""

import numpy as np

from keras_lottery.data.digits import Digits
from keras_lottery.data.digits import load_digits


def load_tfds(name, validation=5000):
    """Returns an image set that `tfds` has prepared; nothing is downloaded.

    Args:
        name: A tfds name, such as `"fashion_mnist"`. The directory is
            `TFDS_DATA_DIR`, or tfds's default.
        validation: Rows split off the training part, drawn with seed 0.

    Returns:
        A `Digits`: three pairs of float32 images in [0, 1] and int64 labels.

    Raises:
        ValueError: tfds or the set is not there; the error says how to get it.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"{name!r} comes from tensorflow-datasets, which is not installed: "
            "pip install 'keras_lottery[data]'."
        ) from error
    try:
        parts = tfds.as_numpy(
            tfds.load(
                name,
                split=["train", "test"],
                batch_size=-1,
                as_supervised=True,
                download=False,
            )
        )
    except (tfds.core.DatasetNotFoundError, AssertionError) as error:
        raise ValueError(
            f"tfds has not prepared {name!r} on this machine. Prepare it once "
            f"with `python -m tensorflow_datasets.scripts.cli.main build "
            f"{name}`, or point TFDS_DATA_DIR to where it is."
        ) from error
    train, test = ((_scaled(x), y.astype(np.int64)) for x, y in parts)
    order = np.random.default_rng(0).permutation(len(train[0]))
    held, rest = np.sort(order[:validation]), np.sort(order[validation:])
    return Digits(
        (train[0][rest], train[1][rest]), (train[0][held], train[1][held]), test
    )


def load(name):
    """Returns a data set by name: `"digits"`, or any of tfds's."""
    return load_digits() if name == "digits" else load_tfds(name)


def _scaled(images):
    return images.astype(np.float32) / 255
