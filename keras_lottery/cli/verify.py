"""keras-lottery verify: whether a ticket, a run, an export is what it says."""

import os

import tqdm
from absl import flags

from keras_lottery.cli import arguments
from keras_lottery.printable import printable

USAGE = """\
keras-lottery verify PATH: checks a ticket file, all of a run, or an export.

Examples:
  keras-lottery verify runs/digits-0123456789ab
  keras-lottery verify runs/digits-0123456789ab --nodata
  keras-lottery verify digits.safetensors
  keras-lottery verify serving/digits      the newest version in it
  keras-lottery verify serving/digits/1

Of a run: the directory's name, every file's checksum, levels.csv, and of each
ticket, bit for bit: that it keeps as many weights as the schedule says, that
masks are nested, that every level starts where its rewind puts it, and that
numbers are finite. Nothing in it is executed.

Then, if all that is so, the network is built and the end of each ticket is
measured again, on the validation and on the test set: last_val_* and
last_test_* have to be what the ticket says, to the last bit where the recorded
conditions (processor, threads, versions) are those of this machine, and within
1e-3 (and 2 samples, of what counts samples) where they are not. That is left
out, and said, where the network, the data set or a metric is not one of this
package or of tfds, or the data are not at hand: nothing is imported or
downloaded. --nodata leaves it out.

Of an export: every file's checksum, and that its graph holds only operations
that compute: with others, such as those that write files, it is not loaded.
Then TensorFlow's C++ loader answers the recorded warm-up requests, which must
be as recorded; with tensorflow_model_server on PATH that server does, too, by
REST and by gRPC.

Exit code 1 if something differs; each difference is a line.
"""


def main(typed):
    """Runs the command; returns its exit code."""
    parsed = arguments.parse("verify", USAGE, typed, _define, (1, 1))
    if parsed is None:
        return 0
    from keras_lottery.cli import start

    start.tensorflow()
    known, (path,) = parsed
    if os.path.isdir(path):
        found, what = _export(path) or _run(path, known["data"].value)
    else:
        found, what = _ticket(path)
    for difference in found:
        print(printable(f"DIFFERS  {difference}"))
    print(printable(f"{what}: {_verdict(found)}"))
    return 1 if found else 0


def _define(known):
    flags.DEFINE_boolean(
        "data",
        True,
        "Measure the tickets of a run again, where its data are at hand.",
        flag_values=known,
    )


def _export(path):
    """Returns None where there is no export."""
    from keras_lottery.exporting.verifying import contents

    version = contents.version_directory(path)
    if version is None:
        return None
    if version != path:
        print(f"{version} is the newest version")
    from keras_lottery.exporting.verifying import verification

    found, notes = verification.differences(version)
    for note in notes:
        print(printable(note))
    return found, version


def _run(path, data):
    from keras_lottery.runs import verify
    from keras_lottery.runs.directory import RunDirectory

    run = RunDirectory(path)
    levels = run.levels()
    if not levels:  # there may be no run at all
        run.read_config()
    with _bar(levels) as bar:
        found = verify.differences_of_run(run, lambda where: bar.update())
    if data and not found:  # of damaged files nothing is built
        from keras_lottery.runs import remeasure

        with _bar(levels) as bar:
            measured = remeasure.of_run(run, lambda where: bar.update())
        found = [*measured.differences]
        print(printable(measured.note))
    return found, f"{path}: {len(levels)} levels"


def _bar(levels):
    return tqdm.tqdm(total=len(levels), unit="level", disable=None)


def _ticket(path):
    from keras_lottery.runs import verify
    from keras_lottery.tickets.ticket import Ticket

    ticket = Ticket.load(path)
    kept, sizes = ticket.mask.kept_by_name, ticket.mask.sizes
    for name, shape in ticket.mask.shapes.items():
        share = kept[name] / sizes[name] if sizes[name] else 0.0
        line = f"{name:<40} {str(shape):<18} {kept[name]:>12,} {share:8.2%}"
        print(printable(line))
    return verify.differences_of_ticket(ticket), f"{path}: {ticket!r}"


def _verdict(found):
    if not found:
        return "as it says"
    return f"{len(found)} difference{'s' if len(found) > 1 else ''}"
