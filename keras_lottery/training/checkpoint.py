"""Checkpoints: a training that was stopped goes on from its last whole one.

A checkpoint is a safetensors file whose name carries the sha256 of its bytes,
so that a damaged one is never taken for whole. Two are kept, and the last one
is there while the next is written.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from typing import NamedTuple

import numpy as np

from keras_lottery import checks
from keras_lottery import files
from keras_lottery import regular_file
from keras_lottery.errors import RunError
from keras_lottery.training import state_file
from keras_lottery.training.state import Snapshot

KEPT = 2
SECONDS = 30.0  # between two checkpoints, where nothing else is asked for
_SHARE = 50  # times what the last one took: under 2 % of the time
_ARRAY = "array of numpy"
_DTYPE = re.compile(r"bool|(u?int|float)(8|16|32|64)")
# What reading a header may come to that was not written by `pack`.
_NOT_WHOLE = (
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    RecursionError,
)
_NAME = re.compile(r"checkpoint-([0-9]{8})-([0-9a-f]{32})\.safetensors")

log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """All that decides how a training goes on.

    Fields:
        record: Dict of what JSON holds: where it is, its step, its curve.
        snapshots: Dict from name to `Snapshot`.
        arrays: Dict from name to array: masks, states of metrics.
    """

    record: dict
    snapshots: dict
    arrays: dict


class Checkpoints:
    """The checkpoints of one training, in a folder.

    Args:
        folder: Where they are; it need not exist, and may hold other files.
        of: Text that says of what they are. Those of anything else are not
            read, wherever they come from.
    """

    def __init__(self, folder, of):
        self._folder, self._of = os.fspath(folder), of
        self._whole = None  # the name of the last one read or written

    def save(self, checkpoint):
        """Writes a checkpoint beside the last one; those before it go.

        Raises:
            OSError: It could not be written; the last one is still there.
        """
        os.makedirs(self._folder, exist_ok=True)
        content = pack(checkpoint, self._of)
        there = self._there()
        number = there[-1][0] + 1 if there else 0
        digest = hashlib.sha256(content).hexdigest()[:32]
        written = f"checkpoint-{number:08}-{digest}.safetensors"
        names = [name for _, name in there]
        kept = self._whole if self._whole in names else (names or [None])[-1]
        for name in names:  # first: there are never three
            if name != kept:
                os.unlink(self._path(name))
        files.write_whole(self._path(written), content)
        self._whole = written

    def newest(self, check=lambda found: None):
        """Returns the last whole checkpoint, or None; names damaged ones.

        Args:
            check: Function of a `Checkpoint` that raises a RunError where it
                cannot be used.
        """
        for _, name in reversed(self._there()):
            try:
                found = self._read(name)
                check(found)
                self._whole = name
                return found
            except (OSError, RunError) as error:
                log.warning("%s is not used: %s", self._path(name), error)
        return None

    def clear(self):
        """Removes all of them."""
        for _, name in self._there():
            os.unlink(self._path(name))

    def _there(self):
        """Returns (number, name), in order."""
        if not os.path.isdir(self._folder):
            return []
        found = map(_NAME.fullmatch, os.listdir(self._folder))
        return sorted((int(match[1]), match[0]) for match in found if match)

    def _read(self, name):
        path = self._path(name)
        content = regular_file.read(path)
        digest = _NAME.fullmatch(name)[2]
        if hashlib.sha256(content).hexdigest()[:32] != digest:
            raise RunError("it differs from its checksum.")
        return unpack(content, self._of)

    def _path(self, name):
        return os.path.join(self._folder, name)


class Pace:
    """Says when the next checkpoint is due.

    By time, it is due `seconds` after the last one, or 50 times what that one
    took, so that writing costs less than 2 % of the time.

    Args:
        steps: Steps between two, or None to go by time.
        seconds: Seconds between two.

    Attributes:
        steps: Steps between two, or None.
    """

    def __init__(self, steps=None, seconds=SECONDS):
        if steps is not None:
            checks.whole("checkpoint steps", steps, 1)
        if not seconds >= 0:
            raise ValueError(
                f"checkpoint seconds={seconds!r} must be a number >= 0."
            )
        self.steps, self._seconds = steps, seconds
        self._cost, self._step = 0.0, 0
        self._saved = time.monotonic()

    def begin(self, step):
        """Told the step that a training begins at."""
        self._step = step

    def due(self, step):
        """Returns whether to save at a step."""
        if self.steps is not None:
            return step - self._step >= self.steps
        wanted = max(self._seconds, _SHARE * self._cost)
        return time.monotonic() - self._saved >= wanted

    @contextlib.contextmanager
    def saving(self, step):
        """Notes that a checkpoint is written inside, and what that takes."""
        began = time.monotonic()
        yield
        self._saved, self._step = time.monotonic(), step
        self._cost = self._saved - began


def metric_values(model):
    """Returns the states of a model's metrics, as arrays by name."""
    return {
        f"metric/{index}": np.array(variable.numpy(), copy=True)
        for index, variable in enumerate(_metric_variables(model))
    }


def restore_metrics(model, arrays):
    """Puts the states of a model's metrics back.

    Args:
        model: A compiled `keras.Model` whose metrics have their variables.
        arrays: What `metric_values` returned, among others.

    Raises:
        RunError: The metrics are others than then.
    """
    variables = _metric_variables(model)
    values = _under("metric/", arrays)
    wanted = {str(n): tuple(v.shape) for n, v in enumerate(variables)}
    if {name: value.shape for name, value in values.items()} != wanted:
        raise RunError("the metrics are others than in the checkpoint.")
    for index, variable in enumerate(variables):
        variable.assign(values[str(index)])


def _metric_variables(model):
    return [variable for each in model.metrics for variable in each.variables]


def pack(checkpoint, of):
    """Returns the bytes of a checkpoint.

    Args:
        checkpoint: A `Checkpoint`.
        of: Text that says of what it is.

    Example:

    >>> packed = pack(Checkpoint({"step": 3}, {}, {}), "level 2")
    >>> unpack(packed, "level 2").record
    {'step': 3}
    """
    counts = {
        name: None if taken.optimizer is None else len(taken.optimizer)
        for name, taken in checkpoint.snapshots.items()
    }
    header = {"of": of, "record": checkpoint.record, "slots": counts}
    text = json.dumps(header, default=_encoded).encode()
    arrays = {"header": np.frombuffer(text, np.uint8)}
    for name, taken in checkpoint.snapshots.items():
        for key, value in taken.model.items():
            arrays[f"model/{name}/{key}"] = value
        for index, value in enumerate(taken.optimizer or ()):
            arrays[f"slot/{name}/{index}"] = value
        for index, value in enumerate(taken.recurrent):
            arrays[f"recurrent/{name}/{index}"] = value
    for name, value in checkpoint.arrays.items():
        arrays[f"array/{name}"] = value
    return state_file.pack(Snapshot(arrays, None))


def unpack(content, of):
    """Returns the `Checkpoint` in some bytes.

    Raises:
        RunError: They hold none, or one of something else.
    """
    arrays = state_file.unpack(content).model
    try:
        text = arrays["header"].tobytes()
        header = json.loads(text, object_hook=_decoded)
        if header["of"] != of:
            raise RunError(f"it is of {header['of']!r}, not of {of!r}.")
        snapshots = {
            name: Snapshot(
                _under(f"model/{name}/", arrays),
                None
                if count is None
                else tuple(arrays[f"slot/{name}/{i}"] for i in range(count)),
                _in_turn(_under(f"recurrent/{name}/", arrays)),
            )
            for name, count in header["slots"].items()
        }
        record = header["record"]
    except _NOT_WHOLE as error:
        raise RunError(f"not a whole checkpoint: {error!r}.") from error
    return Checkpoint(record, snapshots, _under("array/", arrays))


def _encoded(value):
    """Returns an array or a number of NumPy as JSON can hold it."""
    if isinstance(value, (np.ndarray, np.generic)):
        return {_ARRAY: value.tolist(), "dtype": value.dtype.name}
    raise TypeError(f"{type(value).__name__} is not kept in a checkpoint.")


def _decoded(value):
    if value.keys() == {_ARRAY, "dtype"}:
        if not _DTYPE.fullmatch(value["dtype"]):
            raise ValueError(f"{value['dtype']!r:.80} is no dtype of numbers")
        # An array without dimensions is what NumPy makes of its numbers.
        return np.array(value[_ARRAY], value["dtype"])[()]
    return value


def _under(prefix, arrays):
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _in_turn(numbered):
    return tuple(numbered[str(index)] for index in range(len(numbered)))
