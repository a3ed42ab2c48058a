"""Lotteries killed at moments drawn from a seed: `kills.py` says how."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.thorough
HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def test_twenty_kills_change_no_byte(tmp_path):
    found = subprocess.run(
        [
            sys.executable,
            HERE / "kills.py",
            "--kills=20",
            "--seed=7",
            f"--to={tmp_path / 'found.json'}",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["verdict"] == "all ended bit-identical"
    kills = (
        told["kills by the clock"],
        told["kills at an operation on a file"],
    )
    assert sum(kills) >= 20 and min(kills) > 0
    assert told["lotteries ended"] >= 2
    # LeNet has to stop within 5 s; what else these cores do counts, too.
    assert told["longest stop by SIGTERM, seconds"] < 30
