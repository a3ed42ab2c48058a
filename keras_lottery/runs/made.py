"""What was made of a run: its report, and the exports noted in made.json."""

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
    """Returns the path of the export of a ticket (its sha256), or None.

    Args:
        run: The `RunDirectory`.
        ticket: The sha256 of a ticket file.
    """
    for version, of in _noted(run).get("exports", {}).items():
        path = _path_of(run, version)
        if of == ticket and path is not None:
            return path
    return None


def exports(run):
    """Returns the paths of the exports that are noted and there."""
    return [
        path
        for version in sorted(_noted(run).get("exports", {}))
        if (path := _path_of(run, version)) is not None
    ]


def note_export(run, path, ticket):
    """Notes of which ticket (its sha256) an exported version is."""
    exports = _noted(run).get("exports", {})
    found = {"exports": {**exports, os.path.basename(path): ticket}}
    where = paths.inside(run.path, paths.MADE)
    run.write(where, sealed_json.pack(found))


def differences(run):
    """Returns what is not as it was when it was made, as sentences."""
    try:
        noted = read(run)
    except RunError as error:
        return [str(error)]
    found = _of_report(run)
    for version in sorted(noted.get("exports", {})):
        if not os.path.isdir(os.path.join(run.export_path, version)):
            found.append(f"{paths.EXPORT}/{version} is missing")
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
    if not isinstance(found.get("exports", {}), dict):
        raise DamageError(f"{path} is damaged: it has no exports.")
    return found


def _noted(run):
    """What is damaged is made again, and noted again."""
    try:
        return read(run)
    except RunError:
        return {}


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
