"""levels.csv and times.csv: made from the levels, and known if damaged.

tables.json has their checksums as they were last written: a table that lacks
levels is then told from one that was cut.
"""

import hashlib
import time

from keras_lottery import regular_file
from keras_lottery import sealed_json
from keras_lottery.errors import DamageError
from keras_lottery.runs import formats
from keras_lottery.runs import paths

_PATIENCE, _PAUSE = 40, 0.05  # looks at a run that is played; seconds between


def save(run):
    """Writes the tables of all that is done.

    Args:
        run: The `RunDirectory`, locked.
    """
    contents = _contents(run)
    for name, content in contents.items():
        run.write(paths.inside(run.path, name), content)
    sums = {name: _digest(content) for name, content in contents.items()}
    path = paths.inside(run.path, paths.TABLES)
    run.write(path, sealed_json.pack(sums))


def differences(run):
    """Returns what is not as it was written in the tables, as sentences.

    One that is merely older, as whoever plays the run has not come to write it
    again, or was killed before, is not damaged.

    Args:
        run: The `RunDirectory`.

    Raises:
        RunError: A record of a level is damaged.
    """
    for _ in range(_PATIENCE):
        found = differences_now(run)
        if not found or not run.is_locked():
            break
        time.sleep(_PAUSE)  # three files are not written at one moment
    return found


def differences_now(run):
    """Returns the same of a run that this process plays."""
    found = []
    run.forget_rows()
    right = _contents(run)
    there = {name: _read(paths.inside(run.path, name)) for name in right}
    try:
        written = sealed_json.read(paths.inside(run.path, paths.TABLES))
    except FileNotFoundError:
        written = {}
    except DamageError as error:
        return [str(error)]
    for name, content in there.items():
        if content is None:
            found += [f"{name} is missing"] * (name in written)
        elif content != right[name] and not (
            _digest(content) == written.get(name)
            and _is_part(content, right[name])
        ):
            found.append(f"{name} is not what the levels say")
    return found


def _contents(run):
    """Returns the bytes of the tables, by name."""
    found = run.rows_and_times()
    return {
        paths.LEVELS: formats.as_csv([row for row, _ in found]),
        paths.TIMES: formats.as_csv([moment for _, moment in found if moment]),
    }


def _is_part(older, newer):
    return set(older.splitlines()) <= set(newer.splitlines())


def _read(path):
    """Returns the bytes of a file; None where there is none."""
    try:
        return regular_file.read(path)
    except FileNotFoundError:
        return None
    except OSError:  # a folder, a pipe: no table
        return b""


def _digest(content):
    return hashlib.sha256(content).hexdigest()
