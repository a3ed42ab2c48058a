"""Kills small lotteries at moments drawn from a seed; all must end the same.

python tests/faults/kills.py --kills=500 --seed=0 --to=kills.json

Every lottery is the command `keras-lottery run` in a process of its own. It is
killed (SIGKILL), and begun again with the same command, until one attempt lives
to the end; then all files that are promised to be the same are compared, byte
for byte, with those of a lottery that was never disturbed. Kills come in two
ways: by the clock, anywhere between the start of the command and its end, and
just before or after an operation on a file, such as a rename: moments that a
clock seldom hits. Some attempts are asked to stop by SIGTERM instead.

Processes are forked from one that has imported TensorFlow and done nothing
else, so that an attempt begins at once.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import tqdm

from keras_lottery.cli import start

start.tensorflow()

import matplotlib  # noqa: E402, F401

from keras_lottery import files  # noqa: E402
from keras_lottery.cli import main  # noqa: E402
from keras_lottery.cli import progress  # noqa: E402, F401
from keras_lottery.cli import results  # noqa: E402, F401
from keras_lottery.runs import play  # noqa: E402, F401
from keras_lottery.training import loop  # noqa: E402

TINY = (
    "--config=digits:smoke",
    "--config.model.arguments={'hidden': (30,)}",
    "--config.train.steps=40",
    "--config.checkpoint.steps=3",
    "--noconfig.export.enabled",
)
LOTTERIES = {
    "weights": (),
    "rewind to step 10": ("--config.rewind.step=10",),
    "learning rate": (
        "--config.rewind.name=learning_rate",
        "--config.rewind.step=10",
        "--config.controls.names=('reinitialize',)",
        "--noconfig.controls.one_shot",
    ),
    "under XLA": ("--config.train.compile=xla",),
}
# What says how long things took differs, and what is only there to lock.
NOT_COMPARED = ("times.csv", "time.json", "tables.json")
OPERATIONS = ("fsync", "replace", "unlink")
WAYS = ("clock", "clock", "operation", "operation", "SIGTERM")
PATIENCE = 120  # seconds until an attempt counts as hung


class Differs(Exception):
    """A lottery that was disturbed did not end as the undisturbed one."""


def command(name):
    """Returns what is typed, after `keras-lottery`."""
    return ["run", *TINY, *LOTTERIES[name]]


def forked(typed, folder, prepare=lambda: None):
    """Starts a command in a folder and a process; returns its number."""
    os.makedirs(folder, exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        os.chdir(folder)
        loop.SECONDS = 0.002  # calls of few steps, as on large networks
        prepare()
        try:
            main.main(typed)
        except SystemExit as stopped:
            code = stopped.code
    finally:
        os._exit(code)


def ended(pid, patience=PATIENCE):
    """Returns the exit code of a process, negative for a signal."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise Differs(f"an attempt did not end within {patience} s")


def killing(number, after):
    """Has this process kill itself at its `number`-th operation on a file."""
    left = [number]

    def wrapped(operation):
        def run(*arguments):
            left[0] -= 1
            if left[0] == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = operation(*arguments)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return run

    for name in OPERATIONS:
        setattr(files.os, name, wrapped(getattr(os, name)))


def contents(workdir):
    """Returns the bytes of all files that are promised to be the same."""
    [run] = pathlib.Path(workdir, "runs").iterdir()
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file()
        and path.name not in NOT_COMPARED
        and not path.name.startswith(".lock")
    }


class Harness:
    """Kills lotteries, and counts.

    Args:
        seed: Of the moments.
        folder: Where lotteries are played.
        names: Which of `LOTTERIES`, in turn.
    """

    def __init__(self, seed, folder, names=tuple(LOTTERIES)):
        self._draw, self._folder, self._names = (
            random.Random(seed),
            pathlib.Path(folder),
            names,
        )
        self._whole = {}  # name: (contents, seconds)
        self.found = {
            "seed": seed,
            "kills by the clock": 0,
            "kills at an operation on a file": 0,
            "stops by SIGTERM": 0,
            "of them with exit code 75": 0,
            "longest stop by SIGTERM, seconds": 0.0,
            "lotteries ended": 0,
            "files compared": 0,
        }

    @property
    def kills(self):
        """Kills so far."""
        return sum(n for key, n in self.found.items() if "kills" in key)

    def run(self, kills, told=lambda: None):
        """Kills so many times at least, until the last lottery has ended.

        Raises:
            Differs: One did not end as it should.
        """
        turn = 0
        while self.kills < kills:
            self._lottery(self._names[turn % len(self._names)], kills, told)
            turn += 1

    def _lottery(self, name, kills, told):
        whole, seconds = self._undisturbed(name)
        workdir = self._folder / "disturbed"
        while self.kills < kills:
            code = self._attempt(command(name), workdir, seconds)
            told()
            if code == 0:
                break
        else:
            if ended(forked(command(name), workdir)) != 0:
                raise Differs(f"{name}: the last attempt failed")
        found = contents(workdir)
        if found != whole:
            wrong = sorted(
                key
                for key in found.keys() | whole.keys()
                if found.get(key) != whole.get(key)
            )
            raise Differs(f"{name}: {', '.join(wrong)} differ")
        self.found["lotteries ended"] += 1
        self.found["files compared"] += len(found)
        shutil.rmtree(workdir)

    def _undisturbed(self, name):
        if name not in self._whole:
            workdir = self._folder / f"whole_{len(self._whole)}"
            began = time.monotonic()
            if ended(forked(command(name), workdir)) != 0:
                raise Differs(f"{name} failed undisturbed")
            seconds = time.monotonic() - began
            self._whole[name] = contents(workdir), seconds
        return self._whole[name]

    def _attempt(self, typed, folder, seconds):
        """Runs a command, disturbed; returns its exit code."""
        way = self._draw.choice(WAYS)
        if way == "operation":
            number, after = self._draw.randint(1, 60), self._draw.random() < 0.5
            prepare = functools.partial(killing, number, after)
            code = ended(forked(typed, folder, prepare))
            return self._counted("kills at an operation on a file", code)
        delay = self._draw.uniform(0, seconds)
        pid = forked(typed, folder)
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            number = signal.SIGTERM if way == "SIGTERM" else signal.SIGKILL
            os.kill(pid, number)
        if way == "clock":
            return self._counted("kills by the clock", ended(pid))
        return self._stopped(pid)

    def _counted(self, way, code):
        if code not in (0, -signal.SIGKILL):
            raise Differs(f"an attempt that was killed exited with {code}")
        self.found[way] += code != 0
        return code

    def _stopped(self, pid):
        began = time.monotonic()
        code = ended(pid)
        seconds = time.monotonic() - began
        # Before the command has begun to hear signals they end it.
        if code not in (0, 75, -signal.SIGTERM):
            raise Differs(f"an attempt that was asked to stop exited: {code}")
        longest = "longest stop by SIGTERM, seconds"
        self.found["stops by SIGTERM"] += code != 0
        self.found["of them with exit code 75"] += code == 75
        self.found[longest] = max(self.found[longest], round(seconds, 2))
        return code


def _main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", help="file for what was found, as JSON")
    chosen = parser.parse_args()
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm.tqdm(total=chosen.kills, unit="kill") as bar,
    ):
        harness = Harness(chosen.seed, folder)
        try:
            harness.run(chosen.kills, lambda: bar.update(harness.kills - bar.n))
            verdict = "all ended bit-identical"
        except Differs as error:
            verdict = str(error)
            kept = shutil.copytree(folder, tempfile.mkdtemp() + "/kept")
            print(f"What differs is kept in {kept}")
    found = {
        **harness.found,
        "seconds": round(time.monotonic() - began),
        "verdict": verdict,
    }
    print(json.dumps(found, indent=1))
    if chosen.to:
        files.write_whole(chosen.to, json.dumps(found, indent=1).encode())
    sys.exit(verdict != "all ended bit-identical")


if __name__ == "__main__":
    _main()
