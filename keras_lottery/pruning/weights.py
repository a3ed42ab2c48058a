"""Names and finds the variables of a Keras model.

Names are paths from the model's root: `block/conv/kernel`. Keras's own
`variable.path` differs between two builds of the same model (auto-numbered
layers count on through the process), so this file walks the model itself. The
private names of Keras that reading a model needs are all here.
"""

import fnmatch
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


def by_name(model):
    """Returns a dict from name to `keras.Variable`, in walking order."""
    return {weight.name: weight.variable for weight in walk(model)}


def values(model):
    """Returns the value of every trainable floating-point weight.

    Returns:
        Dict from name to array. Criteria score all of these; which of them
        are pruned is the mask's business.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> values(model)["dense/kernel"].shape
    (4, 2)
    """
    return {
        weight.name: weight.variable.numpy()
        for weight in walk(model)
        if weight.variable.trainable and _is_float(weight.variable)
    }


def prunable(model, layers=None):
    """Returns the variables that are pruned, by name.

    By default these are the kernels: trainable weights of rank 2 or more that
    are not biases, normalization or embeddings.

    Args:
        model: A built `keras.Model`.
        layers: None for all kernels, or a list of layers and name patterns
            (fnmatch on the layer's path, such as `"block_*"`). What is named
            here is pruned with everything below it, embeddings too.

    Returns:
        Dict from name to `keras.Variable`, in walking order.

    Raises:
        ValueError: The model is not built, has nothing to prune, or an entry
            of `layers` fits no layer.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> list(prunable(model))
    ['dense/kernel']
    """
    reasons = _reasons(model, layers)
    kept = {w.name: w.variable for w, reason in reasons if reason is None}
    if not kept:
        listed = "".join(f"\n  {w.name}: {why}" for w, why in reasons)
        raise ValueError(
            f"{model.name!r} has no weight to prune. Its weights and why each "
            f"is left out:{listed or ' it has none.'}\nName layers with "
            "`layers=[...]` to prune embeddings, or set `trainable = True`."
        )
    return kept


def unprunable(model, layers=None):
    """Returns why each of the other variables is left alone, by name.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> unprunable(model)
    {'dense/bias': 'bias'}
    """
    return {w.name: why for w, why in _reasons(model, layers) if why}


def _reasons(model, layers):
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            "Expected a Keras 3 model (`keras.Model`), got "
            f"{type(model).__module__}.{type(model).__name__}."
        )
    found = walk(model)
    if not model.built or not found:
        raise ValueError(
            f"{model.name!r} has no weights yet: it is not built. Call "
            "`model.build(input_shape)`, or the model once on a batch, first."
        )
    asked = _asked_for(found, layers)
    return [(weight, _why_not(weight, asked)) for weight in found]


def _why_not(weight, asked):
    """Returns why `weight` is not pruned, or None if it is."""
    variable, layer = weight.variable, weight.layer
    role = variable.name.lower()
    if not variable.trainable:
        return "not trained" if layer.trainable else "frozen (trainable=False)"
    if not _is_float(variable):
        return f"dtype {variable.dtype}"
    if "bias" in role:
        return "bias"
    if "Normalization" in type(layer).__name__ or role in ("gamma", "beta"):
        return "normalization"
    if len(variable.shape) < 2:
        return f"rank {len(variable.shape)}"
    if asked is not None and weight.layer_path not in asked:
        return "not in layers="
    embedding = isinstance(layer, keras.layers.Embedding) or "embed" in role
    if embedding:
        return None if asked else "embedding (prune it with layers=)"
    if "kernel" not in role and type(layer).__module__.startswith("keras."):
        return f"not a kernel ({variable.name})"
    return None


def _asked_for(found, layers):
    """Returns the layer paths that `layers` selects, or None for all."""
    if layers is None:
        return None
    if isinstance(layers, (str, keras.layers.Layer)):
        layers = [layers]
    if not isinstance(layers, (list, tuple, set)):
        raise ValueError(
            "`layers` takes layers and name patterns, got "
            f"{type(layers).__name__}."
        )
    asked = set()
    for entry in layers:
        fits = {w.layer_path for w in found if _selects(entry, w)}
        if not fits:
            paths = sorted({w.layer_path for w in found})
            shown = entry if isinstance(entry, str) else f"layer {entry.name}"
            raise ValueError(
                f"layers={shown!r} fits no layer of the model. Its layers "
                f"with weights: {', '.join(paths)}."
            )
        asked |= fits
    return asked


def _selects(entry, weight):
    if isinstance(entry, keras.layers.Layer):
        within = [entry, *entry._flatten_layers()]
        return any(layer is weight.layer for layer in within)
    if not isinstance(entry, str):
        raise ValueError(
            "`layers` takes layers and name patterns, got "
            f"{type(entry).__name__}."
        )
    parts = weight.layer_path.split("/")
    above = ("/".join(parts[:i]) for i in range(1, len(parts) + 1))
    return any(fnmatch.fnmatchcase(path, entry) for path in above)


def _is_float(variable):
    return keras.backend.standardize_dtype(variable.dtype).startswith(
        ("float", "bfloat")
    )


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
    attributes = {id(v): k.lstrip("_") for k, v in vars(layer).items()}
    named = []
    for variable in held:
        role = variable.name
        if not role or re.fullmatch(r"variable(_\d+)?", role):
            role = attributes.get(id(variable), "variable")
        named.append((role, variable))
    seeds = [("seed", each.state) for each in layer._seed_generators]
    return named + seeds


def _labelled_children(layer):
    """Returns (label, child) for the layers directly inside `layer`."""
    in_graph = list(layer.layers) if _is_graph(layer) else []
    inside = {id(child) for child in in_graph}
    inside.add(id(getattr(layer, "_functional", None)))
    # A subclass of Functional may hold layers beside its graph.
    beside = [child for child in layer._layers if id(child) not in inside]
    holders = _holders(layer)
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
