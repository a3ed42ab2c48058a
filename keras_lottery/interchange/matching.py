"""Which weight of theirs is which of ours."""

from collections.abc import Mapping
from typing import NamedTuple

from keras_lottery.printable import printable

_SHOWN = 200  # lines of a list in an error


class Pair(NamedTuple):
    """A `Part` of ours with the names of theirs."""

    part: tuple
    theirs: tuple


def named(parts, names):
    """Returns the `Pair`s that `names` asks for.

    Args:
        parts: List of `Part`.
        names: None for their names as ours would be; a dict from ours, of
            weights (`"fc1/kernel"`) or of layers (`"fc1"`), to theirs; or a
            function from the name of a weight to theirs or None. What it does
            not name is left out.

    Raises:
        ValueError: It names what the model has not, or one name twice.
    """
    if names is None:
        pairs = [Pair(part, part.theirs) for part in parts]
    elif isinstance(names, Mapping):
        known = {part.name for part in parts} | {p.owner for p in parts}
        if strange := [name for name in names if name not in known]:
            raise ValueError(
                f"`names` names {strange}, which the model has not. Its "
                f"weights are:{_listed(p.name for p in parts)}"
            )
        pairs = [Pair(part, _by_dict(part, names)) for part in parts]
    elif callable(names):
        pairs = [Pair(p, _leaves(p, names(p.name))) for p in parts]
    else:
        raise ValueError(
            "`names` takes a dict from our names to theirs or a function, got "
            f"{type(names).__name__}."
        )
    pairs = [pair for pair in pairs if pair.theirs]
    flat = [name for pair in pairs for name in pair.theirs]
    if twice := sorted({name for name in flat if flat.count(name) > 1}):
        raise ValueError(f"`names` gives {twice} to several weights.")
    return pairs


def checked(pairs, shapes):
    """Returns the `Pair`s that were asked for if what is there fits them.

    Args:
        pairs: List of `Pair`.
        shapes: Dict from name to shape of theirs.

    Raises:
        ValueError: A name or a shape is not there; both sides are listed.
    """
    if pairs and all(_fits(pair, shapes) for pair in pairs):
        return pairs
    left, right = [], []
    for part, theirs in pairs:
        left += [_ours(part)] * len(theirs)
        right += [f"{n} {_shape(shapes.get(n, 'missing'))}" for n in theirs]
    asked = {name for pair in pairs for name in pair.theirs}
    rest = [name for name in shapes if name not in asked]
    left += ["(not named)"] * len(rest)
    right += [f"{name} {_shape(shapes[name])}" for name in rest]
    raise ValueError(_side_by_side(left, right))


def found(parts, shapes, needed=None):
    """Returns the `Pair`s of parts and what is there, without being told.

    By equal names if those are there with the right shapes; else in order, if
    the shapes are the same one by one; else by shape, where each is there
    once.

    Args:
        parts: List of `Part`, in the order of the model.
        shapes: Dict from name to shape of theirs, in their order.
        needed: Names of ours that are enough; all if None.

    Raises:
        ValueError: What belongs together is not clear; both sides are listed.
    """
    wanted = {part.name for part in parts} if needed is None else set(needed)
    by_name = [p for p in named(parts, None) if _fits(p, shapes)]
    ours = {pair.part.name for pair in by_name}
    taken = {name for pair in by_name for name in pair.theirs}
    if by_name and (wanted <= ours or taken == set(shapes)):
        return by_name
    subset = [part for part in parts if part.name in wanted]
    for some in (parts, subset):
        pairs = _in_order(some, shapes) or _by_shape(some, shapes)
        if pairs:
            return pairs
    left = [_ours(part) for part in subset for _ in part.leaves]
    right = [f"{name} {_shape(shape)}" for name, shape in shapes.items()]
    raise ValueError(_side_by_side(left, right))


def _by_dict(part, names):
    if part.name in names:
        return _leaves(part, names[part.name])
    above = names.get(part.owner)
    if above is None:
        return ()
    return tuple(f"{above}.{leaf}" for leaf in part.leaves)


def _leaves(part, name):
    """Returns their names from the first; a cell has two biases."""
    if name is None:
        return ()
    if not isinstance(name, str):
        raise ValueError(
            f"`names` gives {name!r} for {part.name!r}: expected a text or "
            "None."
        )
    if len(part.leaves) == 1:
        return (name,)
    return name, name.replace("bias_ih", "bias_hh")


def _fits(pair, shapes):
    return all(shapes.get(name) == pair.part.shape for name in pair.theirs)


def _in_order(parts, shapes):
    ours = [part.shape for part in parts for _ in part.leaves]
    if not parts or ours != list(shapes.values()):
        return None
    names = iter(shapes)
    return [Pair(p, tuple(next(names) for _ in p.leaves)) for p in parts]


def _by_shape(parts, shapes):
    ours = [part.shape for part in parts]
    by_shape = {shape: name for name, shape in shapes.items()}
    unique = len(set(ours)) == len(ours) and len(by_shape) == len(shapes)
    one = all(len(part.leaves) == 1 for part in parts)
    if not parts or not unique or not one or set(ours) != set(by_shape):
        return None
    return [Pair(part, (by_shape[part.shape],)) for part in parts]


def _side_by_side(left, right):
    """Returns the text of an error that lists both."""
    rows = max(len(left), len(right))
    left = ["ours", *left, *["-"] * (rows - len(left))]
    right = ["theirs", *right, *["-"] * (rows - len(right))]
    width = min(60, max(map(len, left)))
    lines = [f"{a[:60]:{width}}  {b[:120]}" for a, b in zip(left, right)]
    return (
        "Which weight is which is not clear, or they do not fit (ours with "
        f"the shapes that PyTorch has):{_listed(lines)}\n"
        "Say it with names={'our/kernel': 'their.weight', ...}, or with "
        "layers, names={'our_layer': 'their.layer'}."
    )


def _ours(part):
    return f"{part.name} {_shape(part.shape)}"


def _shape(shape):
    return "(no known layout)" if shape is None else str(shape)


def _listed(lines):
    lines = list(lines)
    more = ["..."] * (len(lines) > _SHOWN)
    return printable("".join(f"\n  {line}" for line in lines[:_SHOWN] + more))
