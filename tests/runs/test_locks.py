"""Locks: who keeps out whom, in which order, and for how long."""

import os
import subprocess
import sys

import pytest

from keras_lottery.errors import RunError
from keras_lottery.runs import configuration
from keras_lottery.runs import directory
from keras_lottery.runs import formats
from keras_lottery.runs import locks

FIRST, SECOND = "replicate_0/ticket", "replicate_10/shuffled_0"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_TO_BEGIN", 0.2)
    return str(tmp_path)


def test_parts_are_held_side_by_side(root):
    with locks.part(root, FIRST), locks.part(root, SECOND):
        assert locks.held(root)
    assert not locks.held(root)


def test_a_part_is_held_once(root):
    with locks.part(root, FIRST):
        with pytest.raises(RunError, match=f"working on {FIRST} of.*by hand"):
            locks.part(root, FIRST)
    with locks.part(root, FIRST):
        pass


def test_a_part_keeps_out_who_wants_all(root):
    with locks.part(root, FIRST):
        with pytest.raises(RunError, match="Another process.*part"):
            locks.whole(root)
        with locks.part(root, SECOND), locks.moment(root):
            pass  # the failed attempt holds nothing
    with locks.whole(root):
        pass


def test_who_has_all_keeps_out_parts_and_moments(root, monkeypatch):
    monkeypatch.setattr(locks, "_TO_WRITE", 0.2)
    with locks.whole(root):
        for take in (locks.moment, locks.entry, locks.whole):
            with pytest.raises(RunError, match="Another process"):
                take(root)
        with pytest.raises(RunError, match="Another process"):
            locks.part(root, FIRST)
    with locks.part(root, FIRST):
        pass


def test_a_dead_process_holds_no_part(root):
    code = (
        "import sys, time; from keras_lottery.runs import locks; "
        "held = locks.part(*sys.argv[1:]); print('held', flush=True); "
        "time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, root, FIRST],
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    assert holder.stdout.readline() == "held\n"
    try:
        assert locks.held(root)
        with pytest.raises(RunError, match=FIRST):
            locks.part(root, FIRST)
    finally:
        holder.kill()
        holder.communicate()
    assert not locks.held(root)
    with locks.part(root, FIRST):
        pass


ADD = """
import sys
from keras_lottery.runs import directory
run, writer = directory.RunDirectory(sys.argv[1]), int(sys.argv[2])
for level in range(12):
    where = {"replicate": writer, "arm": "ticket", "level": level}
    run.save(tuple(where.values()), where, {}, time={**where, "seconds": 1.0})
    run.save_tables_beside()
"""


def test_no_row_is_lost_between_writers(tmp_path):
    run = directory.RunDirectory.of(configuration.defaults(), tmp_path)
    run.create(configuration.defaults())
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", ADD, run.path, str(n)], env=_environment()
        )
        for n in range(3)
    ]
    assert [each.wait(60) for each in writers] == [0, 0, 0]
    expected = [(str(w), "ticket", str(n)) for w in range(3) for n in range(12)]
    for path in (run.levels_path, run.times_path):
        rows = formats.read_csv(path)
        assert [tuple(row.values())[:3] for row in rows] == expected


def _environment():
    package = os.path.dirname(os.path.dirname(directory.__file__))
    return {**os.environ, "PYTHONPATH": os.path.dirname(package)}
