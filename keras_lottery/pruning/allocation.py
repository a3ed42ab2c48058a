"""Allocations: how a budget of kept weights spreads over the layers.

An allocation is a function `(scores, mask, keep) -> Mask`. `scores` and `mask`
have the same names; exactly `keep` weights are kept, all of them kept by `mask`
before. The lowest scores go; of equal scores the higher flat index goes first
(over all layers in the mask's order, C order within a layer).

Structured ones (`patterns`, `structured`) keep the nearest count that their
structure allows, at most `keep`.
"""

import dataclasses
import re

import numpy as np

from keras_lottery import choices
from keras_lottery.pruning import selection
from keras_lottery.pruning.mask import Mask
from keras_lottery.pruning.patterns import Blocks
from keras_lottery.pruning.patterns import NOfM
from keras_lottery.pruning.shares import apportion
from keras_lottery.pruning.shares import check_keep
from keras_lottery.pruning.structured import Channels
from keras_lottery.pruning.structured import Filters
from keras_lottery.pruning.structured import Heads


def global_(scores, mask, keep):
    """Keeps the `keep` highest scores of all layers together.

    Args:
        scores: Dict from weight name to an array of scores; higher is kept.
        mask: The current `Mask`; what it has removed stays removed.
        keep: How many weights to keep, at most `mask.kept`.

    Returns:
        A `Mask` with exactly `keep` weights.

    Example:

    >>> scores = {"a": np.array([3.0, 1.0]), "b": np.array([2.0])}
    >>> mask = global_(scores, Mask.full(scores), 2)
    >>> mask["a"].tolist(), mask["b"].tolist()
    ([True, False], [True])

    Reference: Frankle & Carbin (2019), appendix I.1.
    """
    check_keep(scores, mask, keep)
    layers = selection.layers(scores, mask)
    packed = selection.highest(list(layers.values()), keep)
    return Mask.unpack(dict(zip(layers, packed, strict=True)), mask.shapes)


def layerwise(scores, mask, keep):
    """Keeps the same fraction of every layer: `keep * size_l / size`.

    Fractions of a weight are settled by largest remainders, so that the total
    is exact; a layer that has fewer weights left than its share keeps them
    all, and the others share the rest.

    Example:

    >>> scores = {"a": np.array([3.0, 1.0]), "b": np.array([2.0, 9.0])}
    >>> layerwise(scores, Mask.full(scores), 2)["b"].tolist()
    [False, True]

    Reference: Frankle & Carbin (2019), figure 2.
    """
    return _by_share(scores, mask, keep, mask.sizes)


def erdos_renyi(scores, mask, keep):
    """Keeps a density proportional to `(n_in + n_out) / (n_in * n_out)`.

    A layer whose density would pass 1 stays dense and the others share the
    rest. Of a kernel of rank above 2 the last two dimensions count.

    Reference: Mocanu et al. (2018), section 3.
    """
    shares = {
        name: sum(shape[-2:]) * int(np.prod(shape[:-2], dtype=np.int64))
        for name, shape in _at_least_rank_two(mask).items()
    }
    return _by_share(scores, mask, keep, shares)


def erdos_renyi_kernel(scores, mask, keep):
    """Keeps a density proportional to `sum(shape) / prod(shape)`.

    As `erdos_renyi`, with every dimension of a convolution's kernel counted.

    Reference: Evci et al. (2020), section 3 (ERK).
    """
    shares = {name: sum(s) for name, s in _at_least_rank_two(mask).items()}
    return _by_share(scores, mask, keep, shares)


EXACT = {
    "global": global_,
    "layerwise": layerwise,
    "erdos_renyi": erdos_renyi,
    "erdos_renyi_kernel": erdos_renyi_kernel,
}
ALLOCATIONS = {
    **EXACT,
    "2:4": NOfM(2, 4),
    "blocks": Blocks(),
    "filters": Filters(),
    "channels": Channels(),
    "heads": Heads(),
}
STRUCTURED = {
    each.__name__: each for each in (NOfM, Blocks, Filters, Channels, Heads)
}


def get(identifier):
    """Returns the allocation called `identifier`, or a callable as it is.

    Args:
        identifier: A name of `ALLOCATIONS`, `"N:M"` for other numbers, or a
            function `(scores, mask, keep) -> Mask`.

    Raises:
        ValueError: There is none of this name.

    Example:

    >>> get("layerwise") is layerwise, get("4:8")
    (True, NOfM(n=4, m=8, axis=-2))
    """
    if isinstance(identifier, str) and identifier not in ALLOCATIONS:
        if counts := re.fullmatch(r"([0-9]+):([0-9]+)", identifier):
            return NOfM(*map(int, counts.groups()))
    if isinstance(identifier, type) and identifier in STRUCTURED.values():
        raise ValueError(
            f"{identifier.__name__} is a class: give one of it, such as "
            f"`allocation={identifier.__name__}(...)`, or a name of "
            f"{', '.join(map(repr, ALLOCATIONS))}."
        )
    return choices.resolve(
        "allocation",
        identifier,
        ALLOCATIONS,
        "an N:M such as '4:8', or a function (scores, mask, keep) -> Mask",
    )


def of_model(identifier, model):
    """Returns the function `(scores, mask, keep) -> Mask` for a model.

    Args:
        identifier: What `get` takes.
        model: A built `keras.Model`; structured allocations that know units
            look for them in it.

    Raises:
        ValueError: Its units cannot be found.
    """
    found = get(identifier)
    bind = getattr(found, "of_model", None)
    return found if bind is None else bind(model)


def counts_exactly(identifier):
    """Returns whether an allocation keeps exactly what it may keep.

    Structured ones may keep fewer, and so may a function of one's own.

    Args:
        identifier: What `get` takes, or a name from a record.

    Example:

    >>> counts_exactly("global"), counts_exactly("channels")
    (True, False)
    """
    if isinstance(identifier, str):
        return identifier in EXACT
    return any(identifier is each for each in EXACT.values())


def serialize(chosen):
    """Returns an allocation as plain values, a name where it has one.

    Raises:
        ValueError: A function that is none of ours.

    Example:

    >>> serialize(NOfM(2, 4)), serialize("layerwise")
    ('2:4', 'layerwise')
    >>> serialize(Blocks((1, 16)))
    {'class_name': 'Blocks', 'config': {'shape': [1, 16]}}
    """
    found = get(chosen)
    for name, each in ALLOCATIONS.items():
        if found is each or (each == found and type(each) is type(found)):
            return name
    if type(found) not in STRUCTURED.values():
        raise ValueError(
            "The allocation is a function, which a .keras file cannot hold. "
            "Use `save_weights`, or save a ticket; or take one of "
            f"{', '.join(map(repr, ALLOCATIONS))}."
        )
    config = dataclasses.asdict(found)
    if type(found) is Blocks:
        config["shape"] = list(found.shape)  # as JSON gives it back
    return {"class_name": type(found).__name__, "config": config}


def deserialize(config):
    """Returns the allocation that `serialize` has made plain values of.

    Args:
        config: A name, which is returned, or a dict with `"class_name"` and
            `"config"`.

    Raises:
        ValueError: It is of no allocation.

    Example:

    >>> deserialize({"class_name": "Blocks", "config": {"shape": [1, 16]}})
    Blocks(shape=(1, 16))
    """
    if isinstance(config, str):
        get(config)
        return config
    known = isinstance(config, dict) and set(config) == {"class_name", "config"}
    if not known or config["class_name"] not in STRUCTURED:
        raise ValueError(
            "An allocation is a name or {'class_name': ..., 'config': {...}} "
            f"of one of {', '.join(STRUCTURED)}; got {config!r:.200}."
        )
    try:
        return STRUCTURED[config["class_name"]](**config["config"])
    except TypeError as error:
        raise ValueError(
            f"{config['class_name']} cannot be made of "
            f"{config['config']!r:.200}: {error}."
        ) from error


def _by_share(scores, mask, keep, shares):
    check_keep(scores, mask, keep)
    left = mask.kept_by_name
    quotas = apportion(
        keep, [shares[name] for name in mask], [left[name] for name in mask]
    )
    packed = {}
    layers = selection.layers(scores, mask)
    for (name, layer), quota in zip(layers.items(), quotas, strict=True):
        (packed[name],) = selection.highest([layer], quota)
    return Mask.unpack(packed, mask.shapes)


def _at_least_rank_two(mask):
    return {name: (1,) * (2 - len(s)) + s for name, s in mask.shapes.items()}
