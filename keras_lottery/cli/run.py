"""keras-lottery run: finds tickets, trains controls, reports, exports."""

import os
import shlex
import sys
import time

from absl import flags

USAGE = """\
keras-lottery run: finds winning tickets, with controls, and reports them.

Examples:
  keras-lottery run                                digits, about a minute
  keras-lottery run --config=fashion_lenet         LeNet on Fashion-MNIST (tfds)
  keras-lottery run --levels=4 --replicates=1      a shorter one
  keras-lottery run --replicates=5                 extends the run that is there

The same command continues a run that was stopped; what is done is not done
again. Results go to WORKDIR/NAME-HASH: report.html, levels.csv, a ticket per
level, and the winning one exported under export/1.

Flags:
"""


def main(arguments):
    """Runs the command; returns its exit code."""
    parsed = _parse(arguments)
    if parsed is None:
        return 0
    from keras_lottery.environment import require_tensorflow_backend

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    require_tensorflow_backend()
    _require_matplotlib()
    from keras_lottery.runs import directory
    from keras_lottery.runs import experiment
    from keras_lottery.runs import play

    chosen = experiment.get(
        parsed.config, levels=parsed.levels, replicates=parsed.replicates
    )
    run = directory.RunDirectory(chosen, parsed.workdir)
    run.create()
    rows = play.play(chosen, run, Progress())
    command = shlex.join(["keras-lottery", "run", *arguments])
    _report(chosen, run, rows, command)
    return 0


class Progress:
    """A line that says how far a run is: rewritten on a terminal."""

    def __init__(self):
        self._begun = time.monotonic()
        self._first = None

    def __call__(self, done, total, text):
        if self._first is None:
            self._first, self._begun = done, time.monotonic()
        trained = done - self._first
        spent = time.monotonic() - self._begun
        left = (
            f", {spent / trained * (total - done):.0f} s left"
            if trained
            else ""
        )
        line = f"[{done}/{total}{left}] {text}"
        if sys.stdout.isatty():
            end = "\n" if done == total else "\r"
            print(f"\x1b[2K{line}", end=end, flush=True)
        elif not text and (done % 10 == 0 or done == total):
            print(f"[{done}/{total} trainings]", flush=True)


def _parse(arguments):
    """Returns the flags, or None where help was asked for and given."""
    known = flags.FlagValues()
    text = {"flag_values": known}
    flags.DEFINE_string(
        "config", "digits", "digits, fashion_lenet or mnist_lenet.", **text
    )
    flags.DEFINE_string("workdir", "runs", "Where runs are kept.", **text)
    flags.DEFINE_integer("levels", None, "Number of prunings.", **text)
    flags.DEFINE_integer("replicates", None, "Repetitions.", **text)
    if {"--help", "-h", "--helpfull"} & set(arguments):
        print(USAGE + known.main_module_help())
        return None
    try:
        rest = known(["run", *arguments])[1:]
    except flags.Error as error:
        raise ValueError(f"{error} See `keras-lottery run --help`.") from error
    if rest:
        raise ValueError(f"`run` takes only flags, got {' '.join(rest)}.")
    return known


def _require_matplotlib():
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The report draws with matplotlib, which is not installed: pip "
            "install 'keras_lottery[report]'."
        ) from error


def _report(chosen, run, rows, command):
    from keras_lottery.report import page
    from keras_lottery.report import words
    from keras_lottery.tickets.lottery import versions

    facts = {
        "command": command,
        "data": chosen.data,
        "network": f"LeNet {'-'.join(map(str, chosen.hidden))}",
        "seed": str(chosen.seed),
        "replicates": str(chosen.replicates),
        "versions": ", ".join(f"{k} {v}" for k, v in versions().items()),
    }
    page.write(rows, run.report_path, title=chosen.name, facts=facts)
    level = _exported_level(rows)
    print(
        f"{words.format_table(rows)}\n\n{page.summary(rows)}\n\n"
        f"report   {run.report_path}\n"
        f"tickets  {os.path.dirname(run.ticket_path(0, 'ticket', 0))[:-1]}*\n"
        f"export   {_export(run, level)}  (replicate 0, level {level})"
    )


def _exported_level(rows):
    """Returns the winning level, or where there is none the most accurate."""
    from keras_lottery.report import curves

    winner = curves.winning_level(rows)
    if winner is not None:
        return winner.ticket.level
    pruned = [
        row
        for row in rows
        if row["arm"] == "ticket" and row["replicate"] == 0 and row["level"]
    ]
    return max(pruned, key=lambda row: row["val_accuracy"])["level"]


def _export(run, level):
    """Exports a level of replicate 0, unless that was done before."""
    from keras_lottery.exporting.saved_model import export

    done = run.exported(level)
    if done is not None:
        return done
    path = export(run.ticket(0, "ticket", level), run.export_path)
    run.note_export(path, level)
    return path
