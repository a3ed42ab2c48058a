"""A legacy model, seen as a Keras 3 layer: the same names, live variables.

Everything in this package that reads or writes a model goes through the names
of `pruning/naming.py`. A mirror is a tree of Keras 3 layers with the class
names, layer names and attributes of the legacy ones, so that the same code
names both; its variables are views of the legacy variables, not copies.
"""

import re
import weakref

import keras

from keras_lottery import tfmot_bridge

tf_keras = tfmot_bridge.legacy_keras()
PruneLowMagnitude = tfmot_bridge.wrapper_class()

_CELLS = ("LSTMCell", "GRUCell", "SimpleRNNCell")


class Mirror(keras.layers.Layer):
    """What stands for one legacy layer; made by `reflect`.

    Attributes:
        legacy: Weak reference to the legacy layer.
    """

    def __init__(self, legacy):
        # Keras 3 allows no slash in a name.
        super().__init__(name=legacy.name.replace("/", "_"))
        self.legacy = weakref.ref(legacy)

    def __call__(self, *unused, **unused_too):
        """Raises: this holds weights and computes nothing."""
        del unused, unused_too
        raise ValueError(
            f"{self.name!r} is a legacy (tf_keras) model, and this criterion "
            "calls the model on data, which takes a Keras 3 model. Use a "
            "criterion that works from weights, such as 'magnitude', or build "
            "the model with `import keras`."
        )

    def get_config(self):
        """Raises: Keras 3 cannot build a legacy model from its config."""
        raise NotImplementedError("A legacy model has no Keras 3 config.")


def reflect(legacy, seed=0):
    """Returns the `Mirror` of a legacy model, seen through tfmot's wrappers.

    Keras 3 keeps the seed of a dropout layer in a variable and tf_keras does
    not. The mirror has one that moves nothing, so that tickets fit both.

    Args:
        legacy: A built `tf_keras` model or layer.
        seed: What those seeds are.

    Example:

    >>> model = tf_keras.Sequential(
    ...     [tf_keras.layers.Dense(2, input_shape=(4,))]
    ... )
    >>> [variable.name for variable in reflect(model).variables]
    ['kernel', 'bias']
    """
    return _reflect(legacy, seed, {})


def unwrapped(layer):
    """Returns the layer inside tfmot's wrapper, or `layer` as it is."""
    return layer.layer if isinstance(layer, PruneLowMagnitude) else layer


def in_graph(model):
    """Returns whether a model is Sequential or Functional, as tfmot needs."""
    return isinstance(model, tf_keras.Sequential) or bool(
        getattr(model, "_is_graph_network", False)
    )


def _reflect(legacy, seed, made):
    legacy = unwrapped(legacy)
    if id(legacy) in made:
        return made[id(legacy)]
    mirror = made[id(legacy)] = _class_like(legacy)(legacy)
    for attribute, variable in _own_variables(legacy):
        setattr(mirror, attribute, variable)
    for attribute, held in _children(legacy):
        reflected = _reflected(held, lambda layer: _reflect(layer, seed, made))
        if reflected is not None:
            setattr(mirror, attribute, reflected)
    if _draws(legacy):
        mirror.seed_generator = keras.random.SeedGenerator(seed)
    mirror.built = legacy.built
    if not legacy.trainable:
        mirror.trainable = False
    return mirror


def _class_like(legacy):
    """Returns a `Mirror` class of the same name: naming goes by class names."""
    bases = type(legacy).__mro__
    module = type(legacy).__module__.removeprefix("tf_")
    graph = {"Functional", "Sequential"} & {each.__name__ for each in bases}
    parent = _GRAPH if graph else Mirror
    return type(type(legacy).__name__, (parent,), {"__module__": module})


# A user's subclass of Functional is a graph too, by the name of its base.
_GRAPH = type("Functional", (Mirror,), {"__module__": __name__})


def _own_variables(legacy):
    """Yields (attribute, `keras.Variable`) of a layer without its children."""
    attributes = {id(held): name for name, held in vars(legacy).items()}
    trained = legacy._trainable_weights
    for index, variable in enumerate(trained + legacy._non_trainable_weights):
        attribute = attributes.get(id(variable), f"variable_{index}")
        view = keras.Variable(
            variable,
            trainable=index < len(trained),
            dtype=variable.dtype.name,
            name=_role(legacy, variable),
        )
        # Underscores, which naming strips, keep clear of Keras's properties.
        yield f"__{attribute.lstrip('_')}", view


def _role(legacy, variable):
    role = variable.name.split("/")[-1].split(":")[0]
    if type(legacy).__name__.startswith("DepthwiseConv"):
        return role.removeprefix("depthwise_")  # as Keras 3 calls it
    return role.lower() if re.fullmatch(r"Variable(_\d+)?", role) else role


def _children(legacy):
    """Yields (attribute, what it holds) where layers may be inside."""
    if in_graph(legacy):
        yield "layers", list(legacy.layers)
        return
    for attribute, held in vars(legacy).items():
        # tf_keras keeps flat lists of every layer under these names.
        if not attribute.startswith("_self_"):
            yield f"__{attribute.lstrip('_')}", held


def _reflected(held, one, depth=0):
    """Returns the structure with mirrors for layers, or None without any."""
    if isinstance(held, tf_keras.layers.Layer):
        return one(held)
    if depth >= 4 or not isinstance(held, (dict, list, tuple)):
        return None
    if isinstance(held, dict):
        found = {k: _reflected(v, one, depth + 1) for k, v in held.items()}
        return found if any(v is not None for v in found.values()) else None
    found = [_reflected(each, one, depth + 1) for each in held]
    return found if any(each is not None for each in found) else None


def _draws(legacy):
    """Returns whether the layer's twin in Keras 3 has a seed.

    Bidirectional keeps the layer it was given, never built, beside its two.
    """
    name = type(legacy).__name__
    if not legacy.built:
        return False
    if "Dropout" in name or name == "GaussianNoise":
        return bool(getattr(legacy, "rate", 0) or getattr(legacy, "stddev", 0))
    return name in _CELLS
