"""A sweep: its name, its trials, its table, and what it will need."""

import csv
import os

import pytest

from keras_lottery.runs import directory
from keras_lottery.runs import parts
from keras_lottery.runs import play
from keras_lottery.runs import sweep
from keras_lottery.runs.points import Point


@pytest.fixture
def made(lab):
    """A function that makes points: of a setting, and more of its levels."""

    def points(path, values, more=None):
        return [
            Point({path: value}, lab.config({path: value, **(more or {})}), ())
            for value in values
        ]

    return points


def command(point, part):
    return [str(point.settings), str(part)]


def test_a_sweep_is_named_by_its_runs_whatever_their_order(made, tmp_path):
    first = sweep.Sweep(made("seed", [1, 2]), tmp_path)
    assert os.path.dirname(first.path) == str(tmp_path / "sweeps")
    again = sweep.Sweep(made("seed", [2, 1], {"replicates": 4}), tmp_path)
    other = sweep.Sweep(made("seed", [1, 3]), tmp_path)
    assert first.path == again.path != other.path


def test_a_run_may_be_in_a_sweep_once(made, tmp_path):
    with pytest.raises(ValueError, match="seed=1 and seed=1 are the same run"):
        sweep.Sweep(made("seed", [1, 2, 1]), tmp_path)


def test_only_what_is_missing_is_trained(lab, made, tmp_path):
    points = made("seed", [1, 2])
    played = sweep.Sweep(points, tmp_path)
    experiments = [lab.experiment(point.config) for point in points]
    first, second = (os.path.basename(run.path) for run in played.runs)
    arms = ["one_shot", "reinitialized_0", "shuffled_0"]
    wanted = played.trials(experiments, command)
    ticket = "replicate_0/ticket"
    assert [t.name for t in wanted] == [
        f"{first}/{ticket}",
        f"{second}/{ticket}",
        *(
            f"{run}/replicate_0/{arm}"
            for run in (first, second)
            for arm in arms
        ),
    ]
    assert wanted[1].command == ("{'seed': 2}", ticket)
    assert wanted[1].log == os.path.join(
        played.path, "logs", second, "replicate_0-ticket.log"
    )
    played.create(lambda point: f"mine {point.settings}")
    assert played.runs[1].read_command() == "mine {'seed': 2}"
    play.play_part(
        lab.experiment(points[0].config),
        played.runs[0],
        parts.Part(0, "ticket"),
    )
    wanted = played.trials(experiments, command)
    after = {trial.name: trial.after for trial in wanted}
    assert f"{first}/{ticket}" not in after and len(after) == 7
    for arm in arms:  # what is done needs no waiting for
        assert after[f"{first}/replicate_0/{arm}"] == ()
        assert after[f"{second}/replicate_0/{arm}"] == (f"{second}/{ticket}",)


def test_the_table_is_that_of_all_runs(lab, made, tmp_path):
    values = [("shuffle",), ("reinitialize",)]
    points = made("controls.names", values, {"prune.levels": 1})
    for point in points:
        lab.play(point.config, tmp_path)
    played = sweep.Sweep(points, tmp_path)
    played.save_table()
    with open(played.table_path, newline="") as file:
        rows = list(csv.DictReader(file))
    expected = []
    for run, value in zip(played.runs, values):
        with open(run.levels_path, newline="") as file:
            name = os.path.basename(run.path)
            expected += [
                {"run": name, "controls.names": repr(value), **row}
                for row in csv.DictReader(file)
            ]
    assert rows == expected and len(rows) == 2 * 4
    assert directory.find_runs(tmp_path / "sweeps") == []


def test_memory_by_hand(lab):
    experiment = lab.experiment(lab.config())
    numbers = sum(array.nbytes for part in experiment.data for array in part)
    weights = 64 * 8 + 8 + 8 * 10 + 10
    found = sweep.needed_in_memory(experiment) - sweep._RUNTIME
    outputs = 64 + 8 + 10  # flattened, hidden, logits
    batch = 20 * outputs
    assert found == 2 * numbers + 4 * (sweep._COPIES * weights + 2 * batch)


def test_networks_are_built_once_where_they_are_alike(lab):
    grid = [{"train.learning_rate": 0.1}, {"train.learning_rate": 0.2}]
    grid += [{"model.width": 2.0}]
    from keras_lottery.runs.experiment import Experiment

    experiments = [Experiment(lab.config(changes)) for changes in grid]
    built = sweep.share(experiments)
    assert built == [experiments[0], experiments[2]]
    assert experiments[0].model is experiments[1].model
    assert experiments[0].model is not experiments[2].model
    assert all(each.data is experiments[0].data for each in experiments)
