"""JSON files that hold their own checksum: one that was damaged is known."""

import hashlib
import json

from keras_lottery import regular_file
from keras_lottery import strict_json
from keras_lottery.errors import DamageError

_KEY = "checksum"


def pack(value):
    """Returns the bytes of a file.

    Args:
        value: Dict that JSON can hold.
    """
    return json.dumps({**value, _KEY: _seal(value)}, indent=1).encode()


def read(path):
    """Returns what a file holds, a dict, without its checksum.

    Raises:
        FileNotFoundError: There is none.
        DamageError: It is not as it was written.
    """
    found = read_unchecked(path)
    if found.pop(_KEY, None) != _seal(found):
        raise DamageError(f"{path} is damaged: it differs from its checksum.")
    return found


def read_unchecked(path):
    """Returns what a JSON file holds, a dict, with its checksum if it has one.

    Raises:
        FileNotFoundError: There is none.
        DamageError: It holds no object.
    """
    try:
        found = strict_json.loads(regular_file.read(path))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DamageError(f"{path} is damaged: {error}.") from error
    if not isinstance(found, dict):
        raise DamageError(f"{path} is damaged: it holds no object.")
    return found


def _seal(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
