"""`run`: what it prints and writes, continues, extends and refuses."""

import json
import re
import shlex
import shutil
from collections import namedtuple

import pytest

from keras_lottery.cli import progress
from keras_lottery.runs import play
from keras_lottery.runs.trainer import Trainer

# Arms of the smoke run at levels 1 and 2, and the dense network.
ARMS = ("ticket", "one_shot", "reinitialized_0", "shuffled_0")
DONE = {(0, "ticket", 0)} | {(0, a, n) for a in ARMS for n in (1, 2)}


@pytest.fixture
def trainings(monkeypatch):
    """Counts what is trained."""
    found = []
    plain = Trainer.__call__

    def counted(self, model, first_step, last_step):
        found.append((first_step, last_step))
        return plain(self, model, first_step, last_step)

    monkeypatch.setattr(Trainer, "__call__", counted)
    return found


def levels(path):
    return {
        (int(p.parts[-3][10:]), p.parts[-2], int(p.parts[-1][6:]))
        for p in path.glob("replicate_*/*/level_*")
        if (p / "level.json").exists()
    }


def test_a_run_prints_a_table_a_sentence_and_where_things_are(made):
    path, told = made
    lines = told.out.splitlines()
    assert lines[0].startswith(f"{path}: up to ")
    heads = next(line for line in lines if line.startswith("kept %"))
    assert heads.split()[2:] == [
        "ticket",
        "one_shot",
        "reinitialized",
        "shuffled",
    ]
    table = lines[lines.index(heads) + 1 :][:3]
    # Rates of 20 %, 10 % of the output layer: by hand from 64-30-10-10.
    kept = [2320 / 2320, (1536 + 240 + 90) / 2320, (1229 + 192 + 81) / 2320]
    assert [line.split()[0] for line in table] == [
        f"{100 * each:.1f}".removesuffix(".0") for each in kept
    ]
    where = dict(
        re.findall(r"^(report|table|tickets|export) +(\S+)", told.out, re.M)
    )
    assert where["report"] == str(path / "report.html")
    assert where["table"] == str(path / "levels.csv")
    assert where["export"] == str(path / "export" / "1")
    assert where["tickets"] == str(path / "replicate_0/ticket/level_*")
    assert len(list(path.glob("replicate_0/ticket/level_*"))) == 3


def test_a_run_leaves_these_files_and_no_others(made, contents):
    path, _ = made
    assert levels(path) == DONE
    found = {n for n in contents(path) if not n.startswith("export/")}
    right = {"config.json", "levels.csv", "times.csv", "report.html"}
    right |= {"made.json", "tables.json"}
    for replicate, arm, level in DONE:
        folder = f"replicate_{replicate}/{arm}/level_{level}"
        for name in ("level.json", "metrics.csv", "time.json"):
            right.add(f"{folder}/{name}")
        if arm == "ticket":
            right.add(f"{folder}/ticket.safetensors")
    assert found - {".lock"} == right


def test_the_page_says_which_command_made_it(made):
    path, _ = made
    page = (path / "report.html").read_text(encoding="utf-8")
    command = f"keras-lottery run --config=digits:smoke --workdir={path.parent}"
    assert f"<dd>{command}</dd>" in page


def test_without_a_terminal_there_is_a_quiet_line_per_training(made):
    _, told = made
    lines = re.findall(
        r"^\[ *(\d+)%\] replicate 0, (\w+), level (\d), ([\d.]+) % kept, "
        r"test accuracy (0\.\d{4}) \(\d+\.\d s\)$",
        told.out,
        re.M,
    )
    assert {(0, arm, int(n)) for _, arm, n, _, _ in lines} == DONE
    shares = [int(line[0]) for line in lines]
    assert shares == [round(100 * k / 9) for k in range(1, 10)]
    assert "\r" not in told.out + told.err


def test_nothing_of_tensorflow_is_said(made):
    _, told = made
    assert told.err == ""


def test_a_second_run_trains_nothing_and_exports_once(
    finished, answer, contents, trainings
):
    before = contents(finished)
    told = answer(
        "run", "--config=digits:smoke", f"--workdir={finished.parent}"
    )
    assert told.code == 0, told.err
    assert trainings == []
    assert "% kept, test" not in told.out
    after = contents(finished)
    differing = {n for n in before if before[n] != after.get(n)}
    # Both say with which command the run was made, and so the workdir.
    assert differing <= {"config.json", "report.html"}
    assert set(after) - set(before) <= {".lock"}
    assert [p.name for p in (finished / "export").iterdir()] == ["1"]


def test_more_levels_extend_it_and_fewer_take_nothing_away(
    finished, answer, contents, trainings
):
    before = contents(finished)
    typed = ("run", "--config=digits:smoke", f"--workdir={finished.parent}")
    told = answer(*typed, "--config.prune.levels=3")
    assert told.code == 0, told.err
    assert [p.name for p in finished.parent.iterdir()] == [finished.name]
    assert levels(finished) == DONE | {(0, arm, 3) for arm in ARMS}
    assert len(trainings) == len(ARMS)
    after = contents(finished)
    assert all(after[n] == before[n] for n in before if n.startswith("replic"))
    assert answer(*typed).code == 0
    assert levels(finished) == DONE | {(0, arm, 3) for arm in ARMS}
    assert len(trainings) == len(ARMS)
    config = json.loads((finished / "config.json").read_text())["config"]
    assert config["prune"]["levels"] == 3


def test_ctrl_c_exits_75_and_the_printed_command_continues(
    answer, tiny, tmp_path, monkeypatch, trainings, contents
):
    workdir = tmp_path / "my runs"
    typed = ["run", *tiny, f"--workdir={workdir}", "--config.prune.levels=2"]
    with monkeypatch.context() as patch:
        patch.setattr(progress.Lines, "end", _interrupted)
        told = answer(*typed)
    assert told.code == 75
    (line,) = [x for x in told.err.splitlines() if "keras-lottery" in x]
    assert shlex.split(line) == ["keras-lottery", *typed]
    assert f"'--workdir={workdir}'" in line
    assert len(trainings) == 1
    listed = answer("list", "runs", f"--workdir={workdir}").out
    assert "stopped, 1 of 3 trainings" in listed
    assert answer(*shlex.split(line)[1:]).code == 0
    assert len(trainings) == 3
    (stopped,) = workdir.iterdir()
    typed[-2] = f"--workdir={tmp_path / 'whole'}"
    assert answer(*typed).code == 0
    whole = contents(tmp_path / "whole" / stopped.name)
    for name, content in contents(stopped).items():
        if name.startswith("replicate") or name == "levels.csv":
            if name.endswith("time.json"):
                continue
            assert content == whole[name], name


def _interrupted(self, row, seconds):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("data.name=digitz", "'digits'"),
        ("model.name=lenett", "'lenet'"),
        ("controls.names=shufle", "'shuffle'"),
        ("prune.criterion=magnitud", "'magnitude'"),
        ("prune.allocation=globl", "'global'"),
        ("rewind.name=weight", "'weights'"),
        ("distribute.strategy=mirored", "'mirrored'"),
        ("data.augment=flip", "'flip_and_crop'"),
        ("train.optimizer=adm", "'adam'"),
        ("train.loss=msee", "'mse'"),
        ("train.metrics=acuracy", "'accuracy'"),
        ("train.metric=loss2", "loss, accuracy"),
        ("train.mode=up", "'max' or 'min'"),
        ("seed=-1", "`seed` must be an int >= 0"),
        ("prune.levels=0", "`prune.levels` must be an int >= 1"),
        ("train.steps=21", "multiple of eval_every=10"),
        ("train.learning_rate=-1", "learning_rate"),
        ("prune.rate=1.5", "[0, 1)"),
        ("prune.rates=0.5", "prune.rates"),
        ("prune.rates=('output/*',0.1)", "prune.rates"),
        ("prune.layers=nolayer", "fc1, fc2, output"),
        ("rewind.step=20", "below train.steps=20"),
        ("name=../escaped", "'../escaped'"),
        ("model.arguments.hiden=(3,)", "hiden"),
        ("train.arguments.betaa=2", "betaa"),
        ("export.tolerance=-1", "tolerance"),
        ("data.name=nomodule:load", "nomodule"),
        ("model.name=math:tan", "math:tan"),
        ("model.name=math:nothing", "math"),
    ],
)
def test_what_cannot_be_right_exits_2_at_once_and_leaves_nothing(
    setting, told, answer, tmp_path, monkeypatch
):
    monkeypatch.setattr(play, "play", None)  # nothing is trained
    found = answer(
        "run",
        "--config=digits:smoke",
        f"--workdir={tmp_path / 'runs'}",
        f"--config.{setting}",
    )
    assert found.code == 2, found
    assert told in found.err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_seen_before_training(
    answer, tiny, tmp_path, monkeypatch, trainings
):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda p: Usage(9, 9, 1000))
    told = answer("run", *tiny, f"--workdir={tmp_path / 'runs'}")
    assert told.code == 1
    assert "only 1.0 kB are free" in told.err and "--workdir" in told.err
    assert trainings == [] and list(tmp_path.iterdir()) == []


def test_what_is_said_to_be_written_is_written(answer, tiny, tmp_path):
    told = answer("run", *tiny, f"--workdir={tmp_path}", "--keep=all")
    number, unit = re.search(r"up to ([\d.]+) (k?B)", told.out).groups()
    promised = float(number) * {"kB": 1e3, "B": 1}[unit]
    written = sum(
        p.stat().st_size for p in tmp_path.glob("*/replicate_*/**/*.*")
    )
    assert written / 2 < promised
    assert written <= promised


def test_a_run_that_another_process_works_on_is_left_alone(
    finished, answer, held, contents, trainings
):
    typed = ("run", "--config=digits:smoke", f"--workdir={finished.parent}")
    before = contents(finished)
    held(finished)
    told = answer(*typed, "--config.prune.levels=4", "--config.replicates=2")
    assert told.code == 1
    assert "Another process is working on" in told.err
    assert str(finished) in told.err
    assert trainings == []
    after = contents(finished)
    after.pop(".lock")
    before.pop(".lock", None)
    assert {n for n in after if before.get(n) != after[n]} == set()


def test_keep_all_keeps_the_networks_of_the_controls(answer, tiny, tmp_path):
    told = answer(
        "run",
        *tiny[:-2],
        "--config.controls.names=shuffle",
        f"--workdir={tmp_path}",
        "--keep=all",
    )
    assert told.code == 0, told.err
    (path,) = tmp_path.iterdir()
    for where in levels(path):
        folder = "replicate_{}/{}/level_{}".format(*where)
        assert (path / folder / "ticket.safetensors").exists(), folder
    assert len(levels(path)) == 4  # dense, ticket, shuffled, one shot
    assert answer("verify", path).code == 0


def test_no_export_where_it_is_switched_off(answer, tiny, tmp_path):
    told = answer(
        "run", *tiny, f"--workdir={tmp_path}", "--noconfig.export.enabled"
    )
    assert told.code == 0 and "export  " not in told.out
    (path,) = tmp_path.iterdir()
    assert not (path / "export").exists()


def test_a_terminal_gets_a_bar_that_names_what_is_trained(
    on_a_terminal, tiny, tmp_path
):
    told = on_a_terminal("run", *tiny, f"--workdir={tmp_path}")
    assert told.code == 0, told.err
    for what in ("replicate 0", "ticket", "level 1", "80.4 % kept", "100 %"):
        assert what in told.err
    # Time left, once some steps were timed.
    assert re.search(r"\[\d\d:\d\d left\]", told.err)
    assert "test accuracy 0" not in told.out  # no lines beside the bar


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals_only(terminal, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    found = progress.listener("accuracy")
    assert type(found) is (progress.Bar if terminal else progress.Lines)


def test_a_place_that_cannot_be_written_exits_1(answer, tiny, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    told = answer("run", *tiny, f"--workdir={blocked}")
    assert told.code == 1
    assert "Choose another place with --workdir" in told.err


def test_training_that_diverges_exits_1_and_says_which(answer, tiny, tmp_path):
    told = answer(
        "run",
        *tiny,
        f"--workdir={tmp_path}",
        "--config.train.learning_rate=1e9",
    )
    assert told.code == 1
    assert "diverged" in told.err
    assert "level 0" in told.err


def test_functions_of_the_users_own_from_the_current_directory(
    answer, tiny, tmp_path, monkeypatch
):
    (tmp_path / "mine_of_test_run.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    told = answer(
        "run",
        *tiny,
        "--config.data.name=mine_of_test_run:load",
        "--config.data.arguments.count=40",
        "--config.model.name=mine_of_test_run:net",
        "--config.model.arguments={'units': 7}",
        "--config.prune.rates=()",
    )
    assert told.code == 0, told.err
    (path,) = (tmp_path / "runs").iterdir()
    row = (path / "levels.csv").read_text().splitlines()[1].split(",")
    assert "140" in row  # 4 x 7 + 7 x 16 weights


MINE = """
import keras
import numpy as np


def load(count):
    x = np.random.default_rng(0).normal(size=(count, 4)).astype("float32")
    y = np.arange(count) % 16
    return (x, y), (x, y), (x, y)


def net(input_shape, classes, units):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Dense(units, activation="relu", name="hidden"),
            layers.Dense(classes, name="output"),
        ]
    )
"""


def test_loss_as_the_metric_that_decides(answer, tiny, tmp_path):
    told = answer(
        "run", *tiny, f"--workdir={tmp_path}", "--config.train.metrics=()"
    )
    assert told.code == 0, told.err
    assert "Test loss @ step" in told.out
