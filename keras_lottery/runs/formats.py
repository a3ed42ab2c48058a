"""How a run's tables and records are written and read."""

import csv
import io
import json

from keras_lottery.errors import RunError


def as_json(value):
    """Returns the bytes of a JSON file."""
    return json.dumps(value, indent=1).encode()


def read_json(path):
    """Returns what a JSON file holds, a dict.

    Raises:
        RunError: There is no such file, or it holds something else.
    """
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read())
    except FileNotFoundError as error:
        raise RunError(
            f"There is no {path}: this is not a run, or not a whole one."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: it holds no object.")
    return found


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
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
