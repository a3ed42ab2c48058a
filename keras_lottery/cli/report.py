"""keras-lottery report: a run's table and page, from what is on disk."""

import contextlib

from keras_lottery.cli import arguments

USAGE = """\
keras-lottery report RUN: prints the table of a run, and writes its page.

Examples:
  keras-lottery report runs/digits-0123456789ab
  keras-lottery report runs/digits-*               whichever there is one of

Reads levels only: works while the run goes on, and for a run that was
stopped. Writes report.html and levels.csv into the run's directory. Nothing
that the run names is executed.
"""


def main(typed):
    """Runs the command; returns its exit code."""
    parsed = arguments.parse("report", USAGE, typed, _no_flags, (1, 1))
    if parsed is None:
        return 0
    from keras_lottery.cli import results
    from keras_lottery.cli import start
    from keras_lottery.errors import RunError
    from keras_lottery.runs.directory import RunDirectory

    start.require_matplotlib()
    run = RunDirectory.open(parsed[1][0])
    rows = run.rows()
    if not rows:
        raise RunError(
            f"No level of {run.path} is trained yet: there is nothing to "
            "report."
        )
    with contextlib.suppress(RunError), run.lock():  # else who plays it does
        run.save_tables()
    results.report(run, rows)
    return 0


def _no_flags(known):
    del known
