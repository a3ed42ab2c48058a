"""Executors: where trials run. Each is `(trials, told, ...) -> outcomes`.

`told` is a function `(trial, outcome)`, called as each one ends.
"""

import concurrent.futures
import graphlib
import queue

from keras_lottery.runs import trials as processes
from keras_lottery.runs.trials import Outcome


def local(trials, told, *, jobs, retries, devices=()):
    """Runs trials on this machine, several at once.

    Args:
        trials: List of `Trial`.
        told: Called with each trial and its `Outcome`.
        jobs: How many at once.
        retries: How many times each is tried again.
        devices: GPUs to share out, one to a trial, as CUDA_VISIBLE_DEVICES
            names them; with none, trials are left the environment's.

    Returns:
        Dict from the name of each trial to its `Outcome`.

    Raises:
        KeyboardInterrupt: The user, or a SIGTERM; all processes are ended.
    """
    running = processes.Processes()
    free = queue.SimpleQueue()
    for device in devices:
        free.put(device)

    def play(trial):
        if not devices:
            return processes.attempt(running.run, trial, retries)
        device = free.get()
        try:
            seen = {"CUDA_VISIBLE_DEVICES": device}
            return processes.attempt(running.run, trial, retries, seen)
        finally:
            free.put(device)

    at_once = min(jobs, len(devices)) if devices else jobs
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        try:
            return _in_order(trials, told, lambda t: pool.submit(play, t))
        except BaseException:
            running.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_order(trials, told, submit):
    """Submits every trial when those before it are done."""
    named = {trial.name: trial for trial in trials}
    order = graphlib.TopologicalSorter({t.name: t.after for t in trials})
    order.prepare()
    outcomes, running = {}, {}

    def end(name, outcome):
        outcomes[name] = outcome
        order.done(name)
        told(named[name], outcome)

    while order.is_active():
        for name in order.get_ready():
            if any(outcomes[before].code != 0 for before in named[name].after):
                end(name, Outcome(None))
            else:
                running[submit(named[name])] = name
        if running:
            ended, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in ended:
                end(running.pop(future), future.result())
    return outcomes
