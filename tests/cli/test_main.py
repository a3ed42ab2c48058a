"""The command line, in this process, but for the help that must be quick."""

import os
import re
import subprocess
import sys
import time

import pytest

from keras_lottery.cli import main
from keras_lottery.runs import experiment


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main.main(arguments)
    return stopped.value.code


@pytest.fixture
def tiny(monkeypatch):
    chosen = experiment.get("digits", hidden=(16,), steps=6, eval_every=3)
    monkeypatch.setitem(experiment.EXPERIMENTS, "digits", chosen)


def test_help_comes_within_a_second_and_without_tensorflow():
    code = """
import sys
from keras_lottery.cli import main
for arguments in (["--help"], ["run", "--help"]):
    try:
        main.main(arguments)
    except SystemExit as stopped:
        assert stopped.code == 0
assert "tensorflow" not in sys.modules
"""
    began = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    spent = time.perf_counter() - began
    assert found.returncode == 0, found.stderr
    assert "keras-lottery run --config=fashion_lenet" in found.stdout
    assert "--replicates" in found.stdout
    assert spent < 2.0  # two helps, on a machine that others use too


def test_the_module_runs_as_the_command_does():
    found = subprocess.run(
        [sys.executable, "-m", "keras_lottery.cli.main", "--help"],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0
    assert "keras-lottery run --help" in found.stdout


def test_a_run_prints_a_table_and_where_things_are(tiny, tmp_path, capsys):
    code = run("run", f"--workdir={tmp_path}", "--levels=2", "--replicates=2")
    printed = capsys.readouterr().out
    assert code == 0
    for what in ("report", "export"):
        path = re.search(rf"^{what} +(\S+)", printed, re.M).group(1)
        assert os.path.exists(path)
    assert re.search(
        r"^tickets +\S+replicate_0/ticket/level_\*$", printed, re.M
    )
    (folder,) = os.listdir(tmp_path)
    assert {"config.json", "levels.csv", "report.html", "export"} <= set(
        os.listdir(tmp_path / folder)
    )
    page = (tmp_path / folder / "report.html").read_text()
    assert "replicates" in page and "<svg" in page


def test_a_second_run_trains_nothing_and_exports_once(tiny, tmp_path, capsys):
    arguments = ("run", f"--workdir={tmp_path}", "--levels=1", "--replicates=1")
    assert run(*arguments) == 0
    first = capsys.readouterr().out
    assert run(*arguments) == 0
    second = capsys.readouterr().out
    tail = first.index("report ")
    assert first[tail:] == second[second.index("report ") :]
    (folder,) = os.listdir(tmp_path)
    assert os.listdir(tmp_path / folder / "export") == ["1"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runn"], "Unknown command 'runn'"),
        (["run", "--config=digit"], "Unknown experiment 'digit'"),
        (["run", "--leves=3"], "leves"),
        (["run", "--levels=three"], "levels"),
        (["run", "--levels=0"], "`levels` must be an int >= 1"),
        (["run", "digits"], "takes only flags"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(
    arguments, told, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    assert told in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_no_command_shows_the_help(capsys):
    assert run() == 2
    assert "keras-lottery run" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_exits_with_1(tiny, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run("run", f"--workdir={blocked}") == 1
    assert "Choose another place with --workdir" in capsys.readouterr().err
