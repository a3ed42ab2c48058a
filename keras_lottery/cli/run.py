"""keras-lottery run: finds tickets, trains controls, reports, exports."""

import shlex

from absl import flags

from keras_lottery.cli import arguments

USAGE = """\
keras-lottery run: finds winning tickets, with controls, and reports them.

Examples:
  keras-lottery run                                digits, about a minute
  keras-lottery run --config=fashion_lenet         LeNet on Fashion-MNIST (tfds)
  keras-lottery run --config=cifar10_conv2:smoke   a variant: seconds
  keras-lottery run --config.prune.levels=4 --config.replicates=1
  keras-lottery run --config.replicates=5          extends the run that is there
  keras-lottery run --config.controls.names="('shuffle','randomize')"
  keras-lottery run --config=./mine.py             a config file of your own
  keras-lottery run --config.data.name=mydata:load --config.model.name=my:net

The same command continues a run that was stopped; what is done is not done
again. Results go to WORKDIR/NAME-HASH: report.html, levels.csv, a ticket per
level, and the winning one exported under export/1. `keras-lottery list` shows
configs, networks, data sets and runs. A config file is Python and is executed.
"""


def main(typed):
    """Runs the command; returns its exit code."""
    from keras_lottery.cli import overrides

    wants_help = {"--help", "-h", "--helpfull"} & set(typed)
    usage = f"{USAGE}\n{_settings()}" if wants_help else USAGE
    config, rest = overrides.split(typed, "digits")
    parsed = arguments.parse("run", usage, rest, _define)
    if parsed is None:
        return 0
    chosen = parsed[0]
    from keras_lottery.cli import start

    start.tensorflow()
    start.require_matplotlib()
    command = shlex.join(["keras-lottery", "run", *typed])
    experiment, run = _prepared(config, chosen, command)
    rows = _played(experiment, run, chosen.keep)
    from keras_lottery.cli import results

    results.report(run, rows)
    if experiment.config.export.enabled:
        results.export(run, rows, lambda: experiment.model)
    return 0


def _define(known):
    text = {"flag_values": known}
    flags.DEFINE_string("workdir", "runs", "Where runs are kept.", **text)
    flags.DEFINE_enum(
        "keep",
        "tickets",
        ["tickets", "all"],
        "Of controls keep only the numbers, or the trained networks too.",
        **text,
    )
    flags.DEFINE_string(
        "data_dir", None, "Where tfds keeps its sets (TFDS_DATA_DIR).", **text
    )
    flags.DEFINE_boolean(
        "download", False, "Let tfds download a set that is missing.", **text
    )


def _settings():
    from keras_lottery.runs import configuration

    flat = configuration.flat(configuration.defaults())
    lines = [f"  --config.{path}={value!r}" for path, value in flat.items()]
    return "Settings and their defaults (a config sets others):\n" + "\n".join(
        lines
    )


def _prepared(config, chosen, command):
    """Returns the experiment and its directory; nothing is written before."""
    from keras_lottery.runs import disk
    from keras_lottery.runs.directory import RunDirectory
    from keras_lottery.runs.experiment import Experiment

    experiment = Experiment(
        config, data_dir=chosen.data_dir, download=chosen.download
    )
    run = RunDirectory.of(config, chosen.workdir)
    needed = disk.estimate(experiment, run, keep=chosen.keep)
    disk.require(needed, chosen.workdir)
    run.create(config, command)
    print(f"{run.path}: up to {disk.size(needed)} to be written", flush=True)
    return experiment, run


def _played(experiment, run, keep):
    from keras_lottery.cli import progress
    from keras_lottery.runs import play

    told = progress.listener(experiment.metric)
    return play.play(experiment, run, told, keep=keep)
