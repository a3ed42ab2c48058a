"""Tickets on disk: safetensors with one JSON of metadata. No pickle.

Keys: `mask/NAME` packed bits, `start/NAME` whole, `end/NAME` kept values,
`state/start/NAME` and `state/end/NAME` for the other variables. The metadata
key `keras_lottery` holds the JSON, with a checksum over everything else.
"""

import hashlib
import json
import os

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from keras_lottery import files
from keras_lottery.errors import TicketError
from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets.ticket import Ticket

FORMAT = 1
_FIELDS = ("level", "metrics", "provenance", "model_config")


def write(ticket, path):
    """Writes `ticket` to `path`: aside first, then renamed."""
    files.write_whole(path, pack(ticket))


def pack(ticket):
    """Returns the bytes of a ticket file."""
    arrays = _arrays(ticket)
    header = {name: getattr(ticket, name) for name in _FIELDS}
    header.update(
        format=FORMAT,
        masks={name: list(shape) for name, shape in ticket.mask.shapes.items()},
        bfloat16=sorted(n for n, a in arrays.items() if _is_bfloat16(a)),
    )
    stored = {
        name: array.view(np.uint16) if _is_bfloat16(array) else array
        for name, array in arrays.items()
    }
    header = json.loads(json.dumps(header, default=_plain))
    header["checksum"] = _checksum(header, stored)
    text = json.dumps(header, sort_keys=True)
    return safetensors.numpy.save(stored, {"keras_lottery": text})


def read(path):
    """Returns the ticket at `path`; every byte is checked."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise TicketError(f"Cannot read {path}: {error.strerror}.") from error
    try:
        header, arrays = _parse(content)
        return _ticket(header, arrays)
    except TicketError as error:
        raise TicketError(f"{path}: {error}") from error
    except Exception as error:
        raise TicketError(
            f"{path} is not a whole ticket file ({type(error).__name__}: "
            f"{error})."
        ) from error


def _arrays(ticket):
    arrays = {f"mask/{n}": bits for n, bits in ticket.mask.pack().items()}
    parts = {
        "start": ticket.start,
        "end": ticket.end,
        "state/start": ticket.start_state,
        "state/end": ticket.end_state,
    }
    for prefix, values in parts.items():
        for name, value in values.items():
            # Not `ascontiguousarray`, which makes scalars arrays of one.
            arrays[f"{prefix}/{name}"] = np.asarray(value, order="C")
    return {name: arrays[name] for name in sorted(arrays)}


def _parse(content):
    """Returns the JSON and the arrays of a file's bytes, checked."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    header = json.loads(metadata["keras_lottery"])
    if header.get("format") != FORMAT:
        raise TicketError(
            f"format {header.get('format')!r} is not known to this version, "
            f"which reads format {FORMAT}. Update keras_lottery."
        )
    stored = safetensors.numpy.load(content)
    claimed = header.pop("checksum")
    if _checksum(header, stored) != claimed:
        raise TicketError("the checksum differs: the file is damaged.")
    brains = set(header["bfloat16"])
    if not brains <= set(stored):
        raise TicketError("it names arrays as bfloat16 that it has not.")
    arrays = {
        name: value.view(ml_dtypes.bfloat16) if name in brains else value
        for name, value in stored.items()
    }
    return header, arrays


def _ticket(header, arrays):
    _check_fields(header)
    shapes = {name: tuple(shape) for name, shape in header["masks"].items()}
    for name, shape in shapes.items():
        if not all(type(length) is int for length in shape):
            raise TicketError(f"the shape of {name!r} is not one: {shape}.")
    mask = Mask.unpack(_under("mask/", arrays), shapes)
    known = ("mask/", "start/", "end/", "state/start/", "state/end/")
    if stray := [name for name in arrays if not name.startswith(known)]:
        raise TicketError(f"its arrays {stray} belong to nothing.")
    ticket = Ticket(
        mask,
        _under("start/", arrays),
        _under("state/start/", arrays),
        _under("end/", arrays),
        _under("state/end/", arrays),
        **{name: header[name] for name in _FIELDS},
    )
    _check_shapes(ticket)
    return ticket


def _check_fields(header):
    level = header["level"]
    if type(level) is not int or level < 0:
        raise TicketError(f"its level is {level!r}.")
    for name in ("metrics", "provenance", "model_config"):
        optional = name == "model_config" and header[name] is None
        if not optional and not isinstance(header[name], dict):
            raise TicketError(f"its {name} is {header[name]!r}.")


def _check_shapes(ticket):
    kept = ticket.mask.kept_by_name
    for values in (ticket.start, ticket.end or ticket.start):
        if set(values) != set(kept):
            raise TicketError("its weights and its masks differ in names.")
    for name, shape in ticket.mask.shapes.items():
        if ticket.start[name].shape != shape:
            raise TicketError(f"start and mask of {name!r} differ in shape.")
        if ticket.end and ticket.end[name].shape != (kept[name],):
            raise TicketError(f"{name!r} has not one value per kept weight.")


def _under(prefix, arrays):
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _checksum(header, stored):
    text = json.dumps(header, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for name in sorted(stored):
        array = stored[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _is_bfloat16(array):
    return array.dtype == ml_dtypes.bfloat16


def _plain(value):
    """Returns NumPy values as JSON can hold them, and others as text."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
