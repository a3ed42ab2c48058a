"""JSON of strangers: what two readers could read differently is refused."""

import json


def loads(text):
    """Returns what a JSON text holds; no key twice in an object.

    NaN and infinities are numbers here: a loss may be one.

    Raises:
        ValueError: It is no JSON, a key is there twice, or it is too deep.

    Example:

    >>> loads('{"level": 1, "loss": NaN}')
    {'level': 1, 'loss': nan}
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set()
        twice = [name for name, _ in pairs if name in seen or seen.add(name)]
        raise ValueError(f"the key {twice[0][:80]!r} is there twice")
    return found
