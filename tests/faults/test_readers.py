"""Who reads a run while it is played sees whole files, and nothing false."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.thorough
ROOT = pathlib.Path(__file__).parents[2]
# Two ends are kept for a moment, then one is dropped: a file that goes away.
WRITER = (
    "run",
    "--config=digits:smoke",
    "--config.rewind.name=learning_rate",
    "--config.rewind.step=10",
    "--config.controls.names=('reinitialize',)",
    "--noconfig.controls.one_shot",
    "--config.prune.levels=4",
    "--config.replicates=2",
    "--config.train.steps=400",
    "--config.checkpoint.steps=5",
    "--noconfig.export.enabled",
)
READER = """
import pathlib, sys, time
from keras_lottery.cli import start
start.tensorflow()
from keras_lottery.runs import directory, verify
from keras_lottery.runs import state_of_run

workdir, ready = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
ready.touch()
rounds, most = 0, 0
while most < 2 * (5 + 4):
    runs = directory.find_runs(workdir)
    if not runs:
        continue
    run = runs[0]
    found = verify.differences_of_run(run)
    assert found == [], found
    rows = run.rows()
    [line] = state_of_run.table(workdir)
    assert "unreadable" not in line, line
    rounds, most = rounds + (0 < len(rows) < 18), len(rows)
print(rounds)
"""


def started(*command, **more):
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def test_two_readers_see_whole_files_while_a_run_is_played(tmp_path):
    workdir = tmp_path / "runs"
    workdir.mkdir()
    readers = [
        started("-c", READER, workdir, tmp_path / f"ready_{n}")
        for n in range(2)
    ]
    while not all((tmp_path / f"ready_{n}").exists() for n in range(2)):
        assert [each.poll() for each in readers] == [None, None]
        time.sleep(0.05)
    writer = started(
        "-m", "keras_lottery.cli.main", *WRITER, f"--workdir={workdir}"
    )
    told = writer.communicate(timeout=300)
    assert writer.returncode == 0, told
    for reader in readers:
        out, error = reader.communicate(timeout=120)
        assert reader.returncode == 0, error
        assert int(out) >= 3, "the run ended before it was read"
