"""Contenders take turns, each in a process of its own.

PyTorch, legacy Keras and Keras 3 do not share a process well, and a machine
that other work shares is slow in spells. So each contender has a process, and
in every round each does one stretch of work, in an order that rotates: a slow
spell strikes all of them, and ratios are taken round by round.

A contender is `"module:function"` with keyword arguments. Its process imports
the module (from this folder, or from PYTHONPATH), calls the function once, and
gets `train`, a function that does one round of work and returns when the work
is done. The number of threads is set in the environment before anything is
imported, and in TensorFlow and PyTorch once the module has imported them.

    with_two = turns.take_turns(
        {"ours": ("step_keras:looped", {"network": "lenet"}), ...},
        rounds=30, threads=2,
    )
    bars.of_pairs("a / b", with_two.wall["a"], with_two.wall["b"], "<=", 1.1)

Tables of what was measured are in `bars.py`.
"""

import contextlib
import csv
import importlib
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from keras_lottery.errors import RunError

TIMEOUT = 900  # seconds for one answer; XLA compiles some networks for minutes
FEWEST, MOST = 3, 10  # calls to warm up
SETTLED = 1.2  # warm when a call takes no more of the shortest before it


class Times(NamedTuple):
    """Seconds of every round.

    Fields:
        wall: Dict from name to list of seconds on the wall.
        processor: The same of the processor, of all threads.
    """

    wall: dict
    processor: dict


def take_turns(contenders, rounds, *, threads=1, record=None):
    """Runs all contenders, round by round.

    Args:
        contenders: Dict from name to `("module:function", arguments)`.
        rounds: Rounds that count, after those that warm up.
        threads: Of each contender.
        record: Path of a csv file that gets every turn as it is done.

    Returns:
        `Times`.

    Raises:
        RunError: A contender died or did not answer; with what it wrote to
            standard error. All others are ended.
    """
    times = Times(*({name: [] for name in contenders} for _ in range(2)))
    with contextlib.ExitStack() as stack:
        note = stack.enter_context(_recording(record))
        children = [
            stack.enter_context(Child(name, *what, threads))
            for name, what in contenders.items()
        ]
        for child in children:
            child.wait()
        for child in children:
            _warm_up(child)
        for number in range(-1, rounds):  # one more, to settle side by side
            first = number % len(children)
            for child in children[first:] + children[:first]:
                wall, processor = child.turn()
                if number >= 0:
                    times.wall[child.name].append(wall)
                    times.processor[child.name].append(processor)
                    note(number, child.name, wall, processor)
            _say(f"round {number + 1} of {rounds}")
    return times


def environment(threads):
    """Returns the variables that hold a process to a number of threads."""
    found = dict(os.environ)
    counted = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    )
    found.update({name: str(threads) for name in counted})
    if threads == 1:
        one = "--xla_cpu_multi_thread_eigen=false"
        found["XLA_FLAGS"] = f"{found.get('XLA_FLAGS', '')} {one}".strip()
    found.setdefault("KERAS_BACKEND", "tensorflow")
    found.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return found


def limit_threads(threads):
    """Holds TensorFlow and PyTorch, where imported, to a number of threads.

    They must not have computed anything yet.
    """
    if "tensorflow" in sys.modules:
        threading = sys.modules["tensorflow"].config.threading
        threading.set_intra_op_parallelism_threads(threads)
        threading.set_inter_op_parallelism_threads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
        sys.modules["torch"].set_num_interop_threads(threads)


class Child:
    """The process of one contender; a context that ends it.

    Args:
        name: What the contender is called.
        what: `"module:function"`.
        arguments: Keyword arguments of the function, plain values.
        threads: See `take_turns`.
    """

    def __init__(self, name, what, arguments, threads):
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")
        job = {"what": what, "arguments": arguments, "threads": threads}
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(threads),
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()

    def wait(self):
        """Waits until it is ready to train."""
        self._answer()

    def turn(self):
        """Has it do a round; returns seconds on the wall, of the processor."""
        with contextlib.suppress(BrokenPipeError):  # `_answer` says why
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        ready, _, _ = select.select([self._process.stdout], [], [], TIMEOUT)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        how = "ended" if ready else f"did not answer for {TIMEOUT} s"
        self._errors.seek(0)
        said = self._errors.read().strip() or "nothing on standard error"
        raise RunError(f"The contender {self.name!r} {how}. It said:\n{said}")


def _warm_up(child):
    """Has a contender work until it has compiled: until calls are even."""
    shortest = None
    for call in range(1, MOST + 1):
        wall, _ = child.turn()
        if call >= FEWEST and wall <= SETTLED * shortest:
            break
        shortest = min(wall, shortest or wall)
    _say(f"{child.name} is warm after {call} calls, {wall:.3f} s each")


@contextlib.contextmanager
def _recording(path):
    """Yields a function that writes a row to the disk at once."""
    if path is None:
        yield lambda *row: None
        return
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)

        def write(*row):
            writer.writerow(row)
            file.flush()

        write("round", "contender", "wall_seconds", "processor_seconds")
        yield write


def _say(text):
    print(text, file=sys.stderr, flush=True)


def _child_main(job):
    """Serves the parent: one line in, one round of work, one line out."""
    # What a contender prints must not look like an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, function = job["what"].split(":")
    made = importlib.import_module(module)
    limit_threads(job["threads"])
    train = getattr(made, function)(**job["arguments"])
    _tell(answers, "ready")
    for _ in sys.stdin:
        processor, wall = time.process_time(), time.perf_counter()
        train()
        wall = time.perf_counter() - wall
        _tell(answers, [wall, time.process_time() - processor])


def _tell(file, what):
    file.write(json.dumps(what) + "\n")
    file.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    _child_main(json.loads(sys.argv[1]))
