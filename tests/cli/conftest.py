"""What the tests of the command line share: a call, and runs to look at."""

import contextlib
import functools
import io
import pathlib
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

from keras_lottery.cli import main

# One level, 4 steps, no controls: a run of a second.
TINY = (
    "--config=digits:smoke",
    "--config.eval_every=2",
    "--config.train.steps=4",
    "--config.prune.levels=1",
    "--config.controls.names=()",
    "--noconfig.controls.one_shot",
)


class Told(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    """Claims that somebody is watching."""

    def isatty(self):
        return True


def answer(*typed, stream=io.StringIO):
    """Runs a command in this process; whatever it raises is a failure."""
    out, err = stream(), stream()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with pytest.raises(SystemExit) as stopped:
            main.main([str(each) for each in typed])
    return Told(stopped.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(name="answer")
def _answer():
    return answer


@pytest.fixture
def on_a_terminal():
    """Like `answer`, before somebody's eyes."""
    return functools.partial(answer, stream=Terminal)


@pytest.fixture
def tiny():
    return TINY


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """(path, what was told) of a run with every kind of arm, made once."""
    workdir = tmp_path_factory.mktemp("made")
    told = answer("run", "--config=digits:smoke", f"--workdir={workdir}")
    assert told.code == 0, told.err
    (path,) = workdir.iterdir()
    return path, told


@pytest.fixture
def finished(made, tmp_path):
    """A copy of the run, to be changed."""
    path = tmp_path / "runs" / made[0].name
    shutil.copytree(made[0], path, symlinks=True)
    return path


@pytest.fixture
def held():
    """A function that keeps a run's lock in another process."""
    held = []

    def hold(path):
        code = (
            "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); "
            "lock.acquire(); print('held', flush=True); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(pathlib.Path(path, ".lock"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        held.append(process)
        assert process.stdout.readline() == "held\n"

    yield hold
    for process in held:
        process.communicate("")


@pytest.fixture
def contents():
    """A function from a folder to {relative path: bytes}."""

    def read(folder):
        folder = pathlib.Path(folder)
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return read


@pytest.fixture
def examples():
    """A function from a text to the commands in it, as typed."""

    def found(text):
        lines = re.findall(
            r"^ +(?:[A-Z_]+=\S+ )?(keras-lottery .*)$", text, re.M
        )
        # What comes after two spaces says what the example does.
        return [re.split(r"  +", line)[0] for line in lines]

    return found
