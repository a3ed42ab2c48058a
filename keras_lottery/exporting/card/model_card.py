"""What a version directory says about itself: facts, and a page of them."""

import collections.abc
import hashlib
import json
import math
import os
import platform

import numpy as np

from keras_lottery import files
from keras_lottery.exporting import network as networks
from keras_lottery.exporting import rounding
from keras_lottery.exporting.card import card_text
from keras_lottery.exporting.card import sizes
from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets.lottery import versions

JSON, MARKDOWN = sizes.CARDS


def write(path, facts):
    """Writes `model_card.json` and `MODEL_CARD.md` into a directory.

    Args:
        path: The version directory.
        facts: Dict from `facts`; numbers that JSON has not become text.
    """
    facts = plain(facts)
    text = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False)
    for name, content in (
        (JSON, text + "\n"),
        (MARKDOWN, card_text.markdown(facts)),
    ):
        # A name may hold half of a surrogate pair: shown, not refused.
        encoded = content.encode("utf-8", "backslashreplace")
        files.write_whole(os.path.join(path, name), encoded)


def facts(
    path,
    model,
    *,
    name,
    format,
    values="float32",
    exported=None,
    ticket=None,
    mask=None,
    shrink=None,
    differences=None,
    rows=0,
    accuracy=None,
    measured=None,
):
    """Returns what there is to say about an export, without dates or places.

    Args:
        path: The version directory, with everything but the cards in it.
        model: The Keras 3 or tf_keras model as it was trained.
        name: What the served model is called.
        format: Of the export.
        values: dtype of the stored values.
        exported: The model that was written, if it is another one: shrunk.
        ticket: The `Ticket` it is of, if any.
        mask: The mask, where there is one without a ticket.
        shrink: The report of what was removed, if anything.
        differences: Dict from `probe.largest_difference`.
        rows: Samples that the differences are over.
        accuracy: Dict with `before`, `after` and the number of `samples`.
        measured: Dict from `measuring.measure`.

    Returns:
        Dict of plain values.
    """
    mask = mask if ticket is None else ticket.mask
    trained = networks.of(model)
    written = trained if exported is None else networks.of(exported)
    # Other formats round in ways of their own: theirs are counted unrounded.
    rounded = values if format.startswith("compact") else "float32"
    sparse, others = _stored(written.weights, mask, rounded)
    bound = sizes.bound(sparse.values(), others.values())
    of_weights = _of_weights(sparse, mask)
    return plain(
        {
            "name": name,
            "format": format,
            "values": values,
            "inputs": {
                key: {"shape": list(spec.shape), "dtype": spec.dtype.name}
                for key, spec in trained.specs.items()
            },
            "shrink": None if shrink is None else str(shrink),
            "sparsity": _sparsity(of_weights),
            "weights": of_weights,
            "other_values": sum(value.size for value in others.values()),
            "mask": _of_mask(trained.weights, mask),
            "ticket": None if ticket is None else _of_ticket(ticket),
            "bytes": sizes.sizes(path, model, bound),
            "differences": {"samples": rows, "outputs": differences or {}},
            "accuracy": accuracy,
            "measured": measured,
            "versions": {"python": platform.python_version(), **versions()},
            "files": checksums(path),
        }
    )


def checksums(path):
    """Returns {relative path: sha256} of all files but the cards."""
    return {
        name: hashlib.sha256(each.read_bytes()).hexdigest()
        for name, each in sizes.files(path)
    }


def plain(value):
    """Returns a value in the types of JSON; what it has none for as text.

    Example:

    >>> plain({1: (np.float32(0.5), np.inf), "at": "/home/me/data"})
    {'1': [0.5, 'infinity'], 'at': 'data'}
    """
    if isinstance(value, collections.abc.Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' * (value < 0)}infinity"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _without_places(str(value))


def _without_places(text):
    # Where the machine that exported keeps its files is nobody's business.
    return os.path.basename(text.rstrip("/")) if os.path.isabs(text) else text


def _stored(weights, mask, values):
    """Returns the floats that can be sparse, as stored, and the other ones."""
    floats = {k: v for k, v in weights.items() if "float" in v.dtype.name}
    names = set(mask or ())
    sparse = {k: v for k, v in floats.items() if v.ndim > 1 or k in names}
    others = {k: v for k, v in floats.items() if k not in sparse}
    for name, value in sparse.items():
        dtype = rounding.DTYPES.get(values, value.dtype)
        if value.ndim > 1 and dtype.itemsize < value.dtype.itemsize:
            sparse[name] = rounding.rounded(value, values, name).stored
    return sparse, others


def _of_weights(sparse, mask):
    kept = {} if mask is None else mask.kept_by_name
    return {
        name: {
            "shape": list(value.shape),
            "total": value.size,
            "kept": int(np.count_nonzero(value)),
            "density": _density(np.count_nonzero(value), value.size),
            "kept_by_mask": kept.get(name),
        }
        for name, value in sparse.items()
    }


def _sparsity(rows):
    total = sum(row["total"] for row in rows.values())
    kept = sum(row["kept"] for row in rows.values())
    density = _density(kept, total)
    return {"total": total, "kept": kept, "density": density}


def _density(kept, total):
    return kept / total if total else 1.0


def _of_mask(weights, mask):
    of = "the ticket or the pruned model"
    if mask is None:
        of = "the weights of the model that are not 0"
        sparse, _ = _stored(weights, None, "float32")
        mask = Mask({name: value != 0 for name, value in sparse.items()})
    return {
        "of": of,
        "sha256": mask.checksum,
        "kept": mask.kept,
        "total": mask.size,
    }


def _of_ticket(ticket):
    return {
        "level": ticket.level,
        "metrics": dict(ticket.metrics),
        "provenance": dict(ticket.provenance),
    }
