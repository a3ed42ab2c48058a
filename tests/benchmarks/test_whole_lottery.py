"""Whole lotteries: order, counts, resuming, and that contenders do the task."""

import importlib
import pathlib

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
# LeNet-300-100 after one pruning: 20 % of two kernels, 10 % of the last.
KEPT = 235_200 * 8 // 10 + 30_000 * 8 // 10 + 1_000 * 9 // 10


@pytest.fixture
def whole(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("whole_lottery")


@pytest.fixture
def task(whole, tmp_path):
    tasks = importlib.import_module("whole_lottery_task")
    tasks.make_data(tmp_path, rows=240, validation=120)
    return tasks.Task(str(tmp_path), levels=2, steps=8, every=4, threads=1)


@pytest.fixture
def instant(whole, monkeypatch):
    """Replaces processes by an answer; returns the list of who was asked."""
    asked = []

    def played(name, task):
        asked.append(name)
        answer = {"kept": 7, "accuracy": 0.5, "cpu_seconds": 1.0}
        if name == "parts":
            answer.update(start=4.0, step=5e-4, validation=0.02)
        return {"seconds": float(len(asked)), **answer}

    monkeypatch.setattr(whole, "played", played)
    return asked


def test_every_contender_is_first_equally_often(whole):
    names = ["a", "b", "c"]
    rounds = [whole.order(names, number) for number in range(6)]
    assert [each[0] for each in rounds] == names * 2
    assert all(sorted(each) == names for each in rounds)


def test_data_are_the_same_every_time_and_can_be_learned(whole, task, tmp_path):
    tasks = importlib.import_module("whole_lottery_task")
    other = tmp_path / "other"
    other.mkdir()
    tasks.make_data(other, rows=240, validation=120)
    for one, two in zip(tasks.read_data(task.data), tasks.read_data(other)):
        assert np.array_equal(one, two)
    (x, y), validation, _ = tasks.load(task.data)
    assert x.shape == (240, 28, 28, 1) and len(validation[0]) == 120
    assert set(y) == set(range(10))


def test_resume_plays_only_what_is_missing(whole, task, instant, tmp_path):
    path, names = tmp_path / "seconds.csv", ["ours", "torch"]
    whole.measure(names, 1, task, path, resume=False)
    assert instant == ["ours", "torch"]
    rows = whole.measure(names, 3, task, path, resume=True)
    assert instant == ["ours", "torch", "torch", "ours", "ours", "torch"]
    expected = {"ours": [1.0, 4.0, 5.0], "torch": [2.0, 3.0, 6.0]}
    assert whole.seconds_of(rows, names) == expected


def test_a_round_that_was_cut_off_is_no_pair(whole):
    rows = [
        {"round": 0, "contender": "ours", "seconds": 1.0},
        {"round": 0, "contender": "torch", "seconds": 2.0},
        {"round": 1, "contender": "torch", "seconds": 9.0},
    ]
    found = whole.seconds_of(rows, ["ours", "torch"])
    assert found == {"ours": [1.0], "torch": [2.0]}


def test_seconds_of_another_task_are_refused(whole, task, instant, tmp_path):
    path = tmp_path / "seconds.csv"
    whole.measure(["ours"], 1, task, path, resume=False)
    with pytest.raises(SystemExit, match="of another task"):
        whole.measure(["ours"], 2, task._replace(steps=9), path, resume=True)


def test_bars_are_of_others_over_ours(whole, task, instant, tmp_path, capsys):
    names = list(whole.CONTENDERS)
    path = tmp_path / "seconds.csv"
    rows = whole.measure(names, 6, task, path, resume=False)
    for row in rows:
        row["seconds"] = {"ours": 2.0, "keras": 6.2, "torch": 4.0}.get(
            row["contender"], 1.0
        )
    whole.report(rows, names)
    told = capsys.readouterr().out
    assert "| keras / ours | 3.10 | 3.10 to 3.10 | 6 | >= 3 | holds |" in told
    assert (
        "| torch / ours | 2.00 | 2.00 to 2.00 | 6 | >= 2.5 | MISSED |" in told
    )


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["ours", "run", "keras", "tfmot"])
def test_a_contender_prunes_as_the_task_says(whole, task, name):
    answer = whole.played(name, task)
    assert answer["kept"] == KEPT
    assert 0 < answer["accuracy"] < 1
    assert answer["seconds"] > 0


@pytest.mark.thorough
def test_torch_prunes_a_fifth_of_all_weights(whole, task):
    pytest.importorskip("torch", reason="only benchmarks need torch")
    assert whole.played("torch", task)["kept"] == 266_200 * 8 // 10


@pytest.mark.thorough
def test_the_parts_sum_up(whole, task):
    answer = whole.played("parts", task)
    steps, validations = 2 * 8 * answer["step"], 4 * answer["validation"]
    expected = answer["start"] + steps + validations
    assert answer["seconds"] == pytest.approx(expected)
