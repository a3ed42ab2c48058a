"""keras-lottery export: a ticket as a SavedModel for TF Serving."""

import json
import os

from absl import flags

from keras_lottery.cli import arguments
from keras_lottery.cli import samples

# As in `exporting`, which is not loaded for --help.
FORMATS = ("compact", "compact-serving", "dense", "keras", "lite", "onnx")
VALUES = ("float32", "float16", "bfloat16", "int8")
USAGE = """\
keras-lottery export PATH --to=DIRECTORY: a SavedModel for TF Serving.

Examples:
  keras-lottery export runs/digits-0123456789ab --to=serving/digits
      the winning ticket of a run (the best one, if none wins)
  keras-lottery export digits.safetensors --to=serving/digits
      a ticket file, from `ticket.save(...)` or from a run's levels
  keras-lottery export sparse.keras --to=serving/digits
      a Keras model, pruned with anything: its zeros are what counts

  keras-lottery export RUN --to=serving/digits --samples=200 --measure
      with 200 test images as requests that warm the server up; says how
      answers and accuracy changed, and how fast it loads and answers beside
      the dense export
  keras-lottery export RUN --to=serving/digits --values=int8 --samples=300
      lossy: kernels in 8 bits; accuracy before and after is printed

Writes DIRECTORY/1, or the next free number: TensorFlow Serving polls
DIRECTORY and loads it as it is. MODEL_CARD.md in it says how small it is, how
its answers differ, and how to serve it. Formats:
  compact          gaps and values, decoded once when it is loaded (default)
  compact-serving  the smallest; for servers and the C API only
  dense            a SavedModel with zeros included
  keras, lite, onnx   a file for other runtimes
Values other than float32 are lossy, and so are never the default. --shrink
removes units and channels that change nothing and folds batch normalisation.
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

    run, path = _opened(path)
    given = None
    if chosen.samples:
        given = samples.of(chosen.samples, run, chosen.data_dir)
    source = _loaded(path)
    if chosen.measure:
        print("measuring takes about half a minute, more for a large network")
    path = export(
        source,
        chosen.to,
        version=chosen.version,
        format=chosen.format,
        values=chosen.values,
        shrink=chosen.shrink,
        samples=given,
        measure=chosen.measure,
    )
    _tell(path)
    return 0


def _define(known):
    flags.DEFINE_string(
        "to", None, "Directory of the served model.", flag_values=known
    )
    text = {"flag_values": known}
    flags.DEFINE_enum(
        "format", "compact", FORMATS, "How the network is written.", **text
    )
    flags.DEFINE_enum(
        "values", "float32", VALUES, "How kernels are stored.", **text
    )
    flags.DEFINE_boolean(
        "shrink", False, "Remove what changes nothing.", **text
    )
    flags.DEFINE_string(
        "samples", None, "Test rows of the run, or an .npz with x, y.", **text
    )
    flags.DEFINE_boolean(
        "measure", False, "Measure speed beside the dense export.", **text
    )
    flags.DEFINE_integer(
        "version", None, "Instead of the next free number.", **text
    )
    flags.DEFINE_string(
        "data_dir", None, "Where tfds keeps its sets (TFDS_DATA_DIR).", **text
    )


def _tell(path):
    """Prints what the model card begins with, and where it is."""
    from keras_lottery.exporting import measuring
    from keras_lottery.runs import disk

    with open(os.path.join(path, "model_card.json"), encoding="utf-8") as file:
        card = json.load(file)
    sizes = card["bytes"]
    against = [
        f"{sizes[key]['ratio']:.1f} x smaller than {what}"
        for key, what in (
            ("keras", "Keras's own export"),
            ("dense", "the dense one"),
        )
        if sizes[key].get("ratio", 0) > 1
    ]
    size = disk.size(sizes["export"]["bytes"])
    print(f"{card['format']}, {', '.join([size, *against])}")
    for line in (card["shrink"] or "").splitlines():
        print(f"shrunk: {line}")
    if card["measured"]:
        print(*measuring.in_words(card["measured"]), sep="\n")
    print(path)


def _loaded(path):
    """Returns the ticket, or the Keras model, in a file."""
    if not path.endswith(".keras"):
        from keras_lottery.tickets.ticket import Ticket

        ticket = Ticket.load(path)
        print(ticket, flush=True)
        return ticket
    import keras

    if not os.path.exists(path):
        raise ValueError(f"There is no file {path}.")
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"Keras cannot load {path}: {str(error).splitlines()[0]} Classes "
            "of one's own are loaded from Python: `lottery.export(model, ...)`."
        ) from error


def _opened(path):
    """Returns the run, or None, and the path of the ticket to export."""
    if not os.path.isdir(path):
        return None, path
    from keras_lottery.runs.directory import RunDirectory

    run = RunDirectory.open(path)
    return run, _chosen_of_run(run)


def _chosen_of_run(run):
    from keras_lottery.cli import results
    from keras_lottery.errors import RunError
    from keras_lottery.runs import paths

    try:
        level = results.exported_level(run.read_config(), run.rows())
    except RunError as error:
        raise RunError(f"{run.path}: {error}") from error
    print(f"replicate 0, level {level} of {run.path}")
    return run.file(0, "ticket", level, paths.TICKET)
