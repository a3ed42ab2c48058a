"""What was made of a run: its report, and the exports noted in made.json."""

import hashlib
import os
import re

from keras_lottery import files
from keras_lottery import regular_file
from keras_lottery import sealed_json
from keras_lottery.errors import DamageError
from keras_lottery.errors import RunError
from keras_lottery.runs import formats
from keras_lottery.runs import paths


def exported(run, ticket):
    """Returns the path of a whole export of a ticket (its sha256), or None.

    Args:
        run: The `RunDirectory`.
        ticket: The sha256 of a ticket file.
    """
    for version, of in _noted(run).get("exports", {}).items():
        path = _path_of(run, version)
        if of["ticket"] == ticket and path and not _of_export(path, of):
            return path
    return None


def note_export(run, path, ticket):
    """Notes of which ticket (its sha256) an exported version is."""
    exports = _noted(run).get("exports", {})
    of = {"ticket": ticket, "card": _card_of(path)}
    found = {"exports": {**exports, os.path.basename(path): of}}
    where = paths.inside(run.path, paths.MADE)
    run.write(where, sealed_json.pack(found))


def differences(run):
    """Returns what is not as it was when it was made, as sentences."""
    try:
        noted = read(run)
    except RunError as error:
        return [str(error)]
    found = _of_report(run)
    for version, of in sorted(noted.get("exports", {}).items()):
        path = _path_of(run, version)
        if path is None:
            found.append(f"{paths.EXPORT}/{version} is missing")
        else:
            label = f"{paths.EXPORT}/{version}"
            found += [f"{label}: {each}" for each in _of_export(path, of)]
    return found


def read(run):
    """Returns what is noted, a dict; empty where nothing was made.

    Raises:
        DamageError: made.json is damaged.
    """
    path = paths.inside(run.path, paths.MADE)
    if not os.path.lexists(path):
        return {}
    found = formats.read_sealed(path)
    exports = found.get("exports", {})
    if not isinstance(exports, dict) or not all(
        isinstance(of, dict) and {"ticket", "card"} <= of.keys()
        for of in exports.values()
    ):
        raise DamageError(f"{path} is damaged: it has no exports.")
    return found


def _noted(run):
    """What is damaged is made again, and noted again."""
    try:
        return read(run)
    except RunError:
        return {}


def _of_export(path, of):
    """Returns what differs in an export from what was noted, as sentences."""
    # Only here: it is made for TensorFlow, and reports have none.
    from keras_lottery.exporting.verifying import contents

    if _card_of(path) != of["card"]:
        return [f"{contents.CARD} is not as it was written"]
    return contents.of_links(path) + contents.of_card(path, [])


def _card_of(path):
    """Returns the sha256 of an export's card; None without one."""
    try:
        content = regular_file.read(os.path.join(path, "model_card.json"))
    except OSError:
        return None
    return hashlib.sha256(content).hexdigest()


def _path_of(run, version):
    """Returns the folder of an exported version; None if it is not there."""
    if not re.fullmatch(r"[0-9]+", version):
        return None
    path = paths.inside(run.path, paths.EXPORT, version)
    return path if os.path.isdir(path) else None


def _of_report(run):
    """A run that was stopped has none; its own checksum is at its end."""
    try:
        whole = files.is_sealed(regular_file.read(run.report_path))
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{paths.REPORT} cannot be read: {error.strerror}"]
    again = "`keras-lottery report` writes it again"
    return [] if whole else [f"{paths.REPORT} is damaged: {again}"]
