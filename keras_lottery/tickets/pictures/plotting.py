"""What is drawn: which weights, which levels, and what becomes of weights."""

import dataclasses
import numbers
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np

from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets.pictures import tables
from keras_lottery.tickets.ticket import Ticket

MOST_ROWS, MOST_COLUMNS = 6, 8
SAMPLE = 2**18  # weights of a level whose fate is drawn


@dataclasses.dataclass(frozen=True)
class Column:
    """A level: its mask, its ticket if it is one, and the next one's."""

    title: str
    mask: Mask
    ticket: Ticket | None = None
    then: Ticket | None = None


def plot(tickets, *, names=None, levels=None, model=None, image=None):
    """Draws masks level by level, and what becomes of the weights.

    A row for each weight, a column for each level: kept weights are dark,
    inputs go down, outputs across, convolutions are blocks of filters. Above
    each stand its density and its dead units (`dead_units`). The row below a
    dense layer that reads an image shows how many weights leave each pixel.
    The last row shows where weights started and ended, those that the next
    pruning kept and those that it removed.

    Args:
        tickets: `Ticket`s of one lottery, or a `Mask`, or several of either.
        names: Which weights, by name. None: the largest, and others named.
        levels: Which levels, as ints; of masks, their positions. None: all,
            or some from first to last.
        model: As in `dead_units`.
        image: Shape (height, width) or (height, width, channels) of the
            images that the first dense layer reads; None for that of the
            model's input.

    Returns:
        A `matplotlib.figure.Figure`; a notebook shows it, `.savefig(path)`
        keeps it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is nothing to draw, or no such name or level.

    Example:

    >>> mask = Mask({"fc1/kernel": np.eye(3, 2, dtype=bool)})
    >>> figure = plot(mask)
    >>> figure.axes[0].images[0].get_array().astype(int).tolist()
    [[1, 0], [0, 1], [0, 0]]
    """
    page = _drawing()
    columns = _columns(tickets)
    mask = columns[0].mask
    chosen = _names(mask, names)
    shown = _levels(columns, levels)
    pixels = _pixels(columns[0], chosen, image)
    return page.draw(
        shown,
        chosen,
        tables.sides(mask, model),
        pixels,
        [name for name in mask if name not in chosen],
    )


def _drawing():
    """Returns the module that draws, if matplotlib is there."""
    try:
        from keras_lottery.tickets.pictures import page
    except ImportError as error:
        raise ImportError(
            "Pictures are drawn with matplotlib, which is not installed: pip "
            "install 'keras_lottery[report]'."
        ) from error
    return page


def _columns(given):
    """Returns all levels that were given, as `Column`s."""
    if isinstance(given, (Mask, Ticket)):
        given = [given]
    several = isinstance(given, Iterable) and not isinstance(given, Mapping)
    given = list(given) if several else [given]
    wrong = [each for each in given if not isinstance(each, (Mask, Ticket))]
    if wrong or not given:
        raise ValueError(
            "Expected tickets or masks, at least one, got "
            f"{type(wrong[0]).__name__ if wrong else 'none'}: `pruned.tickets` "
            "after `fit`, or `pruned.mask`."
        )
    masks = [getattr(each, "mask", each) for each in given]
    tables.check_alike(masks)
    following = [*given[1:], None]
    return [
        _column(i, each, mask, then)
        for i, (each, mask, then) in enumerate(zip(given, masks, following))
    ]


def _column(position, each, mask, then):
    if isinstance(each, Mask):
        return Column(f"mask {position}", mask)
    trained = each if each.end else None
    goes_on = isinstance(then, Ticket) and then.mask.issubset(mask)
    return Column(
        f"level {each.level}", mask, trained, then if goes_on else None
    )


def _names(mask, names):
    """Returns the weights to draw, in the order of the model."""
    if names is None:
        sizes = mask.sizes
        largest = sorted(sizes, key=sizes.get, reverse=True)[:MOST_ROWS]
        return [name for name in mask if name in largest]
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError(f"`names` is empty. There are: {', '.join(mask)}.")
    if unknown := [name for name in names if name not in mask]:
        raise ValueError(
            f"The mask has no weights {unknown}. It has: {', '.join(mask)}."
        )
    return names


def _levels(columns, levels):
    if levels is None:
        count = min(len(columns), MOST_COLUMNS)
        places = np.linspace(0, len(columns) - 1, count).round().astype(int)
        return [columns[place] for place in places]
    one = isinstance(levels, numbers.Integral)
    levels = [levels] if one else list(levels)
    found = {int(each.title.split()[1]): each for each in columns}
    if not levels:
        raise ValueError(
            f"`levels` is empty. There are: {', '.join(map(str, found))}."
        )
    if unknown := [level for level in levels if level not in found]:
        raise ValueError(
            f"There are no levels {unknown}. There are: "
            f"{', '.join(map(str, found))}."
        )
    return [found[level] for level in levels]


def _pixels(column, chosen, image):
    """Returns (name, shape) of the kernel that reads images, or None."""
    shapes = column.mask.shapes
    flat = [name for name in shapes if len(shapes[name]) == 2]
    if not flat or next(iter(shapes)) != flat[0]:
        return None  # something else reads them
    first = flat[0]
    told = image is not None
    if told and not isinstance(image, Iterable):
        raise ValueError(
            "`image` is a shape, (height, width) or (height, width, channels),"
            f" got {image!r}."
        )
    shape = tuple(image) if told else _input_shape(column.ticket)
    fits = len(shape) in (2, 3) and np.prod(shape) == shapes[first][0]
    if told and not fits:
        raise ValueError(
            f"{first!r} reads {shapes[first][0]} values, which are no image "
            f"of shape {shape}."
        )
    return (first, shape) if fits and first in chosen else None


def _input_shape(ticket):
    """Returns the shape of one input of the ticket's model, () if unknown."""
    config = getattr(ticket, "model_config", None) or {}
    layers = config.get("config", {}).get("layers", [])
    inputs = [e for e in layers if e.get("class_name") == "InputLayer"]
    if len(inputs) != 1:
        return ()
    shape = inputs[0].get("config", {}).get("batch_shape") or ()
    return tuple(shape[1:]) if None not in shape[1:] else ()


@dataclasses.dataclass(frozen=True)
class Fate:
    """What `images.of_fate` takes of a level, of one weight of `step`."""

    weights: list
    step: int


def fates(columns, names):
    """Returns the `Fate` of each column, None where there is none.

    Args:
        columns: List of `Column`.
        names: Of the weights.
    """
    return [None if e.ticket is None else _fate(e, names) for e in columns]


def _fate(column, names):
    step = max(1, -(-column.mask.kept // SAMPLE))
    weights = [
        tables.alive(name, column.ticket, column.then, step) for name in names
    ]
    return Fate(weights, step)
