"""What Keras callbacks have noted so far, as checkpoints keep it.

Values are kept as far as they are plain: numbers, text, None, arrays, and
lists, tuples and dicts of them. Anything else (files, models, functions, what a
lambda has closed over) stays as the callback has it. Nothing is pickled.
"""

import inspect
import io
import types

import ml_dtypes
import numpy as np

_PLAIN = (type(None), bool, int, float, str)
_NOT_STATE = ("model", "_model", "params", "validation_data")


def given(callbacks):
    """Returns what a user's own callbacks were built with, so far as is plain.

    That is what the script says, until training changes it.

    Args:
        callbacks: List of Keras callbacks that no training has begun with.

    Returns:
        List of dicts from attribute to a text of its value.
    """
    return [
        {
            name: _text(value)
            for name, value in vars(callback).items()
            if name.removeprefix("_") in _parameters(callback)
            and _is_plain(value)
        }
        for callback in callbacks
    ]


def taken(callbacks, begun=None):
    """Returns the states of callbacks.

    Args:
        callbacks: List of Keras callbacks.
        begun: What `given` returned for them. What is still the same is not
            kept, so that a script may go on with another path, say. What is
            not leaves it: it is state from then on.

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
    begun = begun or [{} for _ in callbacks]
    for callback, built in zip(callbacks, begun, strict=True):
        settings = _settings(callback)
        state = []
        for name, value in vars(callback).items():
            if name in settings or not _is_plain(value):
                continue
            if name in built and built[name] == _text(value):
                continue
            built.pop(name, None)
            state.append([name, _packed(value, arrays)])
        states.append(state)
    return states, arrays


def put_back(callbacks, states, arrays, begun=None):
    """Gives callbacks the states that `taken` returned.

    Args:
        callbacks: List of callbacks of the same classes, in the same order.
        states: As JSON gave it back.
        arrays: Dict that holds the arrays, among others.
        begun: What `given` returned; what is put back leaves it.
    """
    begun = begun or [{} for _ in callbacks]
    for callback, state, built in zip(callbacks, states, begun, strict=True):
        settings = _settings(callback)
        for name, value in state:
            if name not in settings and _may_be_set(callback, name):
                setattr(callback, name, _unpacked(value, arrays))
                built.pop(name, None)


def left_out(callbacks):
    """Returns the attributes that are not kept, though they may be state.

    Of a user's own callbacks; what can be called or written to is none.

    Example:

    >>> import collections
    >>> import keras
    >>> class Mean(keras.callbacks.Callback):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.last = collections.deque()
    >>> Mean.__module__ = "of_a_user"
    >>> left_out([Mean()])
    ['Mean.last']
    """
    return [
        f"{type(callback).__name__}.{name}"
        for callback in callbacks
        if _is_own(type(callback))
        for name, value in vars(callback).items()
        if name not in _settings(callback)
        and not _is_plain(value)
        and not isinstance(value, (io.IOBase, types.ModuleType))
        and not callable(value)
    ]


def _is_own(kind):
    return kind.__module__.split(".")[0] not in ("keras", "keras_lottery")


def _parameters(callback):
    """Returns what the constructors of a user's own classes take."""
    return {
        name
        for kind in type(callback).__mro__
        if _is_own(kind) and inspect.isfunction(vars(kind).get("__init__"))
        for name in inspect.signature(kind.__init__).parameters
    }


def _may_be_set(callback, name):
    """Returns whether an attribute is data: no method, no property."""
    there = inspect.getattr_static(type(callback), name, None)
    special = callable(there) or hasattr(type(there), "__get__")
    return not special and not name.startswith("__")


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
        brain = value.dtype == ml_dtypes.bfloat16  # of kind "V", to NumPy
        return brain or value.dtype.kind in "biuf"
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(_is_plain([*each]) for each in value.items())
    return type(value) in _PLAIN


def _text(value):
    """Returns a text that equal values have in common, and no others."""
    arrays = {}
    packed = _packed(value, arrays)
    return repr((packed, [(a.dtype, a.tobytes()) for a in arrays.values()]))


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
