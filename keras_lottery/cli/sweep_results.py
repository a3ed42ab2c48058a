"""What is made of a sweep: one table, a line per run, and what failed."""

import os

from keras_lottery import notation
from keras_lottery.cli import results
from keras_lottery.report import curves
from keras_lottery.runs import points
from keras_lottery.runs import trials


def show(played, *, report):
    """Writes all tables, and prints a line per run.

    Args:
        played: The `Sweep`.
        report: Whether to write each run's report.html, too.
    """
    lines = [_HEAD]
    for point, run in zip(played.points, played.runs):
        rows = run.rows()
        said = points.said(point.settings) or point.config.name
        if not rows:
            lines.append([said, "0", "nothing trained", "", ""])
            continue
        run.save_tables_beside()
        if report:
            results.write_page(run, rows)
        lines.append([said, *_cells(run, rows)])
    played.save_table()
    print(f"\n{_aligned(lines)}\n{_FOOT}\n\ntable    {played.table_path}")
    for run in played.runs:
        shown = report and os.path.exists(run.report_path)
        print(
            f"report   {run.report_path}" if shown else f"run      {run.path}"
        )


_HEAD = ["run", "n", "dense", "winning, % kept", "test"]
_FOOT = """\
Test data at the lowest validation loss: mean over n replicates (lowest to
highest). Winning: the sparsest ticket as good and as early as the dense network
on validation data."""


def failures(wanted, outcomes, retries):
    """Prints what failed and the ends of its logs; returns the exit code.

    Args:
        wanted: List of `Trial`.
        outcomes: Dict from name to `Outcome`.
        retries: How many times each was tried again.
    """
    failed = [each for each in wanted if outcomes[each.name].code != 0]
    if not failed:
        return 0
    print(f"\n{len(failed)} of {len(wanted)} trials failed:")
    for trial in failed:
        code = outcomes[trial.name].code
        before = [n for n in trial.after if outcomes[n].code != 0]
        if before:
            print(f"  {trial.name}: not started, as {before[0]} failed")
            continue
        reason = outcomes[trial.name].reason
        why = reason if code is None else f"exit code {code}"
        print(f"  {trial.name}: {why}, {retries} retries; {trial.log}")
        print("\n".join(f"    | {line}" for line in trials.tail(trial.log)))
    print("The same command tries them again.")
    return 1


def _cells(run, rows):
    """Returns n, the dense network, the winning density and its metric."""
    config = run.read_config()
    metric, mode = results.deciding(config)
    tolerance = config["export"]["tolerance"]
    pooled = {(p.kind, p.level): p for p in curves.pool(rows, metric)}
    dense = pooled.get(("ticket", 0))
    winner = curves.winning_level(rows, tolerance, metric, mode)
    count = str(dense.test.n) if dense else "0"
    cells = [count, _spread(dense.test, metric) if dense else "–"]
    if winner is None:
        return [*cells, "none", ""]
    ticket = winner.ticket
    return [
        *cells,
        notation.percent(ticket.density),
        _spread(ticket.test, metric),
    ]


def _spread(spread, metric):
    if not spread.n:
        return "–"
    mean = notation.with_unit(spread.mean, metric)
    if spread.n == 1:
        return mean
    low, high = (notation.digits(v, metric) for v in (spread.low, spread.high))
    return f"{mean} ({low} to {high})"


def _aligned(lines):
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths)).rstrip()
        for line in lines
    )
