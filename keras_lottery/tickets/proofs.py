"""Proofs: what has to hold of the numbers of a lottery, bit for bit.

Each looks at values alone and returns a sentence about the first difference,
or None. `proving.py` runs them while a lottery is played, `runs/verify.py`
again from what is on disk.

| when                | what holds                                            |
|---------------------|-------------------------------------------------------|
| after every rewind  | `nested`, `counts`, and each of `PARTS` as the rewind |
|                     | declares: `weights` (mask x theta_k), `others`,       |
|                     | `slots`, `clock`; else `zeros`                        |
| after every level   | `finite` weights, statistics and slots, `losses`,     |
|                     | `same_mask`, `zeros`                                  |
| after every load    | `finite`, `counts` (of the same schedule), start =    |
|                     | theta_k, end = the state that training ended in       |
| a level begun again | every variable as it began                            |

Bits are compared, so NaN is itself and 0.0 is not -0.0. A removed weight is
+0.0, whatever its sign was: masks choose, and do not multiply.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """What the variables of an optimizer are, by their place in a `Snapshot`.

    Fields:
        names: What each is called.
        clock: Places of those that say where in its schedule it is.
        first: Dict from the place of a pruned weight's slot to (the weight's
            name, the slot's first value), which removed entries go back to.
    """

    names: tuple = ()
    clock: frozenset = frozenset()
    first: Mapping = {}


_LOSS = re.compile("(last_)?(val_|test_)?loss")


def weights(now, then, mask, layout):
    """The weights of a mask are those of `then`, and zero where removed.

    Args:
        now: `Snapshot` after a rewind.
        then: `Snapshot` that it went back to, or that it kept.
        mask: The `Mask` that holds.
        layout: The `Layout` of the optimizer.

    Example:

    >>> from keras_lottery.pruning.mask import Mask
    >>> from keras_lottery.training.state import Snapshot
    >>> mask = Mask({"w": np.array([True, False])})
    >>> then = Snapshot({"w": np.array([1.0, 2.0])}, None)
    >>> weights(then, then, mask, Layout())
    'w[1] is 2.0, expected 0.0'
    """
    del layout
    return _first(
        same(name, now.model[name], masked(mask[name], then.model[name]))
        for name in mask
    )


def others(now, then, mask, layout):
    """Variables without a mask are those of `then`."""
    del layout
    return of_all(
        _without(now.model, mask), _without(then.model, mask), "the model's "
    )


def slots(now, then, mask, layout):
    """The optimizer is as in `then`, and fresh where weights are removed.

    But for its clock. Entries of removed weights have their first value.
    """
    if now.optimizer is None or then.optimizer is None:
        return None
    return _first(
        same(
            f"the optimizer's {name}",
            now.optimizer[place],
            _refreshed(then.optimizer[place], layout.first.get(place), mask),
        )
        for place, name in enumerate(layout.names)
        if place not in layout.clock
    )


def clock(now, then, mask, layout):
    """The optimizer's iteration and learning rate are those of `then`."""
    del mask
    if now.optimizer is None or then.optimizer is None:
        return None
    return _first(
        same(
            f"the optimizer's {layout.names[place]}",
            now.optimizer[place],
            then.optimizer[place],
        )
        for place in sorted(layout.clock)
    )


# What a state consists of; a `Rewind` declares which of it goes where.
PARTS = {"weights": weights, "others": others, "slots": slots, "clock": clock}


def of_all(found, expected, prefix=""):
    """Two dicts of arrays hold the same."""
    differing = sorted(set(found) ^ set(expected))
    if differing:
        place = "missing" if differing[0] in expected else "unexpected"
        return f"{prefix}{differing[0]} is {place}"
    return _first(
        same(f"{prefix}{name}", found[name], expected[name]) for name in found
    )


def zeros(mask, values):
    """Removed weights are exactly zero.

    Args:
        mask: A `Mask`.
        values: Dict from its names, and perhaps others, to arrays.
    """
    return _first(
        same(name, found, masked(mask[name], found))
        for name in mask
        for found in [values[name]]
        if ((found != 0) & ~mask[name]).any()
    )


def counts(mask, budgets, before=None, *, exactly=True):
    """Each group keeps as many weights as the schedule says.

    Args:
        mask: The `Mask` to count.
        budgets: List of (names of the group, how many of them to keep).
        before: The `Mask` of the level before: a group that had fewer left
            keeps those.
        exactly: Whether fewer are wrong too. An allocation of the user's may
            keep fewer.
    """
    kept = mask.kept_by_name
    left = mask.sizes if before is None else before.kept_by_name
    for names, budget in budgets:
        found = sum(kept[name] for name in names)
        count = min(budget, sum(left[name] for name in names))
        if found > count or (exactly and found < count):
            return (
                f"{', '.join(names)}: keeps {found} weights, the schedule "
                f"says {count}"
            )
    return None


def nested(after, before):
    """A mask keeps nothing that the mask before it removed."""
    for name in after:
        revived = after[name] & ~before[name]
        if revived.any():
            return f"{_at(name, revived)} is kept, and was removed before"
    return None


def same_mask(now, then):
    """A mask is the one that a level began with."""
    for name in then:
        turned = now[name] != then[name]
        if turned.any():
            return f"the mask of {_at(name, turned)} has changed"
    return None


def finite(values):
    """No number is NaN or infinite.

    Args:
        values: Dict from name to array; those that are no floats are passed.
    """
    for name, value in values.items():
        infinite = not_finite(value)
        if infinite.any():
            value = np.asarray(value)
            return f"{_at(name, infinite)} is {value[infinite].flat[0]}"
    return None


def losses(metrics):
    """No loss among the metrics of a training is NaN or infinite.

    Metrics of a user's own may be, whatever they are called.
    """
    for name, value in metrics.items():
        if _LOSS.fullmatch(name) and not_finite(value).any():
            return f"{name} is {value}"
    return None


def not_finite(value):
    """Returns where an array is NaN or infinite; nowhere if it has no floats.

    Example:

    >>> not_finite(np.array([1.0, np.inf])).tolist()
    [False, True]
    """
    value = np.asarray(value)
    # Small floats such as bfloat16 are of no kind of NumPy's own.
    if value.dtype.kind not in "fV":
        return np.zeros((), bool)
    return ~np.isfinite(value)


def same(name, found, expected):
    """Two arrays are the same, bit for bit.

    Args:
        name: What to call them.
        found: The array that there is.
        expected: The array that it should be.

    Example:

    >>> same("w", np.array([0.0, 1.0]), np.array([-0.0, 1.0]))
    'w[0] is 0.0, expected -0.0'
    """
    found, expected = np.asarray(found), np.asarray(expected)
    for what in ("shape", "dtype"):
        here, there = getattr(found, what), getattr(expected, what)
        if here != there:
            return f"{name} has {what} {here}, expected {there}"
    differ = _bits(found) != _bits(expected)
    if not differ.any():
        return None
    differ = differ.reshape(*found.shape, -1).any(-1)
    first = np.argmax(differ)
    return (
        f"{_at(name, differ)} is {found.flat[first]}, expected "
        f"{expected.flat[first]}"
    )


def masked(mask, values):
    """Returns values with +0.0 where a bool array removes them."""
    values = np.asarray(values)
    return np.where(mask, values, np.zeros((), values.dtype))


def _refreshed(slot, first, mask):
    """Returns a slot with removed entries at their first value."""
    if first is None:
        return slot
    name, value = first
    return np.where(mask[name], slot, np.asarray(value, slot.dtype))


def _bits(array):
    array = np.ascontiguousarray(array).reshape(-1)
    size = array.dtype.itemsize
    if size in (1, 2, 4, 8):
        return array.view(f"u{size}")
    return array.view("u1")


def _at(name, where):
    """Returns a name with the index of the first True."""
    if not where.ndim:
        return name
    index = np.unravel_index(np.argmax(where), where.shape)
    return f"{name}[{', '.join(map(str, index))}]"


def _without(values, mask):
    return {name: value for name, value in values.items() if name not in mask}


def _first(sentences):
    return next((each for each in sentences if each is not None), None)
