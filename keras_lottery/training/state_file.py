"""Snapshots on disk: safetensors, so that a stopped lottery can rewind."""

import json

import ml_dtypes
import numpy as np
import safetensors.numpy

from keras_lottery.errors import RunError
from keras_lottery.training.state import Snapshot

_BRAIN = "bfloat16/"


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
    count = None if taken.optimizer is None else len(taken.optimizer)
    stored = dict(_storable(name, value) for name, value in arrays.items())
    return safetensors.numpy.save(stored, {"optimizer": json.dumps(count)})


def unpack(content):
    """Returns the `Snapshot` in some bytes.

    Raises:
        RunError: They hold none.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        count = json.loads(header["optimizer"])
        stored = safetensors.numpy.load(content)
        arrays = dict(_loaded(*each) for each in stored.items())
        model = {
            name.removeprefix("model/"): value
            for name, value in arrays.items()
            if name.startswith("model/")
        }
        slots = None
        if count is not None:
            slots = tuple(arrays[f"optimizer/{i}"] for i in range(count))
        return Snapshot(model, slots)
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
        with open(path, "rb") as file:
            return unpack(file.read())
    except (OSError, RunError) as error:
        raise RunError(f"Cannot read {path}: {error}") from error


def _storable(name, value):
    value = np.asarray(value, order="C")
    if value.dtype == ml_dtypes.bfloat16:
        return f"{_BRAIN}{name}", value.view(np.uint16)
    return name, value


def _loaded(name, value):
    if name.startswith(_BRAIN):
        return name.removeprefix(_BRAIN), value.view(ml_dtypes.bfloat16)
    return name, value
