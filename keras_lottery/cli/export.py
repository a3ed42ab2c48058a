"""keras-lottery export: a ticket as a SavedModel for TF Serving."""

import os
import pathlib

from absl import flags

from keras_lottery.cli import arguments

USAGE = """\
keras-lottery export TICKET --to=DIRECTORY: a SavedModel for TF Serving.

Examples:
  keras-lottery export runs/digits-0123456789ab --to=serving/digits
      the winning ticket of a run (the best one, if none wins)
  keras-lottery export digits.safetensors --to=serving/digits
      a ticket file, from `ticket.save(...)` or from a run's levels

Writes DIRECTORY/1, or the next free number: TensorFlow Serving polls
DIRECTORY and loads it as it is. Weights are the trained ones, bit for bit:
  --format=compact   gaps and values, decoded once when it is loaded (default)
  --format=dense     as they are, zeros included
"""


def main(typed):
    """Runs the command; returns its exit code."""
    parsed = arguments.parse("export", USAGE, typed, _define, (1, 1))
    if parsed is None:
        return 0
    chosen, (path,) = parsed
    if not chosen.to:
        raise arguments.Usage(
            "Say where to with --to=serving/NAME. See `keras-lottery export "
            "--help`."
        )
    from keras_lottery.cli import start

    start.tensorflow()
    from keras_lottery.exporting.saved_model import export
    from keras_lottery.runs import disk
    from keras_lottery.tickets.ticket import Ticket

    if os.path.isdir(path):
        path = _chosen_of_run(path)
    ticket = Ticket.load(path)
    print(ticket)
    path = export(
        ticket, chosen.to, version=chosen.version, format=chosen.format
    )
    print(f"{chosen.format}, {disk.size(_bytes(path))}:")
    print(path)
    return 0


def _define(known):
    flags.DEFINE_string(
        "to", None, "Directory of the served model.", flag_values=known
    )
    flags.DEFINE_enum(
        "format",
        "compact",
        ["compact", "dense"],
        "How weights are written.",
        flag_values=known,
    )
    flags.DEFINE_integer(
        "version", None, "Instead of the next free number.", flag_values=known
    )


def _bytes(path):
    files = pathlib.Path(path).rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _chosen_of_run(path):
    from keras_lottery.cli import results
    from keras_lottery.errors import RunError
    from keras_lottery.runs import paths
    from keras_lottery.runs.directory import RunDirectory

    run = RunDirectory.open(path)
    try:
        level = results.exported_level(run.read_config(), run.rows())
    except RunError as error:
        raise RunError(f"{run.path}: {error}") from error
    print(f"replicate 0, level {level} of {run.path}")
    return run.file(0, "ticket", level, paths.TICKET)
