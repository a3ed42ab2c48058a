"""What an export takes on disk, and what it is compared with."""

import contextlib
import gzip
import io
import math
import pathlib
import re
import tarfile
import tempfile

import numpy as np

from keras_lottery import choices
from keras_lottery.exporting import codec
from keras_lottery.exporting import dense

CARDS = ("model_card.json", "MODEL_CARD.md")
EXTRA = "assets.extra"  # warm-up requests: of the samples, not of the model


def sizes(path, model, bound):
    """Returns the bytes of an export and of what it is compared with.

    Args:
        path: The version directory.
        model: The model as it was trained.
        bound: Bytes from `bound`.

    Returns:
        Dict from what was measured to `bytes` and `ratio` (to the bytes of
        this export), or to why it was `not_measured`.
    """
    own = directory_bytes(path)
    packed = tar_bytes(path)
    return {
        "export": {"bytes": own, "ratio": 1.0},
        "export_tar_gz": _with_ratio(packed, own),
        **_other_writer("dense", dense.write_dense, model, own),
        **_other_writer("keras", _keras_export, model, own),
        "bound": _with_ratio(bound, own),
    }


def bound(sparse, others):
    """Returns bytes: places at their entropy, values and all else as they are.

    Args:
        sparse: Arrays as they are stored, whole.
        others: Arrays that no zero is left out of.

    Example:

    >>> bound([np.float16([0] * 12 + [1] * 4)], [np.ones(3, np.float32)])
    22
    """
    kept = [int(np.count_nonzero(value)) for value in sparse]
    places = codec.entropy_bytes([value.size for value in sparse], kept)
    values = sum(
        count * value.dtype.itemsize
        for count, value in zip(kept, sparse, strict=True)
    )
    return math.ceil(places + values + sum(value.nbytes for value in others))


def directory_bytes(path):
    """Returns the bytes of all files but the cards and `assets.extra`."""
    return sum(each.stat().st_size for _, each in _counted(path))


def tar_bytes(path):
    """Returns the bytes of those files as a `.tar.gz` without dates."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", 9, packed, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for name, each in _counted(path):
            entry = tarfile.TarInfo(name)
            entry.size = each.stat().st_size
            with each.open("rb") as file:
                archive.addfile(entry, file)
    return len(packed.getvalue())


def files(path):
    """Returns (relative path, `Path`) of all files but the cards, in order."""
    found = [each for each in pathlib.Path(path).rglob("*") if each.is_file()]
    named = {each.relative_to(path).as_posix(): each for each in found}
    return [(n, named[n]) for n in sorted(named) if n not in CARDS]


def _counted(path):
    return [(n, e) for n, e in files(path) if not n.startswith(f"{EXTRA}/")]


def _keras_export(model, path):
    model.export(path, **choices.accepted(model.export, verbose=False))


def _other_writer(name, write_other, model, own):
    """Returns the rows of another exporter, as files and packed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # tf_keras tells
                write_other(model, folder)
        except Exception as error:  # whatever a converter comes upon
            first = (str(error).strip().splitlines() or [""])[0]
            reason = _shown(f"{type(error).__name__}: {first}")
            missing = {"not_measured": reason}
            return {name: missing, f"{name}_tar_gz": dict(missing)}
        return {
            name: _with_ratio(directory_bytes(folder), own),
            f"{name}_tar_gz": _with_ratio(tar_bytes(folder), own),
        }


def _shown(reason):
    return re.sub(r"(?<!\w)/[^\s'\"]+", "(path)", reason)[:300]


def _with_ratio(count, own):
    return {"bytes": count, "ratio": count / own}
