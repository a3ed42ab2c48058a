"""Trials: commands, each a process with a log, some after others."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

# Exit codes, done and wrong usage, that trying again does not change.
FINAL = (0, 2)
# Between asking a process to end and ending it, in seconds.
_GRACE = 30
_STOPPED = -signal.SIGTERM


class Trial(NamedTuple):
    """A process to be run.

    Fields:
        name: What it is called: `digits-0123456789ab/replicate_0/ticket`.
        command: What Python is called with: `("-m", "mymodule")`. Its standard
            input ends when whoever started it is gone, so that it can stop.
        log: File that its output is added to.
        after: Names of the trials that must have succeeded before.
    """

    name: str
    command: tuple
    log: str
    after: tuple = ()


class Outcome(NamedTuple):
    """How a trial ended.

    Fields:
        code: Exit code of its last process; None if there was none, as a trial
            before it failed, or if nobody knows, as its machine was lost.
        seconds: From its first process's start to its last one's end.
        reason: Why there is no code.
    """

    code: int | None
    seconds: float = 0.0
    reason: str = ""


class Processes:
    """Runs trials, from several threads, and stops all of them at once."""

    def __init__(self):
        self._lock, self._live, self._stopped = threading.Lock(), set(), False

    def run(self, trial, environment=None):
        """Runs one process of a trial to its end; returns its exit code.

        Args:
            trial: The `Trial`.
            environment: Dict of variables beside those that there are.
        """
        os.makedirs(os.path.dirname(trial.log), exist_ok=True)
        with open(trial.log, "ab") as log:
            with self._lock:
                if self._stopped:
                    return _STOPPED
                process = _started(trial, environment, log)
                self._live.add(process)
            try:
                return process.wait()
            finally:
                process.stdin.close()
                with self._lock:
                    self._live.discard(process)

    def stop(self):
        """Ends all processes, and lets none begin."""
        with self._lock:
            self._stopped = True
            live = list(self._live)
        for process in live:
            process.terminate()
        for process in live:
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


def attempt(run, trial, retries, environment=None):
    """Runs a trial, again where it fails; returns its `Outcome`.

    Args:
        run: Like `Processes().run`.
        trial: The `Trial`.
        retries: How many times it is tried again.
        environment: As `run` takes.
    """
    began, code = time.monotonic(), None
    for _ in range(retries + 1):
        code = run(trial, environment)
        if code in FINAL:
            break
    return Outcome(code, time.monotonic() - began)


def tail(path, lines=8):
    """Returns the last lines of a log, as list of text."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    shown = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    found = [line for line in shown.splitlines() if line.strip()]
    return [line[:300] for line in found[-lines:]]


@contextlib.contextmanager
def interruptible():
    """Makes SIGTERM, which schedulers send, a KeyboardInterrupt inside."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _started(trial, environment, log):
    process = subprocess.Popen(
        [sys.executable, *trial.command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
    )
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    host = os.uname().nodename if hasattr(os, "uname") else "?"
    log.write(f"--- process {process.pid} on {host}, {moment}\n".encode())
    log.flush()
    return process
