"""The figure: where everything stands. The only file here with matplotlib."""

import textwrap

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from keras_lottery import notation
from keras_lottery.tickets.pictures import images
from keras_lottery.tickets.pictures import plotting
from keras_lottery.tickets.pictures import tables

# As in the report: Okabe and Ito's colours, told apart by the colour-blind.
INK, PAPER = "#1b1b1b", "#ffffff"
KEPT, REMOVED = "#0072b2", "#d55e00"
_SETTINGS = {
    "axes.edgecolor": "#9a9a9a",
    "axes.linewidth": 0.6,
    "axes.titlecolor": INK,
    "axes.titlesize": 8,
    "axes.titlepad": 3,
    "axes.labelsize": 8,
    "font.size": 8,
    "text.color": INK,
    # A name with a dollar in it is a name, not a formula.
    "text.parse_math": False,
    "text.usetex": False,
}
_GREY = LinearSegmentedColormap.from_list("mask", [PAPER, INK])
_BLUE = LinearSegmentedColormap.from_list("pixels", [PAPER, KEPT])
# In inches.
_LABELS, _CELL, _GAP, _TITLE, _HEAD, _LINE = 1.7, 1.5, 0.14, 0.22, 0.3, 0.15
_LEAST, _MOST = 0.55, 1.7  # heights of a row
_TITLE_WIDTH = 22  # characters above a picture, in full size
_LABEL_WIDTH = 20  # characters to the left of one
_LISTED = 12  # names of weights that are not drawn


def draw(columns, names, sides, pixels, others):
    """Returns the figure.

    Args:
        columns: List of `plotting.Column`.
        names: Weights to draw.
        sides: As `tables.sides` returns them.
        pixels: (name, shape of an image) or None.
        others: Names of the weights that are only listed.
    """
    fates = plotting.fates(columns, list(sides))
    rows = [
        (_height(columns[0].mask.shapes[name], sides[name]), "mask", name)
        for name in names
    ]
    if pixels is not None:
        rows.insert(names.index(pixels[0]) + 1, (_CELL, "pixels", None))
    if any(fates):
        rows.append((_CELL, "fate", None))
    with matplotlib.rc_context(_SETTINGS):
        notes = _notes(columns, names, sides, others, fates)
        page = _Page(columns, [row[0] for row in rows], notes)
        for line, (_, kind, name) in enumerate(rows):
            if kind == "mask":
                _mask_row(page, line, columns, name, sides[name])
            elif kind == "pixels":
                _pixel_row(page, line, columns, *pixels)
            else:
                _fate_row(page, line, fates)
    return page.figure


class _Page:
    """A grid of equal columns and rows of their own heights, in inches."""

    def __init__(self, columns, heights, notes):
        width = max(_LABELS + len(columns) * (_CELL + _GAP) + 0.1, 5)
        lines = textwrap.wrap(notes, int(width * 17))
        foot = 0.2 + _LINE * len(lines)
        tall = _HEAD + sum(heights) + len(heights) * (_TITLE + 0.1) + foot
        self.figure = Figure(figsize=(width, tall), facecolor=PAPER)
        self._size, self._heights = (width, tall), heights
        self.figure.text(
            0.1 / width,
            0.08 / tall,
            "\n".join(lines),
            fontsize=7.5,
            va="bottom",
            linespacing=1.35,
        )
        for place, column in enumerate(columns):
            percent = notation.percent(column.mask.density)
            self.figure.text(
                (self._left(place) + _CELL / 2) / width,
                1 - 0.2 / tall,
                f"{column.title}: {percent} %",
                ha="center",
                fontsize=9,
                fontweight="bold",
            )

    def _left(self, place):
        return _LABELS + place * (_CELL + _GAP)

    def axes(self, line, place):
        """Returns new axes in a row and a column, without ticks."""
        width, tall = self._size
        above = sum(self._heights[: line + 1]) + line * 0.1
        bottom = tall - _HEAD - above - (line + 1) * _TITLE
        height = self._heights[line]
        box = (self._left(place), bottom, _CELL, height)
        axes = self.figure.add_axes(
            [box[0] / width, box[1] / tall, box[2] / width, box[3] / tall]
        )
        axes.set_xticks([])
        axes.set_yticks([])
        return axes

    def label(self, line, text, small):
        """Writes a name and what is below it to the left of a row."""
        width, tall = self._size
        above = sum(self._heights[:line]) + line * 0.1
        top = _HEAD + above + (line + 1) * _TITLE
        parts = textwrap.wrap(text.replace("/", "/ "), _LABEL_WIDTH)
        broken = "\n".join(parts)
        broken = broken.replace("/ ", "/")
        room = self._heights[line] / 2
        for up, words, size, align in (
            (0.02, broken, 8.5, "bottom"),
            (-0.02, small, 7.5, "top"),
        ):
            self.figure.text(
                0.1 / width,
                1 - (top + room - up) / tall,
                words,
                fontsize=size,
                va=align,
                linespacing=1.2,
            )


def _height(shape, sides):
    """Returns the height of a row from how tall its images are."""
    rows, columns = images.size_of(shape, *sides)
    return min(max(_CELL * rows / max(1, columns), _LEAST), _MOST)


def _mask_row(page, line, columns, name, sides):
    shape = columns[0].mask.shapes[name]
    page.label(line, name, " × ".join(map(str, shape)))
    for place, column in enumerate(columns):
        kept = column.mask[name]
        axes = page.axes(line, place)
        image, *block = images.of_mask(kept, *sides)
        axes.imshow(
            image,
            cmap=_GREY,
            vmin=0,
            vmax=1,
            aspect="auto",
            interpolation="nearest",
        )
        _separate(axes, image.shape, block)
        part = column.mask.kept_by_name[name] / max(1, kept.size)
        title = f"{notation.percent(part)} %{_dead(column, name, sides)}"
        room = min(1, _TITLE_WIDTH / len(title))
        axes.set_title(title, fontsize=room * _SETTINGS["axes.titlesize"])


def _dead(column, name, sides):
    one = tables.dead_of(column.mask[name], *sides)
    named = [f"{n:,} {side}" for n, side in zip(one, ("in", "out")) if n]
    return f", dead {', '.join(named)}" if named else ""


def _separate(axes, shape, block):
    """Draws thin lines between the filters of a convolution."""
    color = {"color": "#7fb3d5", "linewidth": 0.4}
    if block[0] > 1:
        for y in np.arange(block[0], shape[0], block[0]):
            axes.axhline(y - 0.5, **color)
    if block[1] > 1:
        for x in np.arange(block[1], shape[1], block[1]):
            axes.axvline(x - 0.5, **color)


def _pixel_row(page, line, columns, name, shape):
    page.label(line, "Pixels", f"weights of {name}\nthat leave each")
    for place, column in enumerate(columns):
        counts = images.of_pixels(column.mask[name], shape)
        axes = page.axes(line, place)
        axes.imshow(
            counts,
            cmap=_BLUE,
            vmin=0,
            vmax=max(1, counts.max()),
            interpolation="nearest",
        )
        least, most = int(counts.min()), int(counts.max())
        axes.set_title(
            f"{least:,} to {most:,}" if least < most else f"{most:,}"
        )


def _fate_row(page, line, fates):
    page.label(line, "Fate of weights", "start: across\nend: upwards")
    limits = [_limit(fates, moment) for moment in (0, 1)]
    colors = [to_rgb(KEPT), to_rgb(REMOVED)]
    for place, fate in enumerate(fates):
        if fate is None:
            continue
        axes = page.axes(line, place)
        kept, removed = images.of_fate(fate.weights, limits)
        x, y = limits
        axes.imshow(
            images.mixed(kept, removed, colors),
            origin="lower",
            extent=(-x, x, -y, y),
            aspect="auto",
            interpolation="nearest",
        )
        axes.axhline(0, color=INK, linewidth=0.4, alpha=0.4)
        axes.axvline(0, color=INK, linewidth=0.4, alpha=0.4)
        axes.set_title(_signs(fate.weights))


def _signs(weights):
    changed = sum(
        np.count_nonzero(np.sign(start) != np.sign(end))
        for start, end, _ in weights
    )
    total = max(1, sum(start.size for start, *_ in weights))
    return f"{notation.percent(changed / total)} % changed sign"


def _limit(fates, moment):
    """Returns the magnitude that one weight in a thousand exceeds."""
    highest = 0.0
    for fate in filter(None, fates):
        for each in fate.weights:
            values = np.asarray(each[moment], np.float32)
            sample = np.abs(values[:: max(1, values.size // 100_000)])
            if sample.size:
                highest = max(highest, float(np.quantile(sample, 0.999)))
    return highest or 1.0


def _notes(columns, names, sides, others, fates):
    """Returns what is said below the pictures."""
    mask = columns[-1].mask
    notes = ["Dark is kept; inputs go down, outputs across."]
    sizes = [images.size_of(mask.shapes[n], *sides[n]) for n in names]
    if any(max(size) > images.LARGEST for size in sizes):
        notes.append("Large kernels are drawn smaller: grey is a mean.")
    if any(fates):
        x, y = (_limit(fates, moment) for moment in (0, 1))
        notes.append(
            "Fate: blue weights the next pruning keeps, orange ones it "
            f"removes; start to ±{x:.2g}, end to ±{y:.2g}, darker is more."
        )
        steps = max(fate.step for fate in filter(None, fates))
        if steps > 1:
            notes.append(f"Of large levels one weight in up to {steps:,}.")
    return " ".join([*notes, _others(mask, others)]).strip()


def _others(mask, others):
    """Returns the text about weights that are not drawn."""
    if not others:
        return ""
    sizes, kept = mask.sizes, mask.kept_by_name
    told = [
        f"{name} ({notation.percent(kept[name] / max(1, sizes[name]))} %)"
        for name in others[:_LISTED]
    ]
    more = len(others) - len(told)
    rest = f" and {more} more" if more else ""
    return (
        f"Not drawn, with what the last level keeps: {', '.join(told)}{rest}."
    )
