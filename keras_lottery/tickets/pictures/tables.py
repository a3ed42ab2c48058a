"""What pictures show, as exact numbers: dead units and the fate of weights."""

import keras
import numpy as np

from keras_lottery.pruning import naming

_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_OF_HEADS = ("query/kernel", "key/kernel", "value/kernel")


def dead_units(mask, model=None):
    """Counts the units that no kept weight reads, and those that none reaches.

    An input of a kernel is dead if every weight that reads it is removed, an
    output if every weight that adds to it is. Units of the kernel alone are
    counted: that what comes before or after is dead, too, does not matter.

    Args:
        mask: A `Mask`.
        model: The model it is of, built, or None. Without it the last axis of
            a kernel is its outputs and the one before its inputs, but for
            names that end as those of attention and separable convolutions;
            transposed and depthwise convolutions need the model.

    Returns:
        Dict from name to `(dead inputs, dead outputs)`.

    Example:

    >>> from keras_lottery.pruning.mask import Mask
    >>> kernel = np.array([[True, False], [False, False], [True, False]])
    >>> dead_units(Mask({"fc1/kernel": kernel}))
    {'fc1/kernel': (1, 1)}
    """
    found = sides(mask, model)
    return {name: dead_of(mask[name], *found[name]) for name in mask}


def sides(mask, model=None):
    """Returns dict from name to (axes of inputs, axes of outputs).

    Args:
        mask: A `Mask`.
        model: As in `dead_units`.

    Example:

    >>> from keras_lottery.pruning.mask import Mask
    >>> sides(Mask({"conv/kernel": np.ones((3, 3, 2, 4), bool)}))
    {'conv/kernel': ((2,), (3,))}
    """
    layers = {}
    if model is not None:
        layers = {weight.name: weight.layer for weight in naming.walk(model)}
    return {
        name: _sides(name, len(shape), layers.get(name))
        for name, shape in mask.shapes.items()
    }


def dead_of(kept, inputs, outputs):
    """Returns (dead inputs, dead outputs) of one weight.

    Args:
        kept: Bool array.
        inputs: Its axes that are inputs.
        outputs: Its axes that are outputs.

    Example:

    >>> dead_of(np.array([[True, False], [False, False]]), (0,), (1,))
    (1, 1)
    """
    return _empty(kept, inputs), _empty(kept, outputs)


def fate(tickets):
    """Returns what became of the weights of each level, as rows.

    Args:
        tickets: Trained `Ticket`s of one lottery, level after level.

    Returns:
        List of dicts, one per ticket and weight, with the keys name, level,
        alive (weights of the level), sign_changes (of those: the sign at the
        end is not that at the start), and of those that the next ticket keeps
        and removes the numbers (kept, removed) and the mean magnitudes
        (start_kept, start_removed, end_kept, end_removed). What the last
        ticket cannot say, and means of none, are None. `pandas.DataFrame`
        takes it.

    Raises:
        ValueError: There is none, a ticket was not trained, or they are of
            different weights.

    Example:

    >>> import keras_lottery as lottery
    >>> mask = lottery.Mask({"w": np.array([True, True])})
    >>> start, end = {"w": np.array([1.0, 2.0])}, {"w": np.array([3.0, -1.0])}
    >>> first = lottery.Ticket(mask, start, {}, end)
    >>> fewer = lottery.Mask({"w": np.array([True, False])})
    >>> second = lottery.Ticket(fewer, start, {}, {"w": np.array([4.0])}, {}, 1)
    >>> row = fate([first, second])[0]
    >>> row["kept"], row["removed"], row["sign_changes"], row["end_removed"]
    (1, 1, 1, 1.0)

    Reference: Zhou et al. (2019), section 2, on what becomes of weights.
    """
    tickets = list(tickets)
    if not tickets:
        raise ValueError(
            "Expected tickets, at least one, got none: `pruned.tickets` after "
            "`fit`."
        )
    check_alike([ticket.mask for ticket in tickets])
    following = [*tickets[1:], None]
    return [
        _row(name, ticket, then)
        for ticket, then in zip(tickets, following, strict=True)
        for name in ticket.mask
    ]


def alive(name, ticket, then=None, step=1):
    """Returns (start, end, kept next) of the weights that a ticket keeps.

    Args:
        name: Of a weight.
        ticket: A trained `Ticket`.
        then: The next one, or None: then the third is None.
        step: Only one weight of so many is taken.

    Raises:
        ValueError: The ticket was not trained.
    """
    if not ticket.end:
        raise ValueError(
            f"The ticket of level {ticket.level} was not trained, so its "
            "weights have no fate: take tickets that `fit` has found."
        )
    places = np.flatnonzero(ticket.mask[name])[::step]
    start = np.asarray(ticket.start[name]).reshape(-1)[places]
    kept = None if then is None else then.mask[name].reshape(-1)[places]
    return start, np.asarray(ticket.end[name])[::step], kept


def check_alike(masks):
    """Raises a ValueError unless masks are of the same weights."""
    for mask in masks[1:]:
        if mask.shapes != masks[0].shapes:
            differing = set(mask.shapes.items()) ^ set(masks[0].shapes.items())
            raise ValueError(
                "The tickets are of different networks: "
                + ", ".join(f"{n} {s}" for n, s in sorted(differing)[:20])
            )


def _row(name, ticket, then):
    start, end, kept = alive(name, ticket, then)
    row = {
        "name": name,
        "level": ticket.level,
        "alive": len(start),
        "sign_changes": int(np.count_nonzero(np.sign(start) != np.sign(end))),
        "kept": None if kept is None else int(kept.sum()),
        "removed": None if kept is None else int((~kept).sum()),
    }
    for moment, values in (("start", start), ("end", end)):
        for which, chosen in (("kept", kept), ("removed", _not(kept))):
            row[f"{moment}_{which}"] = _mean_magnitude(values, chosen)
    return row


def _not(kept):
    return None if kept is None else ~kept


def _mean_magnitude(values, chosen):
    if chosen is None or not chosen.any():
        return None
    return float(np.abs(values[chosen]).mean(dtype=np.float64))


def _sides(name, rank, layer):
    last, before = rank - 1, rank - 2
    role = name.rpartition("/")[2]
    if rank < 2:
        return (), tuple(range(rank))
    if isinstance(layer, _TRANSPOSED):
        return (last,), (before,)
    if isinstance(layer, _DEPTHWISE) or role == "depthwise_kernel":
        return (before,), (before, last)
    if rank == 3 and name.endswith(_OF_HEADS):
        return (0,), (1, 2)
    if rank == 3 and name.endswith("attention_output/kernel"):
        return (0, 1), (2,)
    return (before,), (last,)


def _empty(kept, axes):
    """Counts the positions along `axes` where nothing is kept."""
    if not axes:
        return 0
    others = tuple(axis for axis in range(kept.ndim) if axis not in axes)
    return int(np.count_nonzero(~kept.any(axis=others)))
