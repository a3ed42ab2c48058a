"""Masks as plain `.npz`: one bool array per weight, for anybody's NumPy."""

import io
import math
import os
import zipfile

import keras
import numpy as np

from keras_lottery import files
from keras_lottery import regular_file
from keras_lottery.errors import TicketError
from keras_lottery.pruning import find
from keras_lottery.pruning.mask import Mask

_DEFLATES = 1032  # no entry of a zip file holds more bytes for one of its own
_SUFFIX = ".npy"


def save_npz(given, path):
    """Writes a mask as `.npz`: `np.load(path)["fc1/kernel"]` is a bool array.

    Equal masks give equal bytes.

    Args:
        given: A `Mask`, or what has one: a `Ticket`, a `PrunedModel`.
        path: File to write, whole or not at all.

    Raises:
        ValueError: There is no mask in `given`.

    Example:

    >>> import os, tempfile
    >>> mask = Mask({"fc1/kernel": np.eye(2, dtype=bool)})
    >>> path = os.path.join(tempfile.mkdtemp(), "mask.npz")
    >>> save_npz(mask, path)
    >>> np.load(path)["fc1/kernel"].tolist()
    [[True, False], [False, True]]
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in mask_in(given).items():
            # With a date of its own: the present one would change the bytes.
            entry = zipfile.ZipInfo(name + _SUFFIX)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    files.write_whole(path, packed.getvalue())


def load_npz(path, model=None):
    """Returns the `Mask` in an `.npz` file, of `save_npz` or anybody else's.

    Args:
        path: File with an array per weight: bool, or numbers 0 and 1.
        model: A built model that the mask has to fit, or None.

    Raises:
        TicketError: The file cannot be read, or holds something else.
        ValueError: The mask does not fit the model.

    Example:

    >>> import os, tempfile
    >>> mask = Mask({"fc1/kernel": np.eye(2, dtype=bool)})
    >>> path = os.path.join(tempfile.mkdtemp(), "mask.npz")
    >>> save_npz(mask, path)
    >>> load_npz(path) == mask
    True
    """
    path = os.fspath(path)
    try:
        with regular_file.opened(path) as (file, _):
            mask = Mask(_arrays(file))
    except OSError as error:
        raise TicketError(f"Cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # zipfile and zlib have their own
        raise TicketError(f"{path} is no .npz of masks: {error}") from error
    if model is not None:
        find.check_fits(inner_of(model), mask)
    return mask


def mask_in(given):
    """Returns the `Mask` that a mask, a ticket or a pruned model has.

    Raises:
        ValueError: There is none.
    """
    mask = given if isinstance(given, Mask) else getattr(given, "mask", None)
    if not isinstance(mask, Mask):
        raise ValueError(
            "Expected a `Mask`, a `Ticket` or a `PrunedModel`, got "
            f"{type(given).__name__}. Of arrays, make a "
            "`Mask({name: bools})`."
        )
    return mask


def inner_of(model):
    """Returns the model inside a `PrunedModel`; any other as it is.

    Raises:
        ValueError: It is no Keras 3 model.
    """
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            "Expected a Keras 3 model, got "
            f"{type(model).__module__}.{type(model).__name__}. The weights of "
            "a legacy model have the names of its Keras 3 twin: pass that."
        )
    pruned = getattr(model, "adopt_mask", None) is not None
    return model.inner if pruned else model


def as_bools(name, array):
    """Returns an array of bools, or of zeros and ones, as bools.

    Raises:
        ValueError: It holds something else.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name!r} has dtype {array.dtype}, which is no mask's"
        )
    kept = array != 0
    if array.dtype != bool and (array[kept] != 1).any():
        raise ValueError(
            f"{name!r} holds other numbers than 0 and 1. Of weights, make "
            "masks first: `weights != 0`"
        )
    return kept


def _arrays(file):
    with zipfile.ZipFile(file) as archive:
        names = [entry.filename for entry in archive.infolist()]
        if len(set(names)) != len(names):
            raise ValueError("a name is there twice")
        if not names:
            raise ValueError("there is no array in it")
        return {
            entry.filename.removesuffix(_SUFFIX): _array(archive, entry)
            for entry in archive.infolist()
        }


def _array(archive, entry):
    """Returns an entry as bools; it is no longer than it says it is."""
    name = entry.filename
    if entry.file_size > _DEFLATES * (entry.compress_size + 1):
        raise ValueError(f"{name!r} cannot be as long as it says")
    with archive.open(entry) as file:
        shape, dtype = _header(file)
        expected = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or expected != entry.file_size - file.tell():
            raise ValueError(f"{name!r} is not the array it says it is")
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
    return as_bools(name.removesuffix(_SUFFIX), array)


def _header(file):
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype
