"""How a run's tables and records are written and read."""

import contextlib
import csv
import io

from keras_lottery import regular_file
from keras_lottery import sealed_json
from keras_lottery.errors import DamageError
from keras_lottery.errors import RunError


def read_json(path):
    """Returns what a JSON file of a run holds, a dict, as it is.

    Raises:
        RunError: There is no such file.
        DamageError: It holds something else.
    """
    with _explained(path):
        return sealed_json.read_unchecked(path)


def read_sealed(path):
    """Returns what a sealed JSON file of a run holds.

    Raises:
        RunError: There is no such file.
        DamageError: It is not as it was written.
    """
    with _explained(path):
        return sealed_json.read(path)


@contextlib.contextmanager
def _explained(path):
    try:
        yield
    except FileNotFoundError as error:
        raise RunError(
            f"There is no {path}: this is not a run, or not a whole one."
        ) from error


def as_csv(rows):
    """Returns the bytes of a csv file; columns in the order of first sight.

    Example:

    >>> as_csv([{"level": 0}, {"level": 1, "loss": 0.5}])
    b'level,loss\\n0,\\n1,0.5\\n'
    """
    columns = list({name: None for row in rows for name in row})
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_csv(path):
    """Returns the rows of a csv file, dicts of text; none if there is none.

    Raises:
        RunError: It is no csv file.
    """
    try:
        text = regular_file.read(path).decode("utf-8")
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise DamageError(f"{path} is damaged: {error}.") from error
