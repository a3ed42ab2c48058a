"""Snapshots on disk: safetensors, so that a stopped lottery can rewind."""

import io
import json

import ml_dtypes
import numpy as np

from keras_lottery import arrays_file
from keras_lottery import regular_file
from keras_lottery import strict_json
from keras_lottery.errors import RunError
from keras_lottery.training.state import Snapshot

_BRAIN = "bfloat16/"
_METADATA = "keras_lottery"


def pack(taken):
    """Returns the bytes of a `Snapshot`.

    Example:

    >>> taken = Snapshot({"fc/kernel": np.ones((2, 3))}, None)
    >>> unpack(pack(taken)).model["fc/kernel"].shape
    (2, 3)
    """
    arrays = {f"model/{name}": value for name, value in taken.model.items()}
    for index, value in enumerate(taken.optimizer or ()):
        arrays[f"optimizer/{index}"] = value
    for index, value in enumerate(taken.recurrent):
        arrays[f"recurrent/{index}"] = value
    count = None if taken.optimizer is None else len(taken.optimizer)
    stored = dict(_storable(name, value) for name, value in arrays.items())
    checksum = arrays_file.checksum(json.dumps(count), stored)
    # One key: safetensors writes several in any order.
    text = json.dumps({"optimizer": count, "sha256": checksum})
    return arrays_file.pack(stored, {_METADATA: text})


def unpack(content):
    """Returns the `Snapshot` in some bytes.

    Raises:
        RunError: They hold none, or another one than was packed.
    """
    try:
        return _snapshot(*arrays_file.load(io.BytesIO(content), len(content)))
    except Exception as error:
        raise RunError(
            f"not a whole snapshot ({type(error).__name__}: {error})."
        ) from error


def read(path):
    """Returns the `Snapshot` in a file.

    Raises:
        RunError: There is none, or it is damaged.
    """
    try:
        return unpack(regular_file.read(path))
    except (OSError, RunError) as error:
        raise RunError(f"Cannot read {path}: {error}") from error


def _snapshot(metadata, stored):
    if set(metadata) != {_METADATA}:
        raise ValueError(f"its metadata are {sorted(metadata)}")
    header = strict_json.loads(metadata[_METADATA])
    count = header["optimizer"]
    if arrays_file.checksum(json.dumps(count), stored) != header["sha256"]:
        raise ValueError("the checksum differs")
    if count is not None and (type(count) is not int or count < 0):
        raise ValueError(f"it has {count!r} optimizer variables")
    arrays = dict(_loaded(*each) for each in stored.items())
    if len(arrays) != len(stored):
        raise ValueError("a name is there twice")
    # A file holds no more arrays than bytes: this ends, whatever it claims.
    slots = tuple(arrays.pop(f"optimizer/{i}") for i in range(count or 0))
    recurrent = []
    while f"recurrent/{len(recurrent)}" in arrays:
        recurrent.append(arrays.pop(f"recurrent/{len(recurrent)}"))
    if stray := [name for name in arrays if not name.startswith("model/")]:
        raise ValueError(f"its arrays {stray} belong to nothing")
    model = {name.removeprefix("model/"): a for name, a in arrays.items()}
    slots = None if count is None else slots
    return Snapshot(model, slots, tuple(recurrent))


def _storable(name, value):
    value = np.asarray(value, order="C")
    if value.dtype == ml_dtypes.bfloat16:
        return f"{_BRAIN}{name}", value.view(np.uint16)
    return name, value


def _loaded(name, value):
    if name.startswith(_BRAIN):
        if value.dtype != np.uint16:
            raise ValueError(f"{name!r} is no bfloat16")
        return name.removeprefix(_BRAIN), value.view(ml_dtypes.bfloat16)
    return name, value
