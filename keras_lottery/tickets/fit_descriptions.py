"""What compilations, callbacks and data are, as text that processes share.

Nothing here depends on a process, a file name or a line number: a notebook that
is run again says the same. Of functions it is the code; what they close over
and call is not followed, and another Python compiles to other code.
"""

import functools
import inspect
import re
import types
import zlib

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.training import agreement

_LIBRARIES = ("keras", "keras_lottery", "tensorflow")
_PLAIN = (bool, int, float, str)
# They write what they see, and decide nothing of the training.
_WRITERS = ("CSVLogger", "ModelCheckpoint", "RemoteMonitor", "TensorBoard")
_NOT_COMPARED = ("self", "args", "kwargs", "verbose")


def described(value):
    """Returns what JSON can hold, the same in every process.

    Keras counts the objects of a process and names them by that, so numbers at
    the end of names are left out: the `auc_1` of a cell that is run again is
    the `auc` of before.

    Example:

    >>> described({"name": "auc_1", "rate": np.float32(0.5)})
    {'name': 'auc', 'rate': 0.5}
    """
    if isinstance(value, (np.ndarray, tf.Tensor)):
        return _array(tf.convert_to_tensor(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return _dict(value)
    if isinstance(value, (list, tuple)):
        return [described(each) for each in value]
    if value is None or isinstance(value, _PLAIN):
        return value
    if hasattr(value, "get_config") and not isinstance(value, type):
        return _object(value)
    return _function(value)


def of_callbacks(callbacks):
    """Returns the classes of callbacks, and the settings of Keras's own.

    A user's own may be built with other settings, such as paths.

    Example:

    >>> of_callbacks([keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
    [{'class': 'SwapEMAWeights', 'swap_on_epoch': True}]
    """
    return [
        {"class": type(each).__qualname__, **_settings(each)}
        for each in callbacks
    ]


def functions(value):
    """Returns descriptions of the functions of a user's own in attributes.

    Args:
        value: An object, such as a layer, a loss or a metric.
    """
    return {
        name.lstrip("_"): _function(each)
        for name, each in sorted(vars(value).items())
        if isinstance(each, types.FunctionType) and _is_own(each)
    }


def digest(code):
    """Returns a checksum of a code object, as 8 hexadecimal digits.

    Example:

    >>> one, other = (lambda x: 2 * x), (lambda x: 3 * x)
    >>> digest(one.__code__) == digest(other.__code__)
    False
    """
    return f"{zlib.crc32(_code(code).encode()):08x}"


def _dict(value):
    found = {str(name): described(each) for name, each in value.items()}
    if isinstance(found.get("name"), str):
        found["name"] = re.sub(r"_[0-9]+$", "", found["name"])
    if found.get("class_name") == "__lambda__":
        # Marshalled code holds the name of its file: another one in every
        # kernel. `functions` says what it does.
        found["config"] = None
    return found


def _object(value):
    about = {"class": type(value).__name__}
    try:
        about |= described(value.get_config())
    except NotImplementedError:  # a schedule of a user's own, or what holds one
        about |= {
            name: each
            for name, each in vars(value).items()
            if type(each) in _PLAIN and not name.startswith("_")
        }
        about = described(about)
    found = functions(value)
    return about | {"functions": found} if found else about


def _function(value):
    """Returns its name; with a checksum if it is a user's own function."""
    if isinstance(value, functools.partial):
        return [described(x) for x in (value.func, value.args, value.keywords)]
    name = getattr(value, "__name__", type(value).__name__)
    if isinstance(value, type) or not _is_own(value):
        return name
    inner = inspect.unwrap(value)
    code = getattr(inner, "__code__", None)
    if code is None:
        return name
    defaults = described([inner.__defaults__, inner.__kwdefaults__])
    text = f"{_code(code)} {defaults}"
    return f"{name} {zlib.crc32(text.encode()):08x}"


def _is_own(value):
    home = getattr(value, "__module__", None) or ""
    return home.split(".")[0] not in _LIBRARIES


def _code(code):
    """Returns a text that is the same wherever the code stands."""
    constants = [_constant(each) for each in code.co_consts]
    return repr((code.co_code.hex(), constants, code.co_names))


def _constant(value):
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, frozenset):  # in another order in every process
        return repr(sorted(map(_constant, value)))
    if isinstance(value, tuple):
        return repr([_constant(each) for each in value])
    return repr(value)


def _settings(callback):
    """Returns what Keras's classes of a callback were built with."""
    wanted = set()
    for kind in type(callback).__mro__:
        ours = kind.__module__.split(".")[0] == "keras"
        if ours and kind.__name__ in _WRITERS:
            return {}
        if ours and "__init__" in vars(kind):
            wanted.update(inspect.signature(kind.__init__).parameters)
    if isinstance(callback, keras.callbacks.LambdaCallback):
        wanted.update(name for name in vars(callback) if name[:3] == "on_")
    wanted.difference_update(_NOT_COMPARED)
    found = {n: v for n, v in sorted(vars(callback).items()) if n in wanted}
    if isinstance(found.get("min_delta"), (int, float)):
        found["min_delta"] = abs(found["min_delta"])  # they turn its sign
    return {name: described(value) for name, value in found.items()}


def _array(tensor):
    about = f"{tensor.dtype.name} {tuple(tensor.shape)}"
    if tensor.dtype == tf.string:
        return about
    return f"{about} {agreement.digest(tensor):08x}"
