"""Contenders in turn, verdicts by the ends of intervals, tables collected."""

import csv
import doctest
import importlib
import os
import pathlib
import re

import pytest

from keras_lottery.errors import RunError

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
CONTENDERS = '''
"""Contenders that note their turns in a file."""

import os
import time


def noting(path, name, die_at=None, silent=False):
    calls = []

    def train():
        calls.append(name)
        if len(calls) == die_at:
            if silent:
                os._exit(3)
            raise ValueError(f"{name} has had enough")
        print("this is no answer")
        time.sleep(0.002)
        with open(path, "a") as file:
            file.write(name + "\\n")

    return train


def asleep():
    time.sleep(600)


def threads(path):
    def train():
        with open(path, "w") as file:
            file.write(os.environ["OMP_NUM_THREADS"] + "\\n")
            file.write(os.environ.get("XLA_FLAGS", ""))

    return train
'''


@pytest.fixture
def turns(tmp_path, monkeypatch):
    """The module, with a folder of contenders that it finds."""
    (tmp_path / "fakes.py").write_text(CONTENDERS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path.strip(os.pathsep))
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("turns")


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("bars")


def _contenders(notes, *names, **last):
    given = {name: {"path": str(notes), "name": name} for name in names}
    given[names[-1]].update(last)
    return {name: ("fakes:noting", each) for name, each in given.items()}


def test_contenders_take_turns_in_an_order_that_rotates(turns, tmp_path):
    notes, record = tmp_path / "notes", tmp_path / "record.csv"
    found = turns.take_turns(
        _contenders(notes, "a", "b", "c"), rounds=4, record=record
    )
    noted = notes.read_text().split()
    assert "".join(noted[-12:]) == "abcbcacababc"
    assert {name: len(each) for name, each in found.wall.items()} == {
        "a": 4, "b": 4, "c": 4,
    }  # fmt: skip
    assert all(each > 0.002 for name in "abc" for each in found.wall[name])
    with open(record) as file:
        rows = list(csv.DictReader(file))
    assert [row["contender"] for row in rows] == noted[-12:]
    assert [
        float(r["wall_seconds"]) for r in rows if r["contender"] == "b"
    ] == (pytest.approx(found.wall["b"]))


def test_a_contender_that_fails_is_quoted_and_the_others_end(turns, tmp_path):
    contenders = _contenders(tmp_path / "notes", "a", "b", die_at=6)
    began = []
    init = turns.Child.__init__

    def started(self, *arguments):
        init(self, *arguments)
        began.append(self._process)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns.Child, "__init__", started)
        with pytest.raises(RunError, match="'b' ended.*") as error:
            turns.take_turns(contenders, rounds=8)
    assert "ValueError: b has had enough" in str(error.value)
    assert len(began) == 2
    assert all(process.poll() is not None for process in began)


def test_a_contender_that_dies_without_a_word(turns, tmp_path):
    contenders = _contenders(tmp_path / "notes", "a", die_at=2, silent=True)
    with pytest.raises(RunError, match="'a' ended.*\n.*this is no answer"):
        turns.take_turns(contenders, rounds=1)


def test_a_contender_that_hangs_is_given_up(turns, monkeypatch):
    monkeypatch.setattr(turns, "TIMEOUT", 0.2)
    with pytest.raises(RunError, match="'a' did not answer for 0.2 s"):
        turns.take_turns({"a": ("fakes:asleep", {})}, rounds=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_set_before_anything_is_imported(turns, tmp_path, threads):
    path = tmp_path / "threads"
    contenders = {"a": ("fakes:threads", {"path": str(path)})}
    turns.take_turns(contenders, rounds=1, threads=threads)
    count, flags = path.read_text().split("\n")
    assert count == str(threads)
    assert ("--xla_cpu_multi_thread_eigen=false" in flags) == (threads == 1)


@pytest.mark.parametrize(
    "sign, bar, verdict",
    [
        # The interval of 6 pairs goes from the least to the greatest ratio.
        ("<=", 0.99, "MISSED"),
        ("<=", 1.0, "holds"),
        ("<=", 9.0, "holds"),
        (">=", 1.0, "holds"),
        (">=", 6.0, "holds"),
        (">=", 6.01, "MISSED"),
        (None, None, ""),
    ],
)
def test_verdicts_are_by_the_kinder_end(bars, sign, bar, verdict):
    found = bars.of_pairs("a / b", [1, 2, 3, 4, 5, 6], [1] * 6, sign, bar)
    assert (found.low, found.measured, found.high) == (1.0, 3.5, 6.0)
    assert found.verdict == verdict


def test_a_sign_that_is_none(bars):
    with pytest.raises(ValueError, match=re.escape("got '<'")):
        bars.table([bars.of_count("bytes", 3, "<", 4)])


def test_tables_of_bars_are_collected_and_others_are_not(bars):
    rows = [
        bars.of_pairs("a / b", [3.0] * 6, [2.0] * 6, "<=", 1.25),
        bars.of_samples("import", [0.05] * 6, "<=", 0.1),
        bars.of_count("kept", 12345, unit="bytes"),
    ]
    text = "\n\n".join(
        [
            "# Section",
            bars.table(rows[:2]),
            bars.markdown(["what", "ms"], [["a", 1]]),
            "words",
            bars.table(rows[2:]),
        ]
    )
    assert bars.collected(text) == [
        ("a / b", "1.50", "1.50 to 1.50", "6", "<= 1.25", "MISSED"),
        ("import", "0.0500 s", "0.0500 to 0.0500", "6", "<= 0.1 s", "holds"),
        ("kept", "12,345 bytes", "12,345 to 12,345", "1", "", ""),
    ]


def test_every_version_is_named(bars):
    text = bars.circumstances(threads=2)
    assert "| threads | 2 |" in text
    for name in bars.PACKAGES:
        assert f"| {name} | " in text


@pytest.mark.parametrize("name", ["bars", "gate", "step_tasks"])
def test_examples_are_as_they_say(bars, name):
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert (failed, tried > 0) == (0, True)


def test_a_training_that_ends_does_not_leave_anybody_waiting(bars):
    gate = importlib.import_module("gate").Gate()
    train = gate.opened_by(gate.stop)  # a training of one round
    with pytest.raises(RuntimeError, match="The training has ended"):
        train()
