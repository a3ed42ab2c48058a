"""A run on four devices, stopped and continued: no bit differs."""

import pathlib

import pytest

from keras_lottery.runs import configuration
from keras_lottery.runs import directory
from keras_lottery.runs import experiment
from keras_lottery.runs import play
from keras_lottery.training import checkpoint
from keras_lottery.training import loop

NETWORK = """
import keras

def net(input_shape, classes):
    return keras.Sequential([
        keras.Input(input_shape, name="images"),
        keras.layers.Flatten(name="flat"),
        keras.layers.Dense(16, name="hidden"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.ReLU(name="relu"),
        keras.layers.Dense(classes, name="output"),
    ], name="net")
"""


class Killed(BaseException):
    """What happens after a checkpoint is written."""


@pytest.fixture
def config(tmp_path, monkeypatch):
    (tmp_path / "network_on_devices.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "SECONDS", 0.0)
    found = configuration.load("digits:smoke")
    found.model.name = "network_on_devices:net"
    del found.model.arguments["hidden"]
    found.distribute.strategy = "mirrored"
    found.train.steps, found.eval_every = 12, 4
    found.data.rows = 190  # the last batch of a pass has 10 rows
    found.controls.names, found.controls.one_shot = (), False
    found.prune.levels = 1
    found.checkpoint.steps = 1
    return found


def played(config, workdir):
    run = directory.RunDirectory.of(config, workdir)
    run.create(config)
    play.play(experiment.Experiment(config), run)
    return run


def contents(run):
    root = pathlib.Path(run.path)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
        and path.name not in ("times.csv", "time.json", "tables.json")
    }


@pytest.mark.thorough
def test_stopped_at_every_checkpoint_a_run_ends_the_same(
    config, tmp_path, monkeypatch
):
    whole = played(config, tmp_path / "whole")
    save, kills = checkpoint.Checkpoints.save, 0

    def killed(self, found):
        save(self, found)
        # Inside a stretch each device has statistics of its own.
        assert found.record["step"] in (4, 8)
        raise Killed

    monkeypatch.setattr(checkpoint.Checkpoints, "save", killed)
    while True:
        try:
            run = played(config, tmp_path / "killed")
            break
        except Killed:
            kills += 1
    assert kills == 2 * 2
    assert contents(run) == contents(whole)
