"""Tickets on disk: safetensors with one JSON of metadata. No pickle.

Keys: `mask/NAME` packed bits, `start/NAME` whole, `end/NAME` kept values,
`state/start/NAME` and `state/end/NAME` for the other variables. The metadata
key `keras_lottery` holds the JSON, with a checksum over everything else.
"""

import json
import os

import ml_dtypes
import numpy as np

from keras_lottery import arrays_file
from keras_lottery import files
from keras_lottery import regular_file
from keras_lottery import strict_json
from keras_lottery.errors import TicketError
from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets.ticket import Ticket

FORMAT = 1
_FIELDS = ("level", "metrics", "provenance", "model_config")
_PARTS = ("mask/", "start/", "end/", "state/start/", "state/end/")
_HEADER = {*_FIELDS, "format", "masks", "bfloat16"}
_MOST_LEVELS = 10**6  # of prunings: what is counted with it stays a float


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
    return arrays_file.pack(stored, {"keras_lottery": text})


def read(path):
    """Returns the ticket at `path`; every byte is checked."""
    path = os.fspath(path)
    try:
        with regular_file.opened(path) as (file, size):
            return _ticket(*_parse(*arrays_file.load(file, size)))
    except OSError as error:
        raise TicketError(f"Cannot read {path}: {error.strerror}.") from error
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


def _parse(metadata, stored):
    """Returns the JSON and the arrays of a file, checked."""
    if set(metadata) != {"keras_lottery"}:
        raise TicketError(f"its metadata are {sorted(metadata)}.")
    header = strict_json.loads(metadata["keras_lottery"])
    found = header.get("format")
    if type(found) is not int or found != FORMAT:
        raise TicketError(
            f"format {found!r} is not known to this version, which reads "
            f"format {FORMAT}. Update keras_lottery."
        )
    claimed = header.pop("checksum")
    if _checksum(header, stored) != claimed:
        raise TicketError("the checksum differs: the file is damaged.")
    # From here on the file is as somebody wrote it: who, nobody knows.
    if set(header) != _HEADER:
        raise TicketError(f"its fields are {sorted(header)}.")
    brains = _brains(header["bfloat16"], stored)
    arrays = {
        name: value.view(ml_dtypes.bfloat16) if name in brains else value
        for name, value in stored.items()
    }
    return header, arrays


def _brains(names, stored):
    """Returns the names of the arrays that hold bfloat16."""
    if not isinstance(names, list) or not set(names) <= set(stored):
        raise TicketError("it names arrays as bfloat16 that it has not.")
    if wrong := [name for name in names if stored[name].dtype != np.uint16]:
        raise TicketError(f"its arrays {wrong} are no bfloat16.")
    return set(names)


def _ticket(header, arrays):
    _check_fields(header)
    if stray := [name for name in arrays if not name.startswith(_PARTS)]:
        raise TicketError(f"its arrays {stray} belong to nothing.")
    shapes = {name: tuple(shape) for name, shape in header["masks"].items()}
    mask = Mask.unpack(_under("mask/", arrays), shapes)
    ticket = Ticket(
        mask,
        _under("start/", arrays),
        _under("state/start/", arrays),
        _under("end/", arrays),
        _under("state/end/", arrays),
        **{name: header[name] for name in _FIELDS},
    )
    _check_names(ticket)
    _check_arrays(ticket)
    return ticket


def _check_fields(header):
    level = header["level"]
    if type(level) is not int or not 0 <= level <= _MOST_LEVELS:
        raise TicketError(f"its level is {level!r}.")
    for name in ("metrics", "provenance", "model_config", "masks"):
        optional = name == "model_config" and header[name] is None
        if not optional and not isinstance(header[name], dict):
            raise TicketError(f"its {name} is {header[name]!r:.80}.")
    for name, shape in header["masks"].items():
        if not isinstance(shape, list):
            raise TicketError(f"the shape of {name!r} is {shape!r:.80}.")


def _check_names(ticket):
    masks = set(ticket.mask)
    for values in (ticket.start, ticket.end or ticket.start):
        if set(values) != masks:
            raise TicketError("its weights and its masks differ in names.")
    for others in (ticket.start_state, ticket.end_state):
        # They would be written over the masked weights.
        if both := sorted(masks & set(others)):
            raise TicketError(f"{both} are weights with masks, and others too.")


def _check_arrays(ticket):
    kept = ticket.mask.kept_by_name
    for name, shape in ticket.mask.shapes.items():
        start = ticket.start[name]
        if start.shape != shape:
            raise TicketError(f"start and mask of {name!r} differ in shape.")
        if not _is_float(start):
            raise TicketError(f"{name!r} is of {start.dtype}, not of floats.")
        if not ticket.end:
            continue
        if ticket.end[name].shape != (kept[name],):
            raise TicketError(f"{name!r} has not one value per kept weight.")
        if ticket.end[name].dtype != start.dtype:
            raise TicketError(f"start and end of {name!r} differ in dtype.")


def _under(prefix, arrays):
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _checksum(header, stored):
    return arrays_file.checksum(json.dumps(header, sort_keys=True), stored)


def _is_float(array):
    return array.dtype.kind == "f" or _is_bfloat16(array)


def _is_bfloat16(array):
    return array.dtype == ml_dtypes.bfloat16


def _plain(value):
    """Returns NumPy values as JSON can hold them, and others as text."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
