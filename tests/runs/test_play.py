"""Runs: what is on disk, what is done again and what is not."""

import csv
import dataclasses
import os

import pytest

import keras_lottery as lottery
from keras_lottery.runs import directory
from keras_lottery.runs import experiment
from keras_lottery.runs import play


def tiny(**changes):
    return experiment.get(
        "digits",
        hidden=(16,),
        steps=6,
        eval_every=3,
        levels=changes.pop("levels", 2),
        replicates=changes.pop("replicates", 1),
        **changes,
    )


def played(chosen, workdir):
    run = directory.RunDirectory(chosen, workdir)
    run.create()
    told = []
    rows = play.play(chosen, run, lambda *each: told.append(each))
    return run, rows, told


def files(path):
    return {
        os.path.relpath(os.path.join(folder, name), path): _content(
            folder, name
        )
        for folder, _, names in os.walk(path)
        for name in names
    }


def _content(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    run, rows, told = played(tiny(), workdir)
    return run, rows, told


def test_a_run_has_a_row_and_a_ticket_per_replicate_arm_and_level(whole):
    run, rows, _ = whole
    arms = [(row["arm"], row["level"]) for row in rows]
    assert arms == [
        ("ticket", 0),
        ("ticket", 1),
        ("ticket", 2),
        ("reinitialized_0", 1),
        ("reinitialized_0", 2),
        ("shuffled_0", 1),
        ("shuffled_0", 2),
    ]
    for arm, level in arms:
        ticket = run.ticket(0, arm, level)
        assert ticket.level == level and ticket.end


def test_counts_are_those_of_the_schedule(whole):
    _, rows, _ = whole
    # fc1 64 x 16, output 16 x 10; 20 % and 10 % a level.
    kept = [1024 + 160, 1024 - 205 + 160 - 16, 1024 - 369 + 160 - 30]
    assert [row["kept"] for row in rows[:3]] == kept
    assert [row["kept"] for row in rows[3:5]] == kept[1:]
    assert {row["size"] for row in rows} == {1184}


def test_the_tickets_of_a_run_start_where_it_started(whole):
    run, _, _ = whole
    first = run.ticket(0, "ticket", 0).start["fc1/kernel"]
    for level in (1, 2):
        start = run.ticket(0, "ticket", level).start["fc1/kernel"]
        assert (start == first).all()
    control = run.ticket(0, "reinitialized_0", 2).start["fc1/kernel"]
    assert not (control == first).any()


def test_levels_csv_holds_the_rows(whole):
    run, rows, _ = whole
    with open(run.levels_path, newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == len(rows)
    assert found[0]["arm"] == "ticket"
    assert float(found[1]["density"]) == rows[1]["density"]


def test_progress_counts_every_training(whole):
    _, _, told = whole
    assert [done for done, _, text in told if not text] == list(range(1, 8))
    assert {total for _, total, _ in told} == {7}


def test_metrics_are_read_at_the_validation_minimum(whole):
    run, _, _ = whole
    ticket = run.ticket(0, "ticket", 1)
    path = os.path.join(
        os.path.dirname(run.ticket_path(0, "ticket", 1)), "metrics.csv"
    )
    with open(path, newline="") as file:
        curve = list(csv.DictReader(file))
    assert [int(row["step"]) for row in curve] == [3, 6]
    best = min(curve, key=lambda row: float(row["val_loss"]))
    assert ticket.metrics["early_step"] == int(best["step"])
    assert ticket.metrics["val_accuracy"] == float(best["val_accuracy"])


def test_what_is_done_is_not_done_again(whole, monkeypatch):
    run, rows, _ = whole
    before = files(run.path)

    def trained(*unused):
        raise AssertionError("something was trained again")

    monkeypatch.setattr(play.Trainer, "__call__", trained)
    again = play.play(tiny(), run)
    assert again == rows
    assert files(run.path) == before


def test_a_replicate_is_the_same_whatever_was_trained_before_it(tmp_path):
    chosen = tiny(replicates=2, levels=1)
    _, rows, _ = played(chosen, tmp_path / "controls")
    bare = dataclasses.replace(chosen, controls=())
    _, alone, _ = played(bare, tmp_path / "bare")
    tickets = [row for row in rows if row["arm"] == "ticket"]
    assert tickets == alone
    assert tickets[0]["last_loss"] != tickets[2]["last_loss"]


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    whole, tmp_path, monkeypatch
):
    train, calls = play.Trainer.__call__, []

    def stop_at_fourth(self, *arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return train(self, *arguments)

    monkeypatch.setattr(play.Trainer, "__call__", stop_at_fourth)
    with pytest.raises(KeyboardInterrupt):
        played(tiny(), tmp_path)
    calls.extend([None] * 9)
    run, rows, _ = played(tiny(), tmp_path)
    assert rows == whole[1]
    assert files(run.path) == files(whole[0].path)


def test_a_run_stopped_in_its_second_replicate_continues(tmp_path, monkeypatch):
    chosen = tiny(replicates=2, levels=1)
    expected, _, _ = played(chosen, tmp_path / "whole")
    train, calls = play.Trainer.__call__, []

    def stop_at_sixth(self, *arguments):
        calls.append(arguments)
        if len(calls) == 6:  # level 1 of the second ticket
            raise KeyboardInterrupt
        return train(self, *arguments)

    monkeypatch.setattr(play.Trainer, "__call__", stop_at_sixth)
    with pytest.raises(KeyboardInterrupt):
        played(chosen, tmp_path / "stopped")
    run, _, _ = played(chosen, tmp_path / "stopped")
    assert files(run.path) == files(expected.path)


def test_a_longer_run_extends_a_shorter_one(whole, tmp_path):
    run, _, _ = played(tiny(levels=1), tmp_path)
    before = files(run.path)
    run, rows, _ = played(tiny(levels=2), tmp_path)
    after = files(run.path)
    tickets = [name for name in before if name.endswith("safetensors")]
    assert tickets and all(after[name] == before[name] for name in tickets)
    assert sorted(map(str, rows)) == sorted(map(str, whole[1]))


def test_another_configuration_is_another_run():
    names = {
        directory.identity(each)
        for each in (tiny(), tiny(seed=1), tiny(rate=0.3), tiny(batch_size=20))
    }
    assert len(names) == 4
    assert directory.identity(tiny(levels=9)) == directory.identity(tiny())


def test_the_identity_of_the_default_run_is_pinned():
    # Another value would part results from the runs they came from.
    assert directory.identity(experiment.get("digits")) == "f12ba6eaa479"


def test_a_changed_configuration_is_refused(whole, tmp_path):
    run = directory.RunDirectory(tiny(), tmp_path)
    run.create()
    path = os.path.join(run.path, "config.json")
    text = open(path).read().replace('"rate": 0.2', '"rate": 0.5')
    with open(path, "w") as file:
        file.write(text)
    with pytest.raises(lottery.RunError, match=r"rate.*0\.5"):
        directory.RunDirectory(tiny(), tmp_path).create()
    with open(path, "w") as file:
        file.write("{")
    with pytest.raises(lottery.RunError, match="is damaged"):
        directory.RunDirectory(tiny(), tmp_path).create()


def test_a_directory_that_cannot_be_written_is_said(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(lottery.RunError, match="Choose another place"):
        directory.RunDirectory(tiny(), blocked).create()


def test_a_damaged_ticket_is_named(tmp_path):
    run, _, _ = played(tiny(levels=1), tmp_path)
    path = run.ticket_path(0, "ticket", 1)
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(lottery.TicketError, match="level_1"):
        played(tiny(levels=1), tmp_path)


def test_wrong_experiments_are_refused():
    with pytest.raises(ValueError, match="Unknown experiment 'digit'"):
        experiment.get("digit")
    with pytest.raises(ValueError, match="`levels` must be an int >= 1"):
        experiment.get("digits", levels=0)
    with pytest.raises(ValueError, match="multiple of eval_every"):
        experiment.get("digits", steps=10, eval_every=3)
