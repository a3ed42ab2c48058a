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
  keras-lottery run --part=replicate_0/ticket      only these, beside others
  keras-lottery run --part=replicate_0/shuffled_0  a control, after its tickets

The same command continues a run that was stopped, by Ctrl-C, SIGTERM, kill -9
or a lost machine, from its last checkpoint, and ends in the same bytes. Results
go to WORKDIR/NAME-HASH: report.html, levels.csv, a ticket per level, and the
winning one exported under export/1. `keras-lottery list` shows configs,
networks, data sets and runs. A config file is Python and is executed.
Processes that each train a --part may work on one run at the same time, also on
several machines with one file system; a part makes no report and no export.
`keras-lottery sweep` starts such processes for you.
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
    start.threads(chosen.threads)
    if not chosen.part:
        start.require_matplotlib()
    experiment, run = _prepared(config, chosen, _command(typed))
    play = _train_part if chosen.part else _train_all
    play(experiment, run, chosen)
    from keras_lottery.training import workers

    workers.meet(experiment.strategy)  # none leaves while another writes
    return 0


def _command(typed):
    """Returns the command that makes all of the run, for its report."""
    whole, words = [], iter(typed)
    for word in words:
        if word.lstrip("-") == "part":
            next(words, None)
        elif word.lstrip("-").partition("=")[0] != "part":
            whole.append(word)
    return shlex.join(["keras-lottery", "run", *whole])


def _train_all(experiment, run, chosen):
    """Trains what is missing; the chief reports and exports."""
    from keras_lottery.cli import results
    from keras_lottery.runs import play

    told = _listener(experiment)
    rows = play.play(experiment, run, told, keep=chosen.keep)
    if not experiment.is_chief:
        return
    with run.lock():
        results.report(run, rows)
        if experiment.config.export.enabled:
            results.export(run, rows, lambda: experiment.model)


def _train_part(experiment, run, chosen):
    """Trains one part, beside other processes."""
    from keras_lottery.runs import parts
    from keras_lottery.runs import play

    part = parts.named(chosen.part, experiment)
    told = _listener(experiment)
    play.play_part(experiment, run, part, told, keep=chosen.keep)
    if experiment.is_chief:
        print(f"{part} of {run.path} is trained")


def _listener(experiment):
    from keras_lottery.cli import progress

    return progress.listener(experiment.metric) if experiment.is_chief else None


def _define(known):
    text = {"flag_values": known}
    arguments.define_places(known)
    flags.DEFINE_string(
        "part",
        None,
        "Train only replicate_N/ARM: no report, no export.",
        **text,
    )
    flags.DEFINE_integer(
        "threads",
        None,
        "Threads of TensorFlow; as many as cores where not given.",
        lower_bound=1,
        **text,
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
    from keras_lottery.runs import parts
    from keras_lottery.runs.directory import RunDirectory
    from keras_lottery.runs.experiment import Experiment
    from keras_lottery.runs.onlooker import Onlooker

    experiment = Experiment(
        config, data_dir=chosen.data_dir, download=chosen.download
    )
    if chosen.part:
        parts.named(chosen.part, experiment)
    kind = RunDirectory if experiment.is_chief else Onlooker
    run = kind.of(config, chosen.workdir)
    needed = disk.estimate(experiment, run, keep=chosen.keep)
    if needed:
        disk.require(needed + disk.passing(experiment), chosen.workdir)
    make = run.join if chosen.part else run.create
    make(config, command)
    if experiment.is_chief:
        print(
            f"{run.path}: up to {disk.size(needed)} to be written", flush=True
        )
    return experiment, run
