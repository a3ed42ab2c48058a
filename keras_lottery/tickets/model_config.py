"""Networks of strangers: what a ticket's config may name, and how large it is.

Keras builds what a config says. Here only layers and functions of Keras, and
classes that the user registered, are built from one: none that hold code or
read files, whatever `keras.config.enable_unsafe_deserialization` says. It is
built in a graph first, where nothing is computed, so that its sizes are known
before they take memory.
"""

import copy
import math
import re
import sys

import keras
import tensorflow as tf

from keras_lottery.errors import TicketError
from keras_lottery.training import keras_private

_PUBLIC = (
    "keras",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.models",
    "keras.quantizers",
    "keras.random",
    "keras.regularizers",
)
_PRIVATE = re.compile(
    r"keras\.src\.(applications|layers|models|ops)(\.[a-z_0-9]+)+"
)
_OF_FUNCTIONS = (
    "keras.activations",
    "keras.constraints",
    "keras.initializers",
    "keras.ops",
    "keras.regularizers",
)
# They hold code, or read files and other people's models.
_NEVER = {
    "FlaxLayer", "IndexLookup", "IntegerLookup", "JaxLayer", "Lambda",
    "StringLookup", "TFSMLayer", "TextVectorization", "TorchModuleWrapper",
}  # fmt: skip
_PLAIN = {"__bytes__", "__ellipsis__", "__keras_tensor__", "__slice__"}
_ARRAYS = {"__numpy__", "__tensor__"}
_DTYPE = re.compile(r"bool|bfloat16|(u?int|float)(8|16|32|64)")

_DEEPEST = 200
_MOST_OBJECTS = 10_000  # and ten for every array of the ticket
_MOST_BYTES = 64 * 2**20  # and 32 for every byte of the ticket


def build(config, arrays, check):
    """Returns the model of a config.

    Args:
        config: The model's Keras config, a dict; it stays as it is.
        arrays: List of the ticket's arrays: how large the model may be.
        check: Function that raises unless the variables of a model, which may
            have no values, are those that are expected.

    Raises:
        TicketError: It names what is never built, or is too large.
    """
    walk = _Walk(_MOST_OBJECTS + 10 * len(arrays))
    config = walk.checked(config)
    try:
        needed = _try(config, check)
    except TicketError:
        raise
    except Exception:
        # Layers of the user may want values that a graph has not.
        if not walk.registered:
            raise
    else:
        most = _MOST_BYTES + 32 * sum(each.nbytes for each in arrays)
        if needed > most:
            raise TicketError(
                f"Building the ticket's model takes {needed:,} bytes, more "
                f"than the {most:,} that fit its weights. Build it yourself "
                "and pass it."
            )
    return _built(config)


def _built(config):
    """Returns what Keras builds, in its safe mode whatever else is set."""
    with keras_private.safe_mode():
        return keras.saving.deserialize_keras_object(copy.deepcopy(config))


def _try(config, check):
    """Returns how many bytes Keras computes while it builds a model."""
    graph = tf.Graph()
    with graph.as_default():
        check(_built(config))
    outputs = [each for op in graph.get_operations() for each in op.outputs]
    return sum(map(_bytes, outputs))


def _bytes(tensor):
    if tensor.dtype in (tf.resource, tf.variant):
        return 0
    if not tensor.shape.is_fully_defined():
        return math.inf
    return math.prod(tensor.shape) * (tensor.dtype.size or 1)


class _Walk:
    """Looks at every object that a config names.

    Args:
        most: How many there may be.
    """

    def __init__(self, most):
        self._left = self._most = most
        self.registered = False  # whether classes of the user are among them

    def checked(self, config, depth=0):
        """Returns a copy without how models were compiled.

        Raises:
            TicketError: It names what is never built from a file.
        """
        if depth > _DEEPEST:
            raise TicketError("The ticket's model is nested too deeply.")
        if isinstance(config, (list, tuple)):
            return [self.checked(each, depth + 1) for each in config]
        if not isinstance(config, dict):
            return config
        config = dict(config)
        if "class_name" in config:
            self._check(config)
            config.pop("compile_config", None)
        return {k: self.checked(v, depth + 1) for k, v in config.items()}

    def _check(self, config):
        self._left -= 1
        if self._left < 0:
            raise TicketError(
                f"The ticket's model has more than {self._most:,} objects, "
                "more than fit its weights. Build it yourself and pass it."
            )
        name, module = config["class_name"], config.get("module")
        if not isinstance(name, str):
            _refuse(config)
        if name in _PLAIN or (name in _ARRAYS and _is_array(config)):
            return
        # Keras knows these before it asks its registry.
        if name.startswith("__") or name in _NEVER:
            _refuse(config)
        if name == "function":
            called = config.get("config")
            known, found = _registered(called), _function(module, called)
        else:
            # Its older format has no module, and goes by the class's name.
            called = config.get("registered_name") if module else name
            known, found = _registered(called), _class(module, name)
            if known is not None and name != _name_of(known, called):
                _refuse(config)
        if known is not None:
            self.registered = True
        elif found is None:
            _refuse(config)


def _registered(name):
    """Returns what the user registered by a name, or we; None for nothing."""
    if not isinstance(name, str) or name == "keras_lottery>PrunedModel":
        return None
    return keras.saving.get_registered_object(name)


def _name_of(known, called):
    """Returns the name of a registered class, be it not imported yet."""
    return getattr(known, "__name__", called.rpartition(">")[2])


def _class(module, name):
    """Returns the class of Keras that a config names, or None."""
    if not isinstance(module, str):
        return None
    if module in _PUBLIC:
        owner = _public(module)
    else:  # what Keras has imported by itself; nothing is for a config
        owner = _PRIVATE.fullmatch(module) and sys.modules.get(module)
    found = getattr(owner, name, None)
    if not isinstance(found, type) or not hasattr(found, "from_config"):
        return None
    never = _NEVER & {each.__name__ for each in found.__mro__}
    return None if never else found


def _function(module, name):
    """Returns the function of Keras that a config names, or None."""
    if not isinstance(name, str) or name in ("deserialize", "get", "serialize"):
        return None
    modules = _OF_FUNCTIONS if module == "builtins" else (module,)
    for each in modules:
        if each in _OF_FUNCTIONS:
            found = getattr(_public(each), name, None)
            if callable(found) and not isinstance(found, type):
                return found
    return None


def _public(module):
    """Returns `keras` or one of the modules in it."""
    name = module.removeprefix("keras").lstrip(".")
    return getattr(keras, name, None) if name else keras


def _is_array(config):
    inner = config.get("config")
    dtype = inner.get("dtype") if isinstance(inner, dict) else None
    return isinstance(dtype, str) and bool(_DTYPE.fullmatch(dtype))


def _refuse(config):
    name = config[
        "config" if config["class_name"] == "function" else "class_name"
    ]
    raise TicketError(
        f"The ticket's model has {name!r:.80} (module "
        f"{config.get('module')!r:.80}). Built from a file are only what Keras "
        "has, without what holds code or reads files ("
        f"{', '.join(sorted(_NEVER))}), and what you registered with "
        "keras.saving.register_keras_serializable. Build the model yourself "
        "and pass it."
    )
