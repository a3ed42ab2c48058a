"""Trials as tasks of Ray: on many machines that share a file system."""

import contextlib
import logging
import os

from keras_lottery.errors import RunError
from keras_lottery.runs import trials as processes
from keras_lottery.runs.trials import Outcome

# What a trial needs of the environment it was asked for in.
_HANDED_ON = (
    "KERAS_BACKEND",
    "KERAS_LOTTERY_DATA",
    "PYTHONPATH",
    "TFDS_DATA_DIR",
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_ENABLE_ONEDNN_OPTS",
)


# Nothing goes through Ray's store but exit codes: close to its least size.
_STORE = 80_000_000


class TrialFailed(Exception):
    """A process that failed, with its `Outcome`: Ray runs its task again."""


def on_ray(
    trials, told, *, retries, threads, memory=0, jobs=None, address=None
):
    """Runs trials as tasks of Ray, which decides where and how many at once.

    A trial that fails, or whose worker or machine is lost, is run again, on
    another machine if need be. Runs must lie on a file system that all
    machines share. Where there are GPUs, a trial gets one.

    Args:
        trials: List of `Trial`, each behind those it comes after.
        told: Called with each trial and its `Outcome`.
        retries: How many times each is run again.
        threads: CPUs of a trial.
        memory: Bytes of a trial; 0 leaves it out of Ray's account.
        jobs: How many at once on a cluster of our own; None for Ray's number.
        address: Of a cluster: `"auto"`, `"10.0.0.1:6379"`; None starts one on
            this machine and stops it afterwards.

    Returns:
        Dict from the name of each trial to its `Outcome`.

    Raises:
        ImportError: Ray is not installed.
        RunError: No such cluster, or none of its machines has room.
        KeyboardInterrupt: The user, or a SIGTERM; all trials are ended.
    """
    ray = require()
    cores = None if jobs is None else jobs * threads
    # Ray installs a handler of SIGTERM of its own when it starts.
    with _cluster(ray, address, cores), processes.interruptible():
        tasks = _submitted(
            ray, trials, retries, _resources(ray, threads, memory)
        )
        try:
            return _ended(ray, trials, tasks, told)
        except BaseException:
            for task in tasks.values():
                ray.cancel(task, force=True)
            raise


def require():
    """Returns the module `ray`; it says nothing to anyone on the network.

    Raises:
        ImportError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "Sweeps on many machines run on Ray, which is not installed: pip "
            "install 'keras_lottery[ray]'. --executor=local needs nothing."
        ) from error
    return ray


@contextlib.contextmanager
def _cluster(ray, address, cores):
    """Connects to a cluster, or starts one that ends with the context."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own = {
        "num_cpus": cores,
        "include_dashboard": False,
        "object_store_memory": _STORE,
    }
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(own if address == "local" else {}),
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise RunError(
            f"There is no Ray cluster at {address!r}. Give another --address, "
            f"or none for this machine alone. Ray says: {error}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _resources(ray, threads, memory):
    """Returns what a task asks for; asking too much would wait for ever."""
    machines = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    cores = max((each.get("CPU", 0) for each in machines), default=0)
    room = max((each.get("memory", 0) for each in machines), default=0)
    if cores < threads:
        raise RunError(
            f"A trial is to have {threads} threads, and no machine of the "
            f"cluster has more than {cores:.0f} CPUs: use --threads."
        )
    return {
        "num_cpus": threads,
        "num_gpus": int(any(each.get("GPU", 0) >= 1 for each in machines)),
        "memory": int(min(memory, room)),
    }


def _submitted(ray, trials, retries, resources):
    """Returns a task per trial, by name; each waits for those before it."""
    task = ray.remote(
        max_retries=retries, retry_exceptions=[TrialFailed], **resources
    )(_play)
    place = (os.getcwd(), _environment())
    tasks = {}
    for trial in trials:
        before = [tasks[name] for name in trial.after]
        tasks[trial.name] = task.remote(trial, place, *before)
    return tasks


def _environment():
    return {n: os.environ[n] for n in _HANDED_ON if n in os.environ}


def _play(trial, place, *before):
    """A task: returns the `Outcome`, or raises to be run again."""
    if any(outcome.code != 0 for outcome in before):
        return Outcome(None)
    folder, environment = place
    if os.path.isdir(folder):  # functions and configs of the user's own
        os.chdir(folder)
    run = processes.Processes().run
    outcome = processes.attempt(run, trial, 0, environment)
    if outcome.code not in processes.FINAL:
        raise TrialFailed(*outcome)
    return outcome


def _ended(ray, trials, tasks, told):
    """Waits for all tasks; returns the outcomes."""
    named = {trial.name: trial for trial in trials}
    waiting = {task: name for name, task in tasks.items()}
    outcomes = {}
    while waiting:
        # Of those that are done the first: what is before others is known.
        (task,), _ = ray.wait(list(waiting), num_returns=1)
        name = waiting.pop(task)
        failed = any(outcomes[n].code != 0 for n in named[name].after)
        outcomes[name] = Outcome(None) if failed else _outcome(ray, task)
        told(named[name], outcomes[name])
    return outcomes


def _outcome(ray, task):
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, TrialFailed):
            return Outcome(*cause.args)
        # Its worker or machine is lost, or has not what a task needs.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Outcome(None, reason=lines[-1])
