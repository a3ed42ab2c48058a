"""Room on disk: what is said before a run is what it takes."""

import collections
import os
import pathlib

import pytest

from keras_lottery.errors import RunError
from keras_lottery.runs import configuration
from keras_lottery.runs import directory
from keras_lottery.runs import disk


def written(run):
    """Returns the bytes of a run's levels."""
    return sum(
        path.stat().st_size
        for path in pathlib.Path(run.path).rglob("*")
        if path.is_file()
    )


def short(config):
    """Two validations a level, as in a smoke run, after less training."""
    config.train.steps, config.eval_every = 2, 1
    return config


def conv():
    config = configuration.load("cifar10_conv2:smoke")
    config.data.name = "digits"
    config.data.rows = 60
    config.model.width = 0.5
    config.controls.names = ("shuffle",)
    return short(config)


@pytest.mark.parametrize("keep", ["tickets", "all"])
@pytest.mark.parametrize(
    "build", [lambda: short(configuration.load("digits:smoke")), conv]
)
def test_the_estimate_is_near_and_never_below(build, keep, lab, tmp_path):
    config = build()
    run = directory.RunDirectory.of(config, tmp_path)
    found = disk.estimate(lab.experiment(config), run, keep=keep)
    lab.play(config, tmp_path, keep=keep)
    taken = written(run)
    assert taken <= found
    # Small runs are mostly room left for curves.
    assert found <= 1.25 * taken or found - taken < 150_000


@pytest.mark.parametrize("step", [0, 4])
def test_checkpoints_take_no_more_than_is_said(
    step, lab, tmp_path, monkeypatch
):
    """While the second is written the first one is there, and no third."""
    from keras_lottery.training import checkpoint

    config = lab.config({"rewind.step": step, "checkpoint.steps": 2})
    found, write = [], checkpoint.files.write_whole

    def written(path, content):
        write(path, content)
        there = tmp_path.rglob("checkpoint-*")
        found.append(sum(each.stat().st_size for each in there))

    monkeypatch.setattr(checkpoint.files, "write_whole", written)
    lab.play(config, tmp_path)
    said = disk.passing(lab.experiment(config))
    # Adam has two slots of up to three, and the header some kB.
    assert max(found) <= said + 2 * 6_000
    assert max(found) > said / 3


def test_the_estimate_of_a_run_that_is_there_is_nothing(lab, whole):
    run, _ = whole
    experiment = lab.experiment(lab.config())
    assert disk.estimate(experiment, run, keep="tickets") == 0


def test_the_estimate_is_of_what_is_missing(lab, whole, tmp_path):
    run, _ = whole
    config = lab.config({"prune.levels": 3})
    new = directory.RunDirectory.of(config, tmp_path)
    rest = disk.estimate(lab.experiment(config), run, keep="tickets")
    everything = disk.estimate(lab.experiment(config), new, keep="tickets")
    assert 0 < rest < everything / 2


def test_the_estimate_of_a_finished_rewind_is_nothing(lab, tmp_path):
    changes = {
        "train.steps": 4,
        "rewind.name": "learning_rate",
        "rewind.step": 2,
        "controls.names": (),
        "controls.one_shot": False,
    }
    config = lab.config(changes)
    run = directory.RunDirectory.of(config, tmp_path)
    before = disk.estimate(lab.experiment(config), run, keep="tickets")
    lab.play(config, tmp_path)
    assert written(run) <= before
    assert disk.estimate(lab.experiment(config), run, keep="tickets") == 0


def test_long_curves_are_counted(lab):
    """As mnist_lenet validates: 500 times a level."""
    config = lab.config({"controls.names": ("shuffle",), "prune.levels": 1})
    config.controls.one_shot = False
    config.train.steps, config.eval_every = 50_000, 100
    run = directory.RunDirectory.of(config, "nowhere")
    found = disk.estimate(lab.experiment(config), run, keep="tickets")
    # A row is a step and four floats that json and csv write with 17 digits.
    assert found > 3 * 500 * 70


def test_too_little_room_is_said(tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    asked = []

    def room(path):
        asked.append(os.fspath(path))
        return usage(5e9, 3e9, 2e9)

    monkeypatch.setattr(disk.shutil, "disk_usage", room)
    place = tmp_path / "not" / "there"
    disk.require(2e9, place)
    with pytest.raises(
        RunError,
        match=r"needs about 3\.0 GB in .*there, and on"
        r"ly 2\.0 GB are free.*--keep=tickets",
    ):
        disk.require(3e9, place)
    assert set(asked) == {str(tmp_path)}
    assert not place.exists()


def test_a_relative_place_is_looked_up_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    disk.require(1, "runs")
    with pytest.raises(RunError, match="are free"):
        disk.require(1e30, "runs/more")


def test_sizes_are_written_as_people_do():
    found = [disk.size(each) for each in (0, 999, 1000, 12_345, 10**6, 10**12)]
    assert found == ["0 B", "999 B", "1.0 kB", "12.3 kB", "1.0 MB", "1000.0 GB"]
