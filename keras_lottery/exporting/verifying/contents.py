"""What lies in a version directory: checked as files, nothing is run."""

import hashlib
import json
import os
import re

from keras_lottery.exporting.card.sizes import CARDS

SAVED_MODEL = "saved_model.pb"
CARD = CARDS[0]
OTHER_KINDS = {
    ".tflite": "LiteRT's interpreter",
    ".onnx": "an ONNX runtime",
    ".keras": "`keras.saving.load_model`",
}
FILES = {
    "compact": SAVED_MODEL,
    "compact-serving": SAVED_MODEL,
    "dense": SAVED_MODEL,
    "keras": "model.keras",
    "lite": "model.tflite",
    "onnx": "model.onnx",
}


def version_directory(path):
    """Returns the version that a server would load, or None.

    Args:
        path: A version directory, or a directory of numbered versions.
    """
    if not os.path.isdir(path):
        return None
    names = os.listdir(path)
    if SAVED_MODEL in names or other_kinds(path):
        return path
    numbers = [name for name in names if re.fullmatch(r"[0-9]+", name)]
    if not numbers:
        return None
    newest = os.path.join(path, max(numbers, key=int))
    return newest if version_directory(newest) == newest else None


def of_links(path):
    """Returns sentences on links, which a server would follow."""
    return [
        f"{os.path.relpath(os.path.join(folder, name), path)} is a link: what "
        "it leads to is no part of the export"
        for folder, folders, names in os.walk(path)
        for name in sorted(folders + names)
        if os.path.islink(os.path.join(folder, name))
    ]


def other_kinds(path):
    """Returns {name: ending} of files that other programs run."""
    endings = {name: os.path.splitext(name)[1] for name in os.listdir(path)}
    return {k: v for k, v in sorted(endings.items()) if v in OTHER_KINDS}


def card(path):
    """Returns the model card of a version directory; None without one.

    Raises:
        ValueError: It is damaged.
    """
    card_path = os.path.join(path, CARD)
    if not os.path.exists(card_path):
        return None
    try:
        with open(card_path, encoding="utf-8") as file:
            found = json.load(file)
        return {**found, "files": dict(found["files"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{CARD} is damaged: {error!r}.") from error


def of_card(path, notes):
    """Returns what is not as the model card says, as sentences."""
    try:
        known = card(path)
    except ValueError as error:
        return [str(error)]
    if known is None:
        notes.append(f"no {CARD}: there are no checksums to compare with")
        return []
    files = known["files"]
    found = _of_format(path, known.get("format"))
    for name, digest in sorted(files.items()):
        found += _of_file(path, name, digest)
    if not found:
        notes.append(f"{len(files)} files have the checksums of {CARD}")
    return found + _unknown_files(path, files)


def _of_format(path, name):
    if name not in FILES:
        return [f"{CARD} says the format {name!r}, expected one of {[*FILES]}"]
    if os.path.isfile(os.path.join(path, FILES[name])):
        return []
    return [f"{CARD} says the format {name!r}, which needs {FILES[name]}"]


def _of_file(path, name, digest):
    file_path = os.path.normpath(os.path.join(path, name))
    if not file_path.startswith(os.path.join(os.path.normpath(path), "")):
        return [f"{CARD} names {name!r}, which is outside of the export"]
    if not os.path.isfile(file_path):
        return [f"{name} is missing"]
    with open(file_path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            return [f"{name} has another checksum than {CARD} says"]
    return []


def _unknown_files(path, files):
    """Files that the card does not list; what a server may read counts."""
    known = {*map(os.path.normpath, files), *CARDS}
    return [
        f"{name} is not in {CARD}"
        for folder, _, names in sorted(os.walk(path))
        for each in sorted(names)
        if (name := os.path.relpath(os.path.join(folder, each), path))
        not in known
    ]
