"""All of `keras.applications`, a process each. By hand: `make test-slow`."""

import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 900  # seconds of a network

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT + 60)]


def applications():
    """Returns the script that makes results/applications.csv, as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("applications")


@pytest.mark.parametrize("name", applications().names())
def test_a_network(name, monkeypatch):
    script = applications()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    row = script.in_a_process(name, LIMIT)
    assert row["result"] == "ok", row
    (kept,) = [
        each for each in script.read(script.SAVE) if each["model"] == name
    ]
    for column in ("parameters", "prunable", "layers", "kept"):
        assert row[column] == int(kept[column]), column
