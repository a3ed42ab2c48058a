"""The payload of a compact export: sparse arrays as gaps and values.

All arrays lie one after the other in one flat array of rows of 16 elements,
sparse ones first. One zlib stream holds three sections:

    index   a byte b per kept value: b < 255 skips b zeros and takes the next
            value, 255 skips 255 zeros and takes none
    values  byte planes of the kept values: all first bytes, all second bytes
    raw     byte planes of the arrays that are not sparse, whole

Byte planes are little-endian. zlib's checksum spans all sections. The kept
values may be stored in fewer bits (`rounding`); what is raw never is.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from keras_lottery.exporting import deflating
from keras_lottery.exporting import rounding

# Rows of 64 bytes (float32) make every array of the flat one start aligned, so
# that TensorFlow splits it into views and copies nothing.
ROW = 16
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
SKIP = 255
MOST = 2**31  # positions are int32 where the payload is decoded


class Slot(NamedTuple):
    """An array's place in the flat one."""

    name: str
    shape: tuple
    rows: int

    @property
    def size(self):
        """Elements without the padding to whole rows."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Payload:
    """Arrays of one dtype, encoded.

    Fields:
        blob: The zlib stream.
        dtype: numpy dtype of the arrays.
        stored: numpy dtype in which the kept values are stored.
        scales: For each sparse slot what its values are multiplied by, or
            None: they are as they are.
        sparse: `Slot`s whose kept values are in `values`, in flat order.
        raw: `Slot`s that follow them, whole.
        sections: Bytes of index, values and raw, before zlib.
        compressed: Bytes of the three in the blob, flush markers included.
    """

    blob: bytes
    dtype: np.dtype
    stored: np.dtype
    scales: tuple | None
    sparse: tuple
    raw: tuple
    sections: tuple
    compressed: tuple

    @property
    def slots(self):
        """All slots, in flat order."""
        return self.sparse + self.raw

    @property
    def rows(self):
        """Rows of the flat array."""
        return sum(slot.rows for slot in self.slots)

    @property
    def index_bytes(self):
        """Bytes that say where the values are."""
        return self.compressed[0]


def encode(arrays, masks=None, values="float32"):
    """Encodes arrays of one dtype.

    Args:
        arrays: Dict from name to array: float32, float16 or bfloat16.
        masks: Dict from name to bool array for some or all of them: what is
            not kept becomes +0.0.
        values: `"float32"` for the arrays' own dtype, or `"float16"`,
            `"bfloat16"`, `"int8"`: kernels are rounded to that, if it is
            narrower than they are.

    Returns:
        A `Payload`. Unless rounded it decodes bit for bit, -0.0 and NaN
        included, except for what the masks drop. A -0.0 that no mask drops is
        stored as a value.

    Raises:
        ValueError: Several dtypes or another one, 2^31 elements or more, a
            mask that fits no array, or a value that `values` cannot hold.

    Example:

    >>> kernel = np.diag(np.arange(1, 6, dtype=np.float32))
    >>> payload = encode({"kernel": kernel, "bias": np.ones(5, np.float32)})
    >>> [slot.name for slot in payload.sparse]
    ['kernel']
    >>> bool((decode(payload)["kernel"] == kernel).all())
    True
    """
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    dtype = _one_dtype(arrays)
    masks = _checked(masks or {}, arrays)
    masked = {
        name: np.where(masks.get(name, True), value, dtype.type(0))
        for name, value in arrays.items()
    }
    narrower = rounding.DTYPES.get(rounding.check(values), dtype).itemsize
    split = _rounded if narrower < dtype.itemsize else _split
    stored, sparse, raw, scales = split(masked, dtype, values)
    flat = _flat(sparse, stored)
    kept = np.flatnonzero(flat)
    index = [_gaps(kept)]
    sections = [index, _planes(flat[kept]), _planes(_flat(raw, dtype))]
    blob, compressed = deflating.smallest(sections)
    return Payload(
        blob,
        dtype,
        stored,
        scales,
        _slots(sparse, arrays),
        _slots(raw, arrays),
        tuple(sum(map(len, section)) for section in sections),
        compressed,
    )


def decode(payload):
    """Returns dict from name to array; the reference for TensorFlow's decoder.

    Raises:
        ValueError: The payload is damaged.
    """
    index, values, raw = deflating.inflate(payload.blob, payload.sections)
    codes = np.frombuffer(index, np.uint8)
    takes = codes != SKIP
    after = np.cumsum(codes.astype(np.int64) + takes)
    rows = [slot.rows for slot in payload.sparse]
    flat = np.zeros(sum(rows) * ROW, payload.stored)
    flat[after[takes] - 1] = _joined(values, payload.stored)
    if payload.scales is not None:
        scales = np.array(payload.scales, np.float32)
        flat = flat * np.repeat(scales, np.array(rows, int) * ROW)
    flat = flat.astype(payload.dtype)
    flat = np.concatenate([flat, _joined(raw, payload.dtype)])
    arrays, first = {}, 0
    for slot in payload.slots:
        whole = flat[first : first + slot.size]
        arrays[slot.name] = whole.reshape(slot.shape)
        first += slot.rows * ROW
    return arrays


def entropy_bytes(sizes, kept):
    """Returns the least bytes that say where the kept values are.

    H = sum n (-p log2 p - (1 - p) log2(1 - p)) / 8 with p = kept / n.

    Args:
        sizes: Elements of each array.
        kept: Values kept of each.

    Example:

    >>> entropy_bytes([800, 800], [400, 0])
    100.0
    """
    bits = 0.0
    for size, count in zip(sizes, kept, strict=True):
        if 0 < count < size:
            p = count / size
            bits -= size * (p * math.log2(p) + (1 - p) * math.log2(1 - p))
    return bits / 8


def _one_dtype(arrays):
    found = {value.dtype.name: value.dtype for value in arrays.values()}
    unknown = sorted(set(found) - set(WIDTHS))
    if unknown or len(found) > 1:
        raise ValueError(
            f"A payload holds one dtype of {', '.join(WIDTHS)}, got "
            f"{', '.join(sorted(found))}. Encode the arrays of each dtype on "
            "their own, and others not at all."
        )
    size = sum(_rows(value.size) * ROW for value in arrays.values())
    if size >= MOST:
        raise ValueError(
            f"A payload holds fewer than 2^31 elements, got {size:,}. Encode "
            "the arrays in several parts; a model, with format='dense'."
        )
    return next(iter(found.values()), np.dtype("float32"))


def _checked(masks, arrays):
    for name, mask in masks.items():
        if name not in arrays or np.shape(mask) != arrays[name].shape:
            expected = getattr(arrays.get(name), "shape", "no array")
            raise ValueError(
                f"The mask of {name!r} has shape {np.shape(mask)}, expected "
                f"{expected}."
            )
    return {name: np.asarray(mask, bool) for name, mask in masks.items()}


def _bits_dtype(dtype):
    return np.dtype(f"<u{dtype.itemsize}")


def _bits(value, dtype):
    """Patterns, not values: 0.0 == -0.0, and NaN is not itself."""
    return np.ravel(value).view(_bits_dtype(dtype))


def _split(arrays, dtype, values):
    """Returns the dtype of what is sparse, its bits, those of the others."""
    del values
    sparse, raw = {}, {}
    for name, value in arrays.items():
        bits = _bits(value, dtype)
        # Below half zeros the gaps cost more than the zeros do.
        pays = np.count_nonzero(bits) * 2 < bits.size and bits.size >= ROW
        (sparse if pays else raw)[name] = bits
    return dtype, sparse, raw, None


def _rounded(arrays, dtype, values):
    """Returns the narrower dtype, bits of kernels and of others, and scales.

    Every kernel is stored sparse, full ones too: a gap of 0 costs nothing once
    it is compressed.
    """
    found = {
        name: rounding.rounded(value, values, name)
        for name, value in arrays.items()
        if value.ndim > 1
    }
    stored = rounding.DTYPES[values]
    zero = stored.type(0)
    sparse = {
        # What was rounded to zero may have a sign, and is zero.
        name: _bits(np.where(each.stored == 0, zero, each.stored), stored)
        for name, each in found.items()
    }
    raw = {n: _bits(v, dtype) for n, v in arrays.items() if n not in found}
    if values != "int8":
        return stored, sparse, raw, None
    return stored, sparse, raw, tuple(each.scale for each in found.values())


def _rows(size):
    return -(-size // ROW)


def _slots(group, arrays):
    return tuple(
        Slot(name, arrays[name].shape, _rows(arrays[name].size))
        for name in group
    )


def _flat(group, dtype):
    parts = [np.zeros(0, _bits_dtype(dtype))]
    for bits in group.values():
        parts.append(np.pad(bits, (0, _rows(bits.size) * ROW - bits.size)))
    return np.concatenate(parts)


def _gaps(kept):
    zeros = np.diff(kept, prepend=-1) - 1
    lengths = zeros // SKIP + 1
    codes = np.full(int(lengths.sum()), SKIP, np.uint8)
    codes[np.cumsum(lengths) - 1] = zeros % SKIP
    return codes.tobytes()


def _planes(bits):
    columns = bits.view(np.uint8).reshape(-1, bits.dtype.itemsize).T
    return [column.tobytes() for column in columns]


def _joined(planes, dtype):
    columns = np.frombuffer(planes, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(columns.T).reshape(-1).view(dtype)
