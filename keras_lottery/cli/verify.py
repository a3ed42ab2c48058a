"""keras-lottery verify: whether a ticket, a run, an export is what it says."""

import os

import tqdm

from keras_lottery.cli import arguments

USAGE = """\
keras-lottery verify PATH: checks a ticket file, all of a run, or an export.

Examples:
  keras-lottery verify runs/digits-0123456789ab
  keras-lottery verify digits.safetensors
  keras-lottery verify serving/digits      the newest version in it
  keras-lottery verify serving/digits/1

Of a run: the directory's name, every file's checksum, levels.csv, and of each
ticket that it keeps as many weights as the schedule says, that masks are
nested and that every level starts where the first did. Nothing in it is
executed.

Of an export: every file's checksum, and that its graph holds only operations
that compute: with others, such as those that write files, it is not loaded.
Then TensorFlow's C++ loader answers the recorded warm-up requests, which must
be as recorded; with tensorflow_model_server on PATH that server does, too, by
REST and by gRPC.

Exit code 1 if something differs; each difference is a line.
"""


def main(typed):
    """Runs the command; returns its exit code."""
    parsed = arguments.parse("verify", USAGE, typed, lambda known: None, (1, 1))
    if parsed is None:
        return 0
    from keras_lottery.cli import start

    start.tensorflow()
    (path,) = parsed[1]
    if os.path.isdir(path):
        found, what = _export(path) or _run(path)
    else:
        found, what = _ticket(path)
    for difference in found:
        print(f"DIFFERS  {difference}")
    print(f"{what}: {_verdict(found)}")
    return 1 if found else 0


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
        print(note)
    return found, version


def _run(path):
    from keras_lottery.runs import verify
    from keras_lottery.runs.directory import RunDirectory

    run = RunDirectory.open(path)
    levels = run.levels()
    with tqdm.tqdm(total=len(levels), unit="level", disable=None) as bar:
        found = verify.differences_of_run(run, lambda where: bar.update())
    return found, f"{path}: {len(levels)} levels"


def _ticket(path):
    from keras_lottery.runs import verify
    from keras_lottery.tickets.ticket import Ticket

    ticket = Ticket.load(path)
    kept, sizes = ticket.mask.kept_by_name, ticket.mask.sizes
    for name, shape in ticket.mask.shapes.items():
        share = kept[name] / sizes[name] if sizes[name] else 0.0
        print(f"{name:<40} {str(shape):<18} {kept[name]:>12,} {share:8.2%}")
    return verify.differences_of_ticket(ticket), f"{path}: {ticket!r}"


def _verdict(found):
    if not found:
        return "as it says"
    return f"{len(found)} difference{'s' if len(found) > 1 else ''}"
