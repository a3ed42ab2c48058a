"""Plots: what figures 1, 3 and 4 of Frankle & Carbin (2019) show, as one."""

import io
import math
import textwrap

import matplotlib
from matplotlib.figure import Figure

from keras_lottery import directions
from keras_lottery import notation
from keras_lottery.report import curves
from keras_lottery.report import words

# The page swaps it for the colour of its text, light or dark.
INK = "#1b1b1b"

# Okabe and Ito's colours, told apart by the colour-blind; markers and dashes
# differ too, for print without colour.
_STYLES = {
    "ticket": ("#0072b2", "o", "-"),
    # A colour of the spare ones, as a fifth is hard to find: its own marker.
    "one_shot": ("#e69f00", "d", (0, (7, 1.5))),
    "reinitialized": ("#d55e00", "s", "--"),
    "shuffled": ("#009e73", "^", "-."),
    "random": ("#cc79a7", "v", ":"),
}
_SPARE_COLORS, _SPARE_MARKERS = ("#e69f00", "#56b4e9", "#8c8c8c"), "DPX*"
_SETTINGS = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.size": 10,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "keras_lottery",
    "text.color": INK,
    # A name with a dollar in it is a name, not a formula.
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
_TICKS = 8
_TITLE_WIDTH = 44


def quality_and_speed(levels, metric="accuracy", mode=None):
    """Draws a metric on test data and the early-stopping iteration.

    Both are drawn against density. Lines are means over replicates and over
    arms of the same kind, bands reach from the smallest to the largest. As in
    the paper the network gets sparser to the right.

    Args:
        levels: List of dicts, one per replicate, arm and level.
        metric: Name without `val_` or `test_`.
        mode: `"max"` or `"min"`; known for common metrics.

    Returns:
        A matplotlib `Figure` with two panels.

    Raises:
        ValueError: A metric whose direction is not known.

    Example:

    >>> row = {"arm": "ticket", "level": 0, "density": 1.0, "early_step": 40}
    >>> figure = quality_and_speed([{**row, "test_accuracy": 0.96}])
    >>> [axes.get_xscale() for axes in figure.axes]
    ['log', 'log']
    """
    mode = directions.mode_of(metric, mode)
    points = curves.pool(levels, metric)
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        scale = 100 if directions.is_fraction(metric) else 1
        _panel(left, points, "test", scale)
        title = words.heading("Test {} at early stopping", metric)
        left.set_title(textwrap.fill(title, _TITLE_WIDTH))
        if mode == "min":
            left.set_ylabel("less is better")
        _panel(right, points, "early_step")
        right.set_title("Early-stopping iteration")
        right.set_ylim(bottom=0)
        right.yaxis.set_major_formatter("{x:,.0f}")
        _legend(figure, left)
    return figure


def save(figure, path):
    """Saves a figure as SVG, PNG or whatever the path ends in.

    Equal figures give equal bytes; the ground is white.

    Args:
        figure: A matplotlib `Figure`.
        path: Where to; the ending decides the format.
    """
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    metadata = dateless.get(str(path).rpartition(".")[2].lower())
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(path, dpi=150, facecolor="white", metadata=metadata)


def svg(figure):
    """Returns a figure as an `<svg>` element for a page, without ground.

    Args:
        figure: A matplotlib `Figure`.

    Returns:
        A string that refers to nothing outside itself.
    """
    # Whatever has a default must be unset: the type's is a web address.
    unset = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    file = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(file, format="svg", transparent=True, metadata=unset)
    text = file.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _panel(axes, points, measured, scale=1):
    kinds = list(dict.fromkeys(point.kind for point in points))
    others = [kind for kind in kinds if kind not in _STYLES]
    styles = _STYLES | dict(zip(others, map(_spare, range(len(others)))))
    for kind in kinds:
        line = [point for point in points if point.kind == kind]
        _curve(axes, line, measured, scale, styles[kind])
    dense = [p for p in points if (p.kind, p.level) == ("ticket", 0)]
    for point in dense:
        height = scale * getattr(point, measured).mean
        axes.axhline(
            height, color=INK, linewidth=0.8, alpha=0.6, label="dense network"
        )
    _density_axis(axes, [100 * point.density for point in points])
    axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)


def _spare(index):
    # Three colours by four markers: twelve kinds before two look alike.
    color = _SPARE_COLORS[index % len(_SPARE_COLORS)]
    return color, _SPARE_MARKERS[index % len(_SPARE_MARKERS)], "-"


def _curve(axes, points, measured, scale, style):
    color, marker, dashes = style
    spreads = [getattr(point, measured) for point in points]
    percents = [100 * point.density for point in points]
    axes.fill_between(
        percents,
        [scale * spread.low for spread in spreads],
        [scale * spread.high for spread in spreads],
        color=color,
        alpha=0.2,
        linewidth=0,
    )
    axes.plot(
        percents,
        [scale * spread.mean for spread in spreads],
        color=color,
        marker=marker,
        markersize=4.5,
        linestyle=dashes,
        linewidth=1.6,
        label=f"{words.label(points[0].kind)} (n = {words.sample(points)})",
    )


def _density_axis(axes, percents):
    """Makes x logarithmic, sparser to the right, with plain numbers."""
    axes.set_xscale("log")
    axes.set_xlabel("percent of weights remaining")
    drawn = sorted({p for p in percents if p > 0}, reverse=True)
    axes.minorticks_off()
    ticks = _apart(drawn)
    axes.set_xticks(ticks, [notation.percent(tick / 100) for tick in ticks])
    if drawn:
        axes.set_xlim(1.12 * drawn[0], drawn[-1] / 1.12)


def _apart(percents):
    """Returns the densities that can be labelled without touching."""
    if not percents:
        return []
    gap = math.log(percents[0] / percents[-1]) / _TICKS
    ticks = percents[:1]
    for percent in percents[1:]:
        if math.log(ticks[-1] / percent) >= gap:
            ticks.append(percent)
    return ticks


def _legend(figure, axes):
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
