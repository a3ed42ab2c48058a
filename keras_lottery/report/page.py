"""The page: one HTML file that says what a run found, and shows it."""

import functools
import html

from keras_lottery import directions
from keras_lottery import files
from keras_lottery import notation
from keras_lottery.printable import printable
from keras_lottery.report import curves
from keras_lottery.report import plots
from keras_lottery.report import words

_COLUMNS = (
    ("validation", "validation {}"),
    ("test", "test {}"),
    ("last_test", "test {}, last iteration"),
)
# The policy is kept by the browser: whatever slips in, nothing is loaded.
_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="color-scheme" content="light dark" />
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1b1b1b; --ground: #ffffff;
  --rule: #d5d5d5; --soft: #f3f5f7; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e8e8e8;
  --ground: #16181b; --rule: #3b3f45; --soft: #212429; }} }}
body {{ margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }}
main {{ max-width: 72rem; margin: 0 auto; padding: 1.5rem; }}
.summary {{ background: var(--soft); padding: 1rem 1.25rem;
  border-left: 4px solid #0072b2; font-size: 1.1rem; }}
figure {{ margin: 2rem 0; }}
svg {{ display: block; width: 100%; height: auto; }}
figcaption {{ font-size: 0.9rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: 0.9rem; }}
th, td {{ padding: 0.25rem 0.75rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }}
td:nth-child(2), th:nth-child(2) {{ text-align: left; }}
dl {{ display: grid; grid-template-columns: max-content 1fr;
  gap: 0.25rem 1.5rem; }}
dt {{ font-weight: 600; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
</style>
</head>
"""


def write(levels, path, **described):
    """Writes the report of a run: whole, or not at all, with its checksum.

    Equal arguments give equal bytes.

    Args:
        levels: List of dicts, one per replicate, arm and level.
        path: Where to.
        **described: What `render` takes beside `levels`.

    Raises:
        ValueError: A metric whose direction is not known.
    """
    text = render(levels, **described)
    files.write_whole(path, files.seal_page(text.encode()))


def render(
    levels, *, title, facts, metric="accuracy", mode=None, word="winning"
):
    """Returns the report as HTML that loads nothing from elsewhere.

    Args:
        levels: List of dicts, one per replicate, arm and level.
        title: Text.
        facts: Dict of text to text to list: command, seed, versions.
        metric: Name without `val_` or `test_`.
        mode: `"max"` or `"min"`; known for common metrics.
        word: As in `summary`.

    Example:

    >>> "<h1>a &lt; b</h1>" in render([], title="a < b", facts={})
    True
    """
    points = curves.pool(levels, metric)
    figure = plots.svg(plots.quality_and_speed(levels, metric, mode))
    # Only the image's name is read aloud; the numbers are in the table.
    figure = figure.replace(
        "<svg ", '<svg role="img" aria-label="Both plots, as in the table" ', 1
    )
    text = summary(levels, metric, mode, word)
    return (
        f"{_HEAD.format(title=_escaped(title))}<body>\n<main>\n"
        f"<h1>{_escaped(title)}</h1>\n"
        f'<p class="summary">{_escaped(text)}</p>\n'
        f"<figure>\n{figure}"
        f"<figcaption>{_escaped(_caption(points))}</figcaption>\n"
        f"</figure>\n<h2>Numbers</h2>\n{_table(points, metric)}"
        f"<h2>How it was made</h2>\n{_facts(facts)}"
        "</main>\n</body>\n</html>\n"
    )


def summary(levels, metric="accuracy", mode=None, word="winning"):
    """Says in words what a run found, for who reads nothing else.

    Args:
        levels: List of dicts, one per replicate, arm and level.
        metric: Name without `val_` or `test_`.
        mode: `"max"` or `"min"`; known for common metrics.
        word: `"winning"`, or `"matching"` for levels that were rewound to a
            step after 0.

    Returns:
        A paragraph of plain text.

    Raises:
        ValueError: A metric whose direction is not known.
    """
    mode = directions.mode_of(metric, mode)
    points = curves.pool(levels, metric)
    dense = [p for p in points if (p.kind, p.level) == ("ticket", 0)]
    if not dense:
        return "There is no dense network to compare tickets with yet."
    if not any(p.kind == "ticket" and p.level for p in points):
        return "Only the dense network is trained; there is no ticket yet."
    if not dense[0].validation.n:
        return (
            "Which ticket wins is not known: the dense network has no "
            f"validation {words.label(metric)}."
        )
    winner = curves.winning_level(levels, metric=metric, mode=mode)
    if winner is None:
        return (
            f"There is no {word} ticket: on validation data no pruned level is "
            f"as good as the dense network and as early ({_mean_of(dense[0])}, "
            f"dense test {words.label(metric)} {_tested(dense[0], metric)})."
        )
    return f"{_chosen(winner, metric)} {_verdict(winner, metric, word)}"


def _chosen(winner, metric):
    ticket, dense = winner.ticket, winner.dense
    text = (
        "The sparsest ticket no worse than the dense network, chosen on "
        f"validation data, keeps {notation.percent(ticket.density)} % of the "
        f"weights ({_mean_of(ticket)}, test {words.label(metric)} "
        f"{_tested(ticket, metric)} against {_tested(dense, metric)}, "
        f"early stopping at iteration {ticket.early_step.mean:,.0f} "
        f"against {dense.early_step.mean:,.0f})."
    )
    if curves.gain(ticket.test, dense.test, winner.mode) < 0:
        text += " On test data it is worse than the dense network."
    return text


def _verdict(winner, metric, word):
    control = winner.control
    if control is None or not control.test.n:
        return (
            "Whether its initial weights matter is not known, as no "
            f"reinitialized control was measured: it is not called {word}."
        )
    text = (
        f"Reinitialized it reaches {_tested(control, metric)} "
        f"({_count(control.test.n, 'training')}): "
    )
    if not winner.beats_control:
        return f"{text}no worse, so it is not a {word} ticket."
    if winner.overlaps_control:
        text += "worse on average, though single trainings overlap, so "
    return f"{text}it is a {word} ticket."


def _caption(points):
    return (
        "Lines are means, bands reach from the smallest to the largest value. "
        f"n is the number of trainings per point: {words.trainings(points)}. "
        "The grey line is the dense network's mean. Early stopping is where "
        "the validation loss is lowest, found after training to the end."
    )


def _table(points, metric):
    names = [words.heading(text, metric) for _, text in _COLUMNS]
    names.append("early-stopping iteration")
    heads = "".join(f"<th>{_escaped(name)}</th>" for name in names)
    rows = "".join(
        f"<tr><td>{notation.percent(point.density)}</td>"
        f"<td>{_escaped(words.label(point.kind))}</td>"
        f"{_cells(point, metric)}<td>{point.n}</td></tr>\n"
        for point in sorted(points, key=lambda point: point.level)
    )
    return (
        "<p>Mean [smallest, largest] of n trainings.</p>\n"
        '<div class="wide"><table>\n<thead><tr><th>kept %</th><th>arm</th>'
        f"{heads}<th>n</th></tr></thead>\n<tbody>\n{rows}</tbody>\n"
        "</table></div>\n"
    )


def _cells(point, metric):
    digits = functools.partial(notation.digits, metric=metric)
    texts = [
        _spread(getattr(point, measured), point.n, digits)
        for measured, _ in _COLUMNS
    ]
    texts.append(_spread(point.early_step, point.n, "{:,.0f}".format))
    return "".join(f"<td>{text}</td>" for text in texts)


def _spread(spread, n, written):
    if not spread.n:
        return "–"
    mean, low, high = map(written, (spread.mean, spread.low, spread.high))
    fewer = f" (n = {spread.n})" if spread.n != n else ""
    return f"{mean} [{low}, {high}]{fewer}"


def _facts(facts):
    items = "".join(
        f"<dt>{_escaped(name)}</dt><dd>{_escaped(fact)}</dd>\n"
        for name, fact in facts.items()
    )
    return f"<dl>\n{items}</dl>\n"


def _escaped(text):
    """Returns a text as HTML shows it, without what a file may not hold."""
    return html.escape(printable(text))


def _tested(point, metric):
    spread = point.test
    return notation.with_unit(spread.mean, metric) if spread.n else "unknown"


def _mean_of(point):
    return f"mean of {_count(point.n, 'replicate')}"


def _count(n, what):
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
