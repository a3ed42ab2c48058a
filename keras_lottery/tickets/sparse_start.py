"""Lotteries that begin with a sparse network: the mask of level 0."""

import base64
import math
import zlib

import numpy as np

from keras_lottery.pruning import find
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.pruning.mask import kept
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.tickets.zeros import nonzero

NONZERO = "nonzero"


def mask_of(given, model, names):
    """Returns the mask that a lottery on `names` begins with, or None.

    Args:
        given: A `Mask`, a `Ticket`, `"nonzero"` for what is not exactly zero
            in the model, or None. Weights that it does not name are kept.
        model: A built `keras.Model`.
        names: Names of the weights that are pruned.

    Raises:
        ValueError: It is of other weights, or keeps none.
    """
    if given is None:
        return None
    variables = weights.by_name(model)
    pruned = {name: variables[name] for name in names}
    if isinstance(given, str) and given == NONZERO:
        given = nonzero(pruned)
    elif isinstance(given, Ticket):
        given = given.mask
    if not isinstance(given, Mask):
        raise ValueError(
            "`mask` takes a Mask, a Ticket, or 'nonzero' for what is not zero "
            f"in the model; got {given!r:.80}."
        )
    find.check_fits(model, given)
    others = [name for name in given if name not in pruned]
    if others:
        raise ValueError(
            f"The mask is also of {', '.join(others)}, which this lottery does "
            f"not prune; it prunes {', '.join(names)}. Name them in `layers` "
            "and `schedule`, or leave them out of the mask."
        )
    begun = {**Mask.full(pruned), **given}
    begun = Mask({name: begun[name] for name in names})
    if not begun.kept:
        raise ValueError("The mask keeps no weight: there is nothing to train.")
    return begun


def check(mask, governed, schedule):
    """Raises a ValueError for a level that would have to revive weights.

    Args:
        mask: The `Mask` of level 0, or None for a dense network.
        governed: Dict from pattern to names.
        schedule: Dict from pattern to a level schedule.
    """
    for pattern, each in schedule.items():
        if mask is None and each.sparsity(0):
            raise ValueError(
                f"The schedule has initial_sparsity={each.sparsity(0)}, but "
                "level 0 is dense. Pass the mask that it is of: `mask='nonzero'"
                "` for a model that is sparse, a Mask, or a Ticket."
            )
        for level in range(1, each.levels + 1) if mask is not None else ():
            where = f"level {level}"
            check_one(mask, governed[pattern], each.sparsity(level), where)


def check_firings(mask, governed, due):
    """Raises a ValueError for a step that would have to revive weights.

    Args:
        mask: The `Mask` to begin with, or None for a dense network.
        governed: Dict from pattern to names.
        due: Dict from step to {pattern: sparsity}.
    """
    for step, sparsities in due.items() if mask is not None else ():
        for pattern, sparsity in sparsities.items():
            check_one(mask, governed[pattern], sparsity, f"step {step}")


def check_one(mask, names, sparsity, where):
    """Raises a ValueError if `sparsity` would revive weights of `names`.

    Args:
        mask: The `Mask` to begin with.
        names: Names of one group.
        sparsity: Total fraction to remove.
        where: When that is: `"level 1"`.
    """
    sizes, counts = mask.sizes, mask.kept_by_name
    size = sum(sizes[name] for name in names)
    left = sum(counts[name] for name in names)
    if kept(size, sparsity) > left:
        raise ValueError(
            f"The mask to begin with keeps {left:,} of {size:,} weights, and "
            f"the schedule's {where} asks for sparsity {sparsity:.6g}, which "
            f"keeps {kept(size, sparsity):,}: pruning revives none. Sparsities "
            "count what is removed in all: pass initial_sparsity="
            f"{fraction_of(left, size)} to the schedule, or ask for more."
        )


def fraction_of(left, size):
    """Returns the shortest fraction removed that leaves so many weights.

    Example:

    >>> fraction_of(67, 200)
    0.665
    """
    exact = 1 - left / size
    return next(
        (
            round(exact, digits)
            for digits in range(1, 17)
            if kept(size, round(exact, digits)) == left
        ),
        exact,
    )


def serialize(mask):
    """Returns a mask as JSON can hold it: bits, compressed, in base64."""
    if mask is None:
        return None
    return {
        name: {
            "shape": list(mask.shapes[name]),
            "bits": base64.b64encode(zlib.compress(bits.tobytes())).decode(),
        }
        for name, bits in mask.pack().items()
    }


def deserialize(config):
    """Returns what `serialize` was given; the config may come from anybody.

    Raises:
        ValueError: It is none.
    """
    if config is None:
        return None
    try:
        shapes = {name: tuple(each["shape"]) for name, each in config.items()}
        packed = {n: _bits(config[n]["bits"], shapes[n]) for n in shapes}
        return Mask.unpack(packed, shapes)
    except (AttributeError, KeyError, TypeError, zlib.error) as error:
        raise ValueError(f"The config holds no mask: {error!r:.80}.") from error


def _bits(text, shape):
    """Returns packed bits; no more of them than a shape can need."""
    most = max(math.prod(shape) // 8 + 2, 1)
    packed = base64.b64decode(text, validate=True)
    bits = zlib.decompressobj().decompress(packed, most)
    return np.frombuffer(bits, np.uint8)
