"""safetensors of strangers: sizes are compared with the file before reading.

The header names every array with its shape and place; what it says has to
fill the file exactly before any of it is read.
"""

import hashlib
import json
import math

import numpy as np
import safetensors.numpy

from keras_lottery import strict_json

# The longest header that safetensors itself reads.
LONGEST_HEADER = 100_000_000
_METADATA = "__metadata__"
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "U32": 4,
    "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


def pack(arrays, metadata):
    """Returns the bytes of a file.

    Args:
        arrays: Dict from name to array.
        metadata: Dict from text to text.

    Raises:
        ValueError: The header is longer than one can be.
    """
    content = safetensors.numpy.save(arrays, metadata)
    if int.from_bytes(content[:8], "little") > LONGEST_HEADER:
        raise ValueError(
            "names and metadata take more than 100 MB, which no reader of "
            "safetensors accepts"
        )
    return content


def load(file, size):
    """Returns (metadata, arrays by name) of an open file.

    Args:
        file: A binary file, at its start.
        size: Number of its bytes; no more are read.

    Raises:
        ValueError: It is no such file, or not whole.
    """
    head = file.read(min(8, size))
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > min(size - 8, LONGEST_HEADER):
        raise ValueError("its header is cut off")
    header = strict_json.loads(file.read(length).decode())
    metadata = _checked(header, size - 8 - length)
    file.seek(0)
    arrays = safetensors.numpy.load(file.read(size))
    for name, array in arrays.items():
        if array.dtype == bool and array.view(np.uint8).max(initial=0) > 1:
            raise ValueError(f"{name!r} holds bools that are none")
    return metadata, arrays


def checksum(text, arrays):
    """Returns the hex sha256 of a text, and of arrays with their names.

    Args:
        text: What the arrays are stored with.
        arrays: Dict from name to array.
    """
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        shape = arrays[name].shape  # not that of a scalar made contiguous
        digest.update(f"{name} {array.dtype} {shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _checked(header, size):
    """Returns the metadata of a header that describes `size` bytes."""
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    metadata = header.pop(_METADATA, None)
    if not isinstance(metadata, dict):
        raise ValueError("its header has no metadata")
    if (described := sum(map(_bytes, header.values()))) != size:
        raise ValueError(
            f"its header describes {described:,} bytes of arrays, and "
            f"{size:,} are there"
        )
    return metadata


def _bytes(entry):
    shape = entry["shape"]
    if not isinstance(shape, list) or not all(
        type(length) is int and length >= 0 for length in shape
    ):
        raise ValueError(f"its header has a shape {json.dumps(shape)[:80]}")
    if len(shape) > 64:
        raise ValueError(f"its header has an array of {len(shape)} dimensions")
    if entry["dtype"] not in _BYTES:
        raise ValueError(f"its header has the dtype {entry['dtype']!r:.80}")
    return math.prod(shape) * _BYTES[entry["dtype"]]
