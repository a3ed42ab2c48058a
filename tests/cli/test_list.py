"""`list`: all there is to choose from, and how far runs are."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from keras_lottery.models import networks
from keras_lottery.pruning import allocation
from keras_lottery.pruning import criteria
from keras_lottery.runs import configuration
from keras_lottery.tickets import controls
from keras_lottery.tickets import rewind
from keras_lottery.training import strategies

TABLES = {
    "networks": networks.NETWORKS,
    "criteria": criteria.CRITERIA,
    "allocations": allocation.ALLOCATIONS,
    "rewinds": rewind.REWINDS,
    "controls": controls.CONTROLS,
    "strategies": strategies.STRATEGIES,
}
SECTIONS = ["configs", *TABLES, "data", "runs"]


def first_words(out):
    return [
        re.split(r"\s|:(?!\d)", line[2:])[0] for line in out.splitlines()[1:]
    ]


@pytest.mark.parametrize("section", TABLES)
def test_every_entry_of_every_table_is_listed(section, answer):
    told = answer("list", section)
    assert told.code == 0 and told.err == ""
    assert told.out.splitlines()[0] == section
    assert first_words(told.out) == list(TABLES[section])


def test_every_config_file_is_listed_with_its_claim_and_variants(answer):
    told = answer("list", "configs")
    folder = pathlib.Path(__file__).parents[2] / "configs"
    if folder.exists():
        files = sorted(path.stem for path in folder.glob("*.py"))
        assert first_words(told.out) == files
    assert first_words(told.out) == configuration.names()
    assert "(:smoke, :warmup, :low)" in told.out
    assert "Frankle & Carbin (2019), figure 7." in told.out


@pytest.mark.parametrize("section", [*TABLES, "configs"])
def test_every_entry_says_what_it_is(section, answer):
    lines = answer("list", section).out.splitlines()[1:]
    assert [line for line in lines if len(line.split()) < 3] == []
    assert [line for line in lines if " Returns " in line] == []


def test_columns_stand_below_each_other(answer):
    for section in ("criteria", "allocations", "controls", "configs"):
        lines = answer("list", section).out.splitlines()[1:]
        starts = {re.match(r"  \S+ +", line).end() for line in lines}
        assert len(starts) == 1, section


@pytest.mark.thorough
def test_tensorflow_keeps_its_notes_to_itself():
    environment = {k: v for k, v in os.environ.items() if k[:3] != "TF_"}
    found = subprocess.run(
        [sys.executable, "-m", "keras_lottery.cli.main", "list", "criteria"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert found.returncode == 0
    assert found.stderr == ""


def test_without_a_word_all_sections_come(answer, tmp_path):
    told = answer("list", f"--workdir={tmp_path}")
    heads = [x for x in told.out.splitlines() if x and x[0] != " "]
    assert sorted(heads) == sorted(SECTIONS)


def test_data_sets_say_whether_they_are_here(answer, tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_LOTTERY_DATA", raising=False)
    told = answer("list", "data", f"--data_dir={tmp_path}")
    lines = {x.split()[0]: x.split()[1] for x in told.out.splitlines()[1:]}
    assert lines == {
        "digits": "ready",
        "emnist_letters": "missing",
        "rt_polarity": "missing",
    }


@pytest.mark.skipif(
    "TFDS_DATA_DIR" not in os.environ,
    reason="needs sets of tfds: TFDS_DATA_DIR is not set",
)
def test_sets_of_tfds_are_listed_where_the_variable_points(answer):
    told = answer("list", "data")
    lines = {x.split()[0]: x.split()[1] for x in told.out.splitlines()[1:]}
    assert lines["fashion_mnist"] == "ready"


def test_runs_are_done_stopped_running_or_unreadable(
    finished, answer, held, contents
):
    copies = {}
    for name in ("stopped", "running", "broken"):
        copies[name] = finished.parent / f"{name}-x"
        shutil.copytree(finished, copies[name])
    for name in ("stopped", "running"):
        shutil.rmtree(copies[name] / "replicate_0" / "shuffled_0")
    (copies["broken"] / "config.json").write_text("{")
    (finished.parent / "no run").mkdir()
    held(copies["running"])
    told = answer("list", "runs", f"--workdir={finished.parent}")
    assert told.code == 0
    found = dict(line.split(None, 1) for line in told.out.splitlines()[1:])
    assert found.pop(str(copies["broken"])).startswith("unreadable: ")
    assert found == {
        str(finished): "done, 9 of 9 trainings",
        str(copies["stopped"]): "stopped, 7 of 9 trainings",
        str(copies["running"]): "running, 7 of 9 trainings",
    }


def test_a_finished_run_stays_done_when_asked_for_less(
    finished, answer, contents
):
    before = contents(finished)
    told = answer("list", "runs", f"--workdir={finished.parent}")
    assert "done, 9 of 9" in told.out
    assert contents(finished) == before  # looking leaves no trace


def test_a_place_without_runs_says_so(answer, tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        told = answer("list", "runs", f"--workdir={place}")
        assert told.code == 0
        assert told.out == f"runs\n  none in {place}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("section", ["configs", "runs", "data"])
def test_light_sections_import_no_tensorflow(section, tmp_path):
    code = (
        "import sys\nfrom keras_lottery.cli import main\n"
        "try:\n    main.main(sys.argv[1:])\n"
        "finally:\n    print('tensorflow' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, "list", section],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "False"
