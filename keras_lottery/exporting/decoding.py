"""A payload in TensorFlow's core operations: decoded once, then only looked at.

Where decoded arrays are kept decides what a request of a small network costs,
where every operation counts (LeNet: 0.4 of 50 microseconds each):

rows    large arrays, in one variable of rows that a request splits at rows and
        reshapes, which copies nothing
small   arrays of a few kB, joined in one variable and cut out by one operation:
        copying them costs less than operations on each
apart   a large array that ends within a row, which would be copied whole at
        every request, has a variable of its own
"""

import hashlib
import itertools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_lottery.exporting import codec

SMALL = 2**12  # elements


class Layout(NamedTuple):
    """Which slots of a payload are kept how."""

    rows: list
    small: list
    apart: list


def decode(blob, payload):
    """Decodes with TensorFlow's core operations.

    Args:
        blob: Scalar string tensor.
        payload: The `Payload` that says what is in it.

    Returns:
        Tensor of shape [rows, 16] with all arrays, zeros included.
    """
    data = tf.io.decode_raw(tf.io.decode_compressed(blob, "ZLIB"), tf.uint8)
    codes, values, raw = tf.split(data, payload.sections)
    takes = codes < codec.SKIP
    after = tf.cumsum(tf.cast(codes, tf.int32) + tf.cast(takes, tf.int32))
    places = tf.gather_nd(after, tf.where(takes)) - 1
    flat = tf.scatter_nd(
        tf.reshape(places, [-1, 1]),
        _joined(values, payload.stored),
        [payload.rows * codec.ROW],
    )
    rows = _scaled(tf.reshape(flat, [-1, codec.ROW]), payload)
    others = tf.reshape(_joined(raw, payload.dtype), [-1, codec.ROW])
    # In place, where a concatenation would copy everything once more.
    first = sum(slot.rows for slot in payload.sparse)
    places = tf.reshape(tf.range(first, payload.rows), [-1, 1])
    return tf.tensor_scatter_nd_update(rows, places, others)


def layout(payload):
    """Returns the `Layout` of a payload."""
    small = [slot for slot in payload.slots if slot.size <= SMALL]
    large = [slot for slot in payload.slots if slot.size > SMALL]
    rows = [slot for slot in large if slot.size % codec.ROW == 0]
    apart = [slot for slot in large if slot.size % codec.ROW]
    return Layout(rows, small, apart)


def shapes(payload):
    """Returns the shape of each variable that a payload is kept in."""
    rows, small, apart = layout(payload)
    found = [slot.shape for slot in apart]
    if small:
        found.insert(0, (sum(slot.size for slot in small),))
    if rows:
        found.insert(0, (sum(slot.rows for slot in rows), codec.ROW))
    return found


def shared_name(payload, index):
    """Returns a name that no variable of other content has.

    Resources without one share a single variable wherever exports meet, and
    answer with each other's weights.

    Args:
        payload: The `Payload`.
        index: Which of its variables.
    """
    kept = [(slot.shape, slot.rows) for slot in payload.slots]
    content = repr((kept, payload.sections, payload.scales)).encode()
    digest = hashlib.sha256(content + payload.blob).hexdigest()[:16]
    return f"{payload.dtype.name}_{digest}_{index}"


def distributed(rows, payload):
    """Returns what each variable holds, in the order of `shapes`.

    Args:
        rows: What `decode` returned.
        payload: The `Payload`.
    """
    kept = layout(payload)
    of = {slot.name: i for i, group in enumerate(kept) for slot in group}
    found = ([], [], [])
    # What lies together is taken together: no copies at every slot.
    runs = [
        (group, list(run))
        for group, run in itertools.groupby(
            payload.slots, lambda slot: of[slot.name]
        )
    ]
    sizes = [sum(slot.rows for slot in run) for _, run in runs]
    for part, (group, run) in zip(tf.split(rows, sizes), runs, strict=True):
        if group == 0:
            found[group].append(part)
        else:
            found[group].extend(_exact(part, run))
    held = [
        tf.reshape(each, slot.shape) for each, slot in zip(found[2], kept[2])
    ]
    for group in (found[1], found[0]):
        if group:
            held.insert(0, group[0] if len(group) == 1 else tf.concat(group, 0))
    return held


def views(tensors, payload):
    """Returns dict from name to tensor, as cheap as it gets.

    Args:
        tensors: What the variables hold, in the order of `shapes`.
        payload: The `Payload`.
    """
    rows, small, apart = layout(payload)
    tensors = list(tensors)
    found = {}
    if rows:
        parts = tf.split(tensors.pop(0), [slot.rows for slot in rows])
        found.update(_shaped(rows, parts))
    if small:
        parts = tf.split(tensors.pop(0), [slot.size for slot in small])
        found.update(_shaped(small, parts))
    return {**found, **_shaped(apart, tensors)}


def _exact(part, run):
    """Returns each slot of a run of rows as a flat array without padding."""
    sizes = []
    for slot in run:
        sizes += [slot.size, slot.rows * codec.ROW - slot.size]
    return tf.split(tf.reshape(part, [-1]), sizes)[::2]


def _shaped(slots, tensors):
    return {
        slot.name: tensor
        if tuple(tensor.shape) == tuple(slot.shape)
        else tf.reshape(tensor, slot.shape)
        for slot, tensor in zip(slots, tensors, strict=True)
    }


def _scaled(rows, payload):
    if payload.scales is not None:
        # Whole rows belong to one array: which one, by where the arrays end.
        ends = np.cumsum([slot.rows for slot in payload.sparse], dtype=np.int32)
        owners = tf.searchsorted(ends, tf.range(payload.rows), side="right")
        # One more for the rows that follow, which are not written yet.
        scales = tf.gather(tf.constant([*payload.scales, 1.0]), owners)
        rows = tf.cast(rows, tf.float32) * scales[:, None]
    return tf.cast(rows, payload.dtype)


def _joined(planes, dtype):
    columns = tf.transpose(tf.reshape(planes, [dtype.itemsize, -1]))
    if dtype.itemsize == 1:
        columns = columns[:, 0]  # a cast of bits takes wider ones together
    return tf.bitcast(columns, tf.as_dtype(dtype))
