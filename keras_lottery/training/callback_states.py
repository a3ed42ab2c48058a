"""What Keras callbacks have noted so far, as checkpoints keep it.

Values are kept as far as they are plain: numbers, text, None, arrays, and
lists, tuples and dicts of them. Anything else (files, models, functions, what a
lambda has closed over) stays as the callback has it. Nothing is pickled.
"""

import inspect

import numpy as np

_PLAIN = (type(None), bool, int, float, str)
_NOT_STATE = ("model", "_model", "params", "validation_data")


def taken(callbacks):
    """Returns the states of callbacks.

    Args:
        callbacks: List of Keras callbacks.

    Returns:
        A list of what JSON can hold, and a dict of arrays.

    Example:

    >>> import keras
    >>> stop = keras.callbacks.EarlyStopping(patience=3)
    >>> stop.wait, stop.best_weights = 2, [np.ones(2)]
    >>> states, arrays = taken([stop])
    >>> other = keras.callbacks.EarlyStopping(patience=3)
    >>> put_back([other], states, arrays)
    >>> other.wait, other.best_weights
    (2, [array([1., 1.])])
    """
    arrays, states = {}, []
    for callback in callbacks:
        settings = _settings(callback)
        state = []
        for name, value in vars(callback).items():
            if name in settings or not _is_plain(value):
                continue
            state.append([name, _packed(value, arrays)])
        states.append(state)
    return states, arrays


def put_back(callbacks, states, arrays):
    """Gives callbacks the states that `taken` returned.

    Args:
        callbacks: List of callbacks of the same classes, in the same order.
        states: As JSON gave it back.
        arrays: Dict that holds the arrays, among others.
    """
    for callback, state in zip(callbacks, states, strict=True):
        settings = _settings(callback)
        for name, value in state:
            if name not in settings and not name.startswith("__"):
                setattr(callback, name, _unpacked(value, arrays))


def _settings(callback):
    """Returns attributes that are no state.

    Settings of Keras's own callbacks are what the script says: EarlyStopping
    turns the sign of its `min_delta` by itself.
    """
    found = set(_NOT_STATE)
    for kind in type(callback).__mro__:
        own = "__init__" in vars(kind)
        if own and kind.__module__.split(".")[0] == "keras":
            found.update(inspect.signature(kind.__init__).parameters)
    return found


def _is_plain(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind in "biuf"
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(_is_plain([*each]) for each in value.items())
    return type(value) in _PLAIN


def _packed(value, arrays):
    """Returns [kind, value]; arrays go to `arrays`."""
    if isinstance(value, (np.ndarray, np.generic)):
        name = f"callback/{len(arrays)}"
        arrays[name] = np.array(value, copy=True)
        return ["array" if isinstance(value, np.ndarray) else "scalar", name]
    if type(value) in (list, tuple):
        kind = type(value).__name__
        return [kind, [_packed(each, arrays) for each in value]]
    if type(value) is dict:
        return ["dict", [_packed([*each], arrays) for each in value.items()]]
    return ["value", value]


def _unpacked(packed, arrays):
    kind, value = packed
    if kind == "array":
        return np.array(arrays[value], copy=True)
    if kind == "scalar":
        return arrays[value][()]
    if kind == "value":
        return value
    inside = [_unpacked(each, arrays) for each in value]
    return {"list": list, "tuple": tuple, "dict": dict}[kind](inside)


def names(callbacks):
    """Returns the names of the classes of callbacks."""
    return [type(each).__qualname__ for each in callbacks]
