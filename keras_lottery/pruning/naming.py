"""Names for the variables of a Keras model that two builds agree on.

Names are paths from the model's root: `block/conv/kernel`. Keras's own
`variable.path` differs between two builds of the same model (auto-numbered
layers count on through the process), so this file walks the model itself. The
private names of Keras that walking needs are all here.
"""

import re
from typing import NamedTuple

import keras


class Weight(NamedTuple):
    """A variable with its name and the layer that owns it."""

    name: str
    variable: keras.Variable
    layer: keras.layers.Layer
    layer_path: str


def walk(model):
    """Returns every variable of `model` once, as `Weight`s in a fixed order.

    The name is the path of layers from the root plus the variable's own name.
    A child of a Sequential or Functional model goes by its layer name; any
    other child that has no name of its own goes by the attribute that holds
    it. Numbers that Keras appended are replaced by the order among siblings.

    Args:
        model: A built `keras.Model` or layer.

    Returns:
        List of `Weight`; a shared layer appears where it is first met.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> [weight.name for weight in walk(model)]
    ['dense/kernel', 'dense/bias']
    """
    found = []
    _visit(model, (), found, set(), set())
    return _without_duplicates(found)


def _visit(layer, path, found, seen_layers, seen_variables):
    if id(layer) in seen_layers:
        return
    seen_layers.add(id(layer))
    for role, variable in _own_variables(layer):
        if id(variable) not in seen_variables:
            seen_variables.add(id(variable))
            name = "/".join((*path, role))
            found.append(Weight(name, variable, layer, "/".join(path)))
    for label, child in _labelled_children(layer):
        _visit(child, (*path, label), found, seen_layers, seen_variables)


def _own_variables(layer):
    """Returns (role, variable) for what `layer` holds without its children."""
    held = [*layer._trainable_variables, *layer._non_trainable_variables]
    if held and layer._layers:
        # A wrapper may refer to what it wraps: the kernel that
        # `SpectralNormalization` divides is that of the layer inside.
        inside = {id(v) for child in layer._layers for v in child.variables}
        held = [variable for variable in held if id(variable) not in inside]
    named = [(_role(variable, layer), variable) for variable in held]
    seeds = [("seed", each.state) for each in layer._seed_generators]
    return named + seeds


def _role(variable, layer):
    """Returns a variable's own name, or else the attribute that holds it."""
    role = variable.name
    if role and not re.fullmatch(r"variable(_\d+)?", role):
        return role
    attributes = {id(v): k.lstrip("_") for k, v in vars(layer).items()}
    return attributes.get(id(variable), "variable")


def _labelled_children(layer):
    """Returns (label, child) for the layers directly inside `layer`."""
    in_graph = list(layer.layers) if _is_graph(layer) else []
    inside = {id(child) for child in in_graph}
    inside.add(id(getattr(layer, "_functional", None)))
    # A subclass of Functional may hold layers beside its graph.
    beside = [child for child in layer._layers if id(child) not in inside]
    # Only what is held by an attribute alone may go by it.
    holders = _holders(layer) if beside else {}
    used, labelled = {}, []
    for child in in_graph + beside:
        base = _snake_case(type(child).__name__)
        prefix = "" if id(child) in inside else "(.*_)?"
        if re.fullmatch(f"{prefix}{re.escape(base)}(_\\d+)?", child.name):
            held = id(child) not in inside and id(child) in holders
            label = holders[id(child)] if held else base
        else:
            label = child.name
        count = used.get(label, 0)
        used[label] = count + 1
        labelled.append((f"{label}_{count}" if count else label, child))
    return labelled


def _is_graph(layer):
    classes = {each.__name__ for each in type(layer).__mro__}
    return bool(classes & {"Functional", "Sequential"})


def _holders(layer):
    """Returns a dict from the id of a child to the attribute holding it."""
    holders = {}

    def collect(held, label, depth=0):
        if isinstance(held, keras.layers.Layer):
            holders.setdefault(id(held), label)
        elif isinstance(held, dict) and depth < 4:
            for key, each in held.items():
                collect(each, f"{label}.{key}", depth + 1)
        elif isinstance(held, (list, tuple)) and depth < 4:
            for index, each in enumerate(held):
                collect(each, f"{label}.{index}", depth + 1)

    for attribute, held in vars(layer).items():
        # Autotracking keeps flat lists of every layer under these names.
        if attribute != "_layers" and not attribute.startswith("_self_"):
            collect(held, attribute.lstrip("_"))
    return holders


def _snake_case(name):
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _without_duplicates(found):
    counts, unique = {}, []
    for weight in found:
        count = counts.get(weight.name, 0)
        counts[weight.name] = count + 1
        name = f"{weight.name}~{count}" if count else weight.name
        unique.append(weight._replace(name=name))
    return unique
