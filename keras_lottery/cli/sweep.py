"""keras-lottery sweep: a grid of runs, every part a process of its own."""

import os
import shlex

from absl import flags

from keras_lottery.cli import arguments

USAGE = """\
keras-lottery sweep: trains a grid of runs, replicates and arms side by side.

Examples:
  keras-lottery sweep                              digits, on all cores
  keras-lottery sweep --grid.train.learning_rate="(1e-3,5e-3)"
  keras-lottery sweep --grid.prune.criterion="('magnitude','movement')"
  keras-lottery sweep --grid.seed="(0,1)" --config.replicates=1 --dry_run
  keras-lottery sweep --config=digits:smoke --jobs=2 --threads=1 --retries=0
  keras-lottery sweep --config.replicates=20 --executor=ray --address=auto

A grid is every combination of the values listed; each is a run as
`keras-lottery run` with these settings makes it, in the same directory, and
`report`, `verify` and `run` go on with it. A trial is one process: the tickets
of a replicate, or one of its controls once they are there. The same command
continues a sweep that was stopped; a trial that fails is tried again from its
last whole level, and the others go on. Logs and one table of all runs go to
WORKDIR/sweeps.

--executor=ray runs trials as tasks of Ray (pip install 'keras_lottery[ray]'):
on this machine, or on the cluster at --address. All of its machines must have
this package, and WORKDIR, the data and config files of your own on a file
system that they share.

Without Ray, a scheduler such as Slurm can start the same processes itself:
`keras-lottery run --help`, --part.
"""


def main(typed):
    """Runs the command; returns its exit code."""
    from keras_lottery.cli import grid

    points, rest = grid.split(typed, "digits")
    parsed = arguments.parse("sweep", USAGE, rest, _define)
    if parsed is None:
        return 0
    chosen = parsed[0]
    _check(chosen)
    from keras_lottery.cli import start

    start.tensorflow()
    if chosen.report:
        start.require_matplotlib()
    if chosen.executor == "ray":
        from keras_lottery.runs import ray_executor

        ray_executor.require()
        # Its workers need not start in this folder.
        chosen.workdir = os.path.abspath(chosen.workdir)
    return _swept(points, chosen)


def _check(chosen):
    if chosen.executor == "local" and chosen.address:
        raise arguments.Usage(
            f"--address={chosen.address} is of a Ray cluster: add "
            "--executor=ray."
        )
    if chosen.address and chosen.jobs:
        raise arguments.Usage(
            f"--jobs={chosen.jobs}: how many trials run at once on the cluster "
            f"at {chosen.address} is for Ray to decide. Leave it out."
        )


def _define(known):
    text = {"flag_values": known}
    arguments.define_places(known)
    flags.DEFINE_enum(
        "executor", "local", ["local", "ray"], "Where trials run.", **text
    )
    flags.DEFINE_integer(
        "jobs",
        None,
        "Trials at once; as many as cores and memory allow if not given.",
        lower_bound=1,
        **text,
    )
    flags.DEFINE_integer(
        "threads", 1, "Threads of a trial.", lower_bound=1, **text
    )
    flags.DEFINE_integer(
        "retries", 2, "How often a trial is retried.", lower_bound=0, **text
    )
    flags.DEFINE_string("address", None, "Of a Ray cluster, or auto.", **text)
    flags.DEFINE_boolean("dry_run", False, "Only say what is to do.", **text)
    flags.DEFINE_boolean("report", True, "Write report.html of runs.", **text)


def _swept(points, chosen):
    from keras_lottery.cli import sweep_results
    from keras_lottery.runs import disk
    from keras_lottery.runs import sweep
    from keras_lottery.runs import trials

    played = sweep.Sweep(points, chosen.workdir)
    experiments = _experiments(points, chosen)
    needs = _needs(experiments, chosen)
    room = sweep.needed_on_disk(played, experiments, chosen.keep)
    disk.require(room, chosen.workdir)
    wanted = played.trials(
        experiments, lambda point, part: _trial(point, part, chosen)
    )
    print(_plan(played, wanted, needs, disk.size(room)), flush=True)
    if chosen.dry_run:
        print("\n".join(_listed(played, wanted)))
        return 0
    with trials.interruptible(), played.lock():
        played.create(
            lambda point: shlex.join(["keras-lottery", *_run(point, chosen)])
        )
        outcomes = _executed(wanted, needs, chosen)
        sweep_results.show(played, report=chosen.report)
    return sweep_results.failures(wanted, outcomes, chosen.retries)


def _experiments(points, chosen):
    """Returns the experiment of each point; nothing is read or built yet."""
    from keras_lottery.runs import points as grids
    from keras_lottery.runs.experiment import Experiment

    found = []
    for point in points:
        try:
            grids.check_strategy(point.config)
            found.append(
                Experiment(
                    point.config,
                    data_dir=chosen.data_dir,
                    download=chosen.download,
                )
            )
        except ValueError as error:
            where = grids.said(point.settings)
            raise ValueError(f"{where}: {error}" if where else error) from error
    return found


def _needs(experiments, chosen):
    """Returns (trials at once or None, bytes of one, GPUs, the reason)."""
    from keras_lottery.runs import disk
    from keras_lottery.runs import machine
    from keras_lottery.runs import sweep

    devices = machine.gpus()
    base = machine.used_memory() or 0
    built = sweep.share(experiments)
    memory = base + max(map(sweep.needed_in_memory, built))
    if chosen.executor == "ray":
        where = chosen.address or "this machine"
        told = f"Ray ({where}), which decides how many at once"
        return chosen.jobs, memory, [], f"{told}; {disk.size(memory)} each"
    cores, free = machine.cores(), machine.free_memory()
    fitting = machine.jobs(chosen.threads, memory, cores=cores, free=free)
    jobs = chosen.jobs or (len(devices) or fitting)
    if chosen.jobs:
        reason = f"--jobs={chosen.jobs}"
    elif devices:
        reason = f"one per GPU: {', '.join(devices)}"
    else:
        left = "unknown" if free is None else disk.size(free)
        reason = (
            f"{cores} cores, {left} of memory free, about "
            f"{disk.size(memory)} a trial"
        )
    return jobs, memory, devices, f"this machine, {jobs} at once: {reason}"


def _plan(played, wanted, needs, room):
    return (
        f"sweep    {played.path}\n"
        f"runs     {len(played.runs)}, up to {room} to be written\n"
        f"trials   {len(wanted)} to be trained\n"
        f"on       {needs[-1]}"
    )


def _listed(played, wanted):
    """Yields a line per run and trial."""
    from keras_lottery.runs import points

    for point, run in zip(played.points, played.runs):
        yield f"{run.path}  {points.said(point.settings)}".rstrip()
    for trial in wanted:
        after = f"  after {', '.join(trial.after)}" if trial.after else ""
        yield f"  {trial.name}{after}"


def _run(point, chosen):
    """Returns what makes the whole run of a point."""
    given = [f"--workdir={chosen.workdir}", f"--threads={chosen.threads}"]
    if chosen.keep != "tickets":
        given.append(f"--keep={chosen.keep}")
    if chosen.data_dir:
        given.append(f"--data_dir={chosen.data_dir}")
    if chosen.download:
        given.append("--download")
    return ["run", *point.typed, *given]


def _trial(point, part, chosen):
    module = ("-m", "keras_lottery.cli.trial")
    return [*module, *_run(point, chosen), f"--part={part}"]


def _executed(wanted, needs, chosen):
    """Runs the trials; returns the outcomes."""
    from keras_lottery.cli import sweep_progress
    from keras_lottery.runs import executors
    from keras_lottery.runs import ray_executor

    jobs, memory, devices, _ = needs
    retries = chosen.retries
    if not wanted:
        return {}
    with sweep_progress.shown(len(wanted)) as told:
        if chosen.executor == "local":
            return executors.local(
                wanted, told, jobs=jobs, retries=retries, devices=devices
            )
        return ray_executor.on_ray(
            wanted,
            told,
            retries=retries,
            threads=chosen.threads,
            memory=memory,
            jobs=jobs,
            address=chosen.address,
        )
