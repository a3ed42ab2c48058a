"""Mask files of open_lth: `mask.pth` with `sparsity_report.json` beside it."""

import io
import json
import os
import zipfile

from keras_lottery import files
from keras_lottery import regular_file
from keras_lottery import strict_json
from keras_lottery.errors import TicketError
from keras_lottery.interchange import state_dict
from keras_lottery.interchange import tensors
from keras_lottery.interchange.npz import as_bools
from keras_lottery.interchange.npz import inner_of

MASK, REPORT = "mask.pth", "sparsity_report.json"
_LONGEST_REPORT = 10_000


def load_open_lth(path, model, names=None):
    """Returns the `Mask` that open_lth has written.

    Nothing in the file is executed: it is read with
    `torch.load(weights_only=True)`.

    Args:
        path: The folder of a level (`.../level_3/main`), or its `mask.pth`.
        model: The Keras model of the same network, built.
        names: As in `mask_of_state_dict`. The names of open_lth's LeNet are
            `{"fc1": "fc_layers.0", "fc2": "fc_layers.1", "output": "fc"}`.

    Raises:
        ImportError: PyTorch is not installed.
        TicketError: The file cannot be read, is no mask, or is not the one of
            the report beside it.
        ValueError: The mask does not fit the model.

    Example:

    >>> load_open_lth("level_3/main", model=None)
    Traceback (most recent call last):
    keras_lottery.errors.TicketError: Cannot read level_3/main: No such file
    or directory.

    Reference: Frankle, open_lth, `pruning/mask.py`.
    """
    path = os.fspath(path)
    path = os.path.join(path, MASK) if os.path.isdir(path) else path
    try:
        masks = tensors.arrays_of(_loaded(regular_file.read(path)))
        masks = {name: _checked(name, array) for name, array in masks.items()}
    except OSError as error:
        raise TicketError(f"Cannot read {path}: {error.strerror}.") from error
    except ImportError:
        raise
    except Exception as error:  # torch and its unpickler have their own
        raise TicketError(
            f"{path} is no mask of open_lth ({type(error).__name__}: "
            f"{str(error)[:500]})"
        ) from error
    _check_report(os.path.join(os.path.dirname(path), REPORT), masks)
    named = {f"{name}_mask": array for name, array in masks.items()}
    return state_dict.mask_of_state_dict(named, model, names)


def save_open_lth(given, path, model, names=None, *, like=None):
    """Writes a mask as open_lth does, for its experiments to go on from.

    Args:
        given: A `Mask`, or what has one: a `Ticket`, a `PrunedModel`.
        path: Folder for `mask.pth` and `sparsity_report.json`; it is made.
        model: The Keras model it is of, built.
        names: As in `load_open_lth`.
        like: As in `state_dict_of`.

    Raises:
        ImportError: PyTorch is not installed.
        ValueError: The mask does not fit the model, or this the twin.

    Example:

    >>> import keras, tempfile, numpy as np
    >>> from keras_lottery.pruning.mask import Mask
    >>> model = keras.Sequential(
    ...     [keras.Input((3,)), keras.layers.Dense(2, name="fc1")]
    ... )
    >>> mask = Mask({"fc1/kernel": np.eye(3, 2, dtype=bool)})
    >>> folder = tempfile.mkdtemp()
    >>> save_open_lth(mask, folder, model)  # doctest: +SKIP
    >>> load_open_lth(folder, model) == mask  # doctest: +SKIP
    True
    """
    torch = _torch()
    masks = state_dict.masks_of(given, inner_of(model), names, like)
    os.makedirs(path, exist_ok=True)
    content = io.BytesIO()
    stored = {
        name: torch.from_numpy(array.astype("int32"))
        for name, array in masks.items()
    }
    torch.save(stored, content)
    total = sum(array.size for array in masks.values())
    unpruned = sum(int(array.sum()) for array in masks.values())
    report = json.dumps(
        {"total": float(total), "unpruned": float(unpruned)}, indent=4
    )
    files.write_whole(os.path.join(path, REPORT), report.encode())
    files.write_whole(os.path.join(path, MASK), content.getvalue())


def _torch():
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "open_lth's files are PyTorch's, which is not installed: `pip "
            "install torch`. Masks as NumPy arrays need none: "
            "`mask_of_state_dict`, `save_npz`."
        ) from error
    return torch


def _loaded(content):
    """Returns what a file holds, once no entry is longer than the file."""
    torch = _torch()
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(e.file_size for e in archive.infolist()) > len(content):
                raise ValueError("its entries are longer than the file")
    return torch.load(io.BytesIO(content), "cpu", weights_only=True)


def _checked(name, array):
    """Returns an array as bools; an expanded one holds less than it says."""
    if any(
        stride == 0 and length > 1
        for stride, length in zip(array.strides, array.shape)
    ):
        raise ValueError(f"{name!r} repeats itself")
    return as_bools(name, array)


def _check_report(path, masks):
    """Raises a TicketError where a report is there, of another mask."""
    if not os.path.exists(path):
        return
    try:
        text = regular_file.read(path, most=_LONGEST_REPORT)
        report = strict_json.loads(text.decode())
        told = report["total"], report["unpruned"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TicketError(f"{path} is no report of a mask: {error}") from error
    total = sum(array.size for array in masks.values())
    unpruned = sum(int(array.sum()) for array in masks.values())
    if told != (total, unpruned):
        raise TicketError(
            f"{path} tells of {told[1]} of {told[0]} weights, and the mask "
            f"beside it keeps {unpruned} of {total}: one of them is of another "
            "level."
        )
