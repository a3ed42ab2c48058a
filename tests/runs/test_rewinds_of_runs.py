"""Every rewind through a run that is stopped and goes on."""

import os

import numpy as np
import pytest

from keras_lottery import files
from keras_lottery.runs import formats
from keras_lottery.runs import paths
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.training import state_file

pytestmark = pytest.mark.thorough

BASE = {
    "train.steps": 4,
    "train.drops": (2,),  # so that the step of the learning rate matters
    "controls.names": ("reinitialize",),
    "controls.one_shot": False,
}
KINDS = {
    "weights": {"rewind.name": "weights", "rewind.step": 0},
    "weights_2": {
        "rewind.name": "weights",
        "rewind.step": 2,
        "controls.names": ("shuffle",),
    },
    "learning_rate": {"rewind.name": "learning_rate", "rewind.step": 2},
    "fine_tune": {"rewind.name": "fine_tune"},
    "continue": {"rewind.name": "continue", "controls.names": ("shuffle",)},
}


@pytest.fixture(scope="module")
def played(lab, tmp_path_factory):
    """Returns a function: the run of a rewind, played without a stop."""
    runs = {}

    def get(kind):
        if kind not in runs:
            workdir = tmp_path_factory.mktemp(kind)
            runs[kind] = lab.play(config_of(lab, kind), workdir)
        return runs[kind]

    return get


def config_of(lab, kind):
    return lab.config({**BASE, **KINDS[kind]})


def tickets_of(run):
    return [
        Ticket.load(run.file(0, "ticket", level, paths.TICKET))
        for level in range(3)
    ]


def steps_of(run, arm, level):
    curve = formats.read_csv(run.file(0, arm, level, paths.METRICS))
    return [int(row["step"]) for row in curve]


def assert_same(values, others):
    assert values.keys() == others.keys()
    for name, value in values.items():
        assert np.array_equal(value, others[name]), name


# Trainings: levels 0, 1, 2, then the control of level 1. "weights" at step 0 is
# what tests/runs/test_play.py stops everywhere.
@pytest.mark.parametrize(
    ("kind", "position"),
    [
        ("weights_2", 0),
        ("weights_2", 1),
        ("weights_2", 3),
        ("learning_rate", 1),
        ("learning_rate", 2),
        ("fine_tune", 2),
        ("continue", 1),
        ("continue", 3),
    ],
)
def test_a_stop_changes_nothing(
    kind, position, lab, played, tmp_path, contents
):
    config = config_of(lab, kind)
    assert lab.play_until(position, config, tmp_path)
    run, _ = lab.play(config, tmp_path)
    assert contents(run.path) == contents(played(kind)[0].path)


def test_an_extended_run_goes_on_from_its_last_end(lab, played, tmp_path):
    config = config_of(lab, "learning_rate")
    config.prune.levels = 1
    lab.play(config, tmp_path)
    run, rows = lab.play(config_of(lab, "learning_rate"), tmp_path)
    assert rows == played("learning_rate")[1]


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_there_only_where_they_are_needed(kind, played):
    run, _ = played(kind)
    found = {
        name: [each for each in run.levels() if has(run, each, name)]
        for name in (paths.POINT, paths.END)
    }
    ends = kind in ("learning_rate", "fine_tune", "continue")
    points = ends or kind == "weights_2"
    assert found[paths.POINT] == [(0, "ticket", 0)] * points
    assert found[paths.END] == [(0, "ticket", 2)] * ends


def has(run, where, name):
    there = os.path.exists(run.file(*where, name))
    assert there == (name in run.checksums(*where))
    return there


def test_weights_start_where_another_run_ended_after_as_many_steps(
    lab, played, tmp_path
):
    # Up to its drop at step 2 the learning rate is constant.
    changes = {"train.steps": 2, "train.drops": (), "prune.levels": 1}
    changes = {**BASE, **changes}
    short, _ = lab.play(lab.config(changes), tmp_path)
    trained = Ticket.load(short.file(0, "ticket", 0, paths.TICKET))
    run, _ = played("weights_2")
    for ticket in tickets_of(run):
        assert_same(trained.weights("end"), ticket.start)
        assert_same(trained.end_state, ticket.start_state)
    point = state_file.read(run.file(0, "ticket", 0, paths.POINT))
    first = tickets_of(run)[0]
    assert_same(point.model, {**first.start, **first.start_state})
    # And not where it began.
    assert not (trained.start["fc1/kernel"] == first.start["fc1/kernel"]).all()


@pytest.mark.parametrize(
    ("kind", "of_level", "of_control"),
    [
        ("weights", [2, 4], [2, 4]),
        ("weights_2", [4], [4]),
        ("learning_rate", [4], [2, 4]),
        ("fine_tune", [2, 4], [2, 4]),
        ("continue", [2, 4], [2, 4]),
    ],
)
def test_levels_train_from_the_rewind_step(kind, of_level, of_control, played):
    run, rows = played(kind)
    assert steps_of(run, "ticket", 0) == [2, 4]
    for row in rows[1:]:
        right = of_level if row["arm"] == "ticket" else of_control
        assert steps_of(run, row["arm"], row["level"]) == right
        assert row["early_step"] in right and row["last_step"] == 4


@pytest.mark.parametrize("kind", ["learning_rate", "fine_tune"])
def test_levels_start_from_the_weights_before_them(kind, played):
    tickets = tickets_of(played(kind)[0])
    for before, after in zip(tickets, tickets[1:]):
        for name, value in before.weights("end").items():
            kept = after.mask[name]
            assert np.array_equal(after.start[name][kept], value[kept])
        assert_same(before.end_state, after.start_state)


def test_continue_starts_at_step_zero_and_resets_nothing(played):
    plain = tickets_of(played("weights")[0])
    tickets = tickets_of(played("continue")[0])
    for ticket in tickets:
        assert_same(plain[0].start, ticket.start)
    assert_same(plain[0].end, tickets[0].end)
    assert tickets[1].mask == plain[1].mask
    # Trained twice as long from the same place: somewhere else.
    for name, value in tickets[1].end.items():
        assert not np.array_equal(value, plain[1].end[name])


def test_the_rewinds_give_different_tickets(played):
    # Not "continue": after its drops the rate stays as fine-tuning holds it.
    ends = [
        tickets_of(played(kind)[0])[1].end["fc1/kernel"].tobytes()
        for kind in ("weights", "weights_2", "learning_rate", "fine_tune")
    ]
    assert len(set(ends)) == 4


@pytest.mark.parametrize("name", ["learning_rate", "fine_tune", "none"])
@pytest.mark.parametrize(
    "arms",
    [
        {"controls.names": ("shuffle",)},
        {"controls.names": ("randomize",)},
        {"controls.names": (), "controls.one_shot": True},
    ],
)
def test_controls_without_a_start_are_refused(name, arms, lab, tmp_path):
    config = lab.config({**BASE, "rewind.name": name, **arms})
    with pytest.raises(ValueError, match=f"{name}.* has none. Leave it out"):
        lab.play(config, tmp_path)


def test_steps_that_cannot_be_are_refused(lab):
    for changes, message in (
        ({"rewind.step": 3}, "rewind.step=3 must be a multiple of"),
        ({"rewind.step": 4}, "rewind.step=4 must be below train.steps=4"),
    ):
        with pytest.raises(ValueError, match=message):
            lab.experiment(lab.config({**BASE, **changes}))


@pytest.mark.parametrize("last", [12, 14])
def test_a_stop_while_the_last_level_is_written(
    last, lab, tmp_path, contents, monkeypatch
):
    """Write 11 is its record; 14 lets go of the end of the level before."""
    config = config_of(lab, "learning_rate")
    config.prune.levels, config.controls.names = 1, ()
    whole, _ = lab.play(config, tmp_path / "whole")
    write, count = files.write_whole, []

    def stop(path, content):
        count.append(path)
        if len(count) == last + 1:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(files, "write_whole", stop)
    stopped = False
    try:
        lab.play(config, tmp_path / "stopped")
    except KeyboardInterrupt:
        stopped = True
    monkeypatch.undo()
    assert stopped
    run, _ = lab.play(config, tmp_path / "stopped")
    found, expected = contents(run.path), contents(whole.path)
    assert sorted(found) == sorted(expected)
    assert found == expected
