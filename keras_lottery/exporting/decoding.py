"""A payload in TensorFlow's core operations: decoded once, then only looked at.

Decoded arrays lie in one variable of rows. A request splits it at rows, which
copies nothing, and reshapes the parts. Small arrays that follow each other are
one part, copied out together: a few kB cost less than operations on each. A
large array that ends within a row would be copied whole at every request, so it
gets a variable of its own.
"""

import hashlib
import itertools

import numpy as np
import tensorflow as tf

from keras_lottery.exporting import codec

SMALL = 2**12  # elements


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
    places = tf.gather_nd(after, tf.where(takes))[:, None] - 1
    flat = tf.scatter_nd(
        places, _joined(values, payload.stored), [payload.rows * codec.ROW]
    )
    rows = _scaled(tf.reshape(flat, [-1, codec.ROW]), payload)
    others = tf.reshape(_joined(raw, payload.dtype), [-1, codec.ROW])
    # In place, where a concatenation would copy everything once more.
    first = sum(slot.rows for slot in payload.sparse)
    places = tf.range(first, payload.rows)[:, None]
    return tf.tensor_scatter_nd_update(rows, places, others)


def apart(payload):
    """Returns the slots that get a variable of their own."""
    return [slot for slot in payload.slots if _is_apart(slot)]


def main_rows(payload):
    """Returns the number of rows in the variable of all others."""
    return payload.rows - sum(slot.rows for slot in apart(payload))


def shared_name(payload, index=None):
    """Returns a name that no variable of other content has.

    Resources without one share a single variable wherever exports meet, and
    answer with each other's weights.

    Args:
        payload: The `Payload`.
        index: Of a variable of its own, in the order of `apart`.
    """
    layout = (payload.slots, payload.sections, payload.scales)
    content = repr([(s.shape, s.rows) for s in layout[0]] + list(layout[1:]))
    digest = hashlib.sha256(content.encode() + payload.blob).hexdigest()[:16]
    end = "" if index is None else f"_{index}"
    return f"{payload.dtype.name}_{digest}{end}"


def distributed(rows, payload):
    """Returns what each variable holds: that of all others, then `apart`.

    Args:
        rows: What `decode` returned.
        payload: The `Payload`.
    """
    if not apart(payload):
        return [rows]
    parts = tf.split(rows, [slot.rows for slot in payload.slots])
    main, own = [tf.zeros([0, codec.ROW], payload.dtype)], []
    for part, slot in zip(parts, payload.slots, strict=True):
        if _is_apart(slot):
            flat = tf.reshape(part, [-1])[: slot.size]
            own.append(tf.reshape(flat, slot.shape))
        else:
            main.append(part)
    return [tf.concat(main, 0), *own]


def views(tensors, payload):
    """Returns dict from name to tensor, as cheap as it gets.

    Args:
        tensors: What the variables hold, in the order of `distributed`.
        payload: The `Payload`.
    """
    rows, *own = tensors
    found = {
        slot.name: tensor
        for slot, tensor in zip(apart(payload), own, strict=True)
    }
    runs = _runs(payload)
    sizes = [sum(slot.rows for slot in run) for run in runs]
    for part, run in zip(tf.split(rows, sizes), runs, strict=True):
        if _is_small(run[0]):
            found.update(_copies(part, run))
        else:
            found[run[0].name] = tf.reshape(part, run[0].shape)
    return found


def _is_small(slot):
    return slot.size <= SMALL


def _is_apart(slot):
    return slot.size % codec.ROW != 0 and not _is_small(slot)


def _runs(payload):
    """Returns lists of slots: small ones that follow each other, or one."""
    others = [slot for slot in payload.slots if not _is_apart(slot)]
    runs = []
    for small, group in itertools.groupby(others, _is_small):
        group = list(group)
        runs.extend([group] if small else ([slot] for slot in group))
    return runs


def _copies(part, run):
    """Returns small arrays by name, cut out of their rows all at once."""
    sizes = []
    for slot in run:
        sizes += [slot.size, slot.rows * codec.ROW - slot.size]
    pieces = tf.split(tf.reshape(part, [-1]), sizes)[::2]
    return {
        slot.name: piece
        if slot.shape == (slot.size,)
        else tf.reshape(piece, slot.shape)
        for slot, piece in zip(run, pieces, strict=True)
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
