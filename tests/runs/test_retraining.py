"""What is trained again, and stopped again, comes to its end all the same."""

import pathlib

import pytest

from keras_lottery.runs import directory
from keras_lottery.runs import outcome
from keras_lottery.runs import verify
from keras_lottery.training import checkpoint
from keras_lottery.training import loop

pytestmark = pytest.mark.thorough

ENDS = {
    "rewind.name": "learning_rate",
    "prune.levels": 4,
    "controls.names": (),
    "controls.one_shot": False,
}


class Killed(BaseException):
    """What happens after some checkpoints are written."""


@pytest.fixture
def killed(lab, monkeypatch):
    """Returns a function: plays until so many checkpoints; was it killed?"""
    left, save = [None], checkpoint.Checkpoints.save
    monkeypatch.setattr(loop, "SECONDS", 0.0)

    def saved(self, found):
        save(self, found)
        if left[0] is not None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

    def play(config, workdir, after):
        left[0] = after
        try:
            lab.play(config, workdir)
        except Killed:
            return True
        return False

    monkeypatch.setattr(checkpoint.Checkpoints, "save", saved)
    return play


def config_of(lab, changes):
    config = lab.config({"eval_every": 4, "checkpoint.steps": 1, **changes})
    return config


def undamaged(found):
    return {k: v for k, v in found.items() if not k.startswith("damaged/")}


def test_levels_that_begin_again_are_not_begun_again_for_ever(
    lab, tmp_path, contents, killed
):
    """Their ends are kept until the level after them is there."""
    config = config_of(lab, ENDS)
    whole, _ = lab.play(config, tmp_path / "whole")
    run, _ = lab.play(config, tmp_path / "killed")
    pathlib.Path(run.file(0, "ticket", 3, "ticket.safetensors")).unlink()
    kills = 0
    # Levels 0 to 3 are trained again: 7 checkpoints each, 3 at a time.
    while killed(config, tmp_path / "killed", 3):
        kills += 1
        assert kills < 20
    assert kills == 4 * 7 // 3  # not one step was trained twice
    assert undamaged(contents(run.path)) == contents(whole.path)


def test_what_came_from_another_ticket_goes_on_after_a_stop(
    lab, tmp_path, killed, monkeypatch
):
    """Its old record does not make its checkpoints those of a done level."""
    config = config_of(
        lab, {"controls.names": ("shuffle",), "controls.one_shot": False}
    )
    run, _ = lab.play(config, tmp_path)
    pathlib.Path(run.file(0, "ticket", 1, "ticket.safetensors")).unlink()
    signed = outcome.signed

    def otherwise(ticket, *rest):
        found = signed(ticket, *rest)
        found.provenance["machine"] = "another"
        return found

    monkeypatch.setattr(outcome, "signed", otherwise)
    kills = 0
    while killed(config, tmp_path, 3):
        kills += 1
        assert kills < 20
    # Tickets 1 and 2, and the controls of both.
    assert kills >= 4 * 2
    assert verify.differences_of_run(directory.RunDirectory(run.path)) == []
