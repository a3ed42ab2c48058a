"""Checkpoints inside a level: stopped anywhere, a run ends as if it was not."""

import json
import math
import os
import pathlib
import shutil
import signal

import pytest

from keras_lottery import files
from keras_lottery.errors import Preempted
from keras_lottery.runs import conditions
from keras_lottery.runs import directory
from keras_lottery.runs import paths
from keras_lottery.runs import play
from keras_lottery.runs import saver
from keras_lottery.training import checkpoint
from keras_lottery.training import loop
from keras_lottery.training import state_file
from keras_lottery.training import stopping

KINDS = {
    "weights": {},
    "to_step_4": {"rewind.step": 4},
    "learning_rate": {
        "rewind.name": "learning_rate",
        "rewind.step": 4,
        "controls.names": ("reinitialize",),
        "controls.one_shot": False,
    },
    "fine_tune": {
        "rewind.name": "fine_tune",
        "train.drops": (5,),
        "controls.names": ("reinitialize",),
        "controls.one_shot": False,
    },
    "xla": {"train.compile": "xla"},
    "states": {
        "model.name": "network_of_test_saver:net",
        "train.optimizer": "sgd",
        "train.weight_decay": 0.01,
        "train.warmup": 3,
        "data.augment": "flip_and_crop",
        "prune.levels": 1,
        "controls.names": ("shuffle",),
        "controls.one_shot": False,
    },
}
pytestmark = pytest.mark.thorough
# Dropout, statistics of a normalization, momentum.
NETWORK = """
import keras

def net(input_shape, classes):
    return keras.Sequential([
        keras.Input(input_shape),
        keras.layers.Conv2D(4, 3, name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.ReLU(name="relu"),
        keras.layers.Dropout(0.5, name="drop"),
        keras.layers.Flatten(name="flat"),
        keras.layers.Dense(classes, name="output"),
    ])
"""


class Killed(BaseException):
    """What happens after a checkpoint is written."""


@pytest.fixture(autouse=True, scope="module")
def one_step_a_call():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SECONDS", 0.0)
        yield


@pytest.fixture
def killing(monkeypatch):
    """Returns a function: kill after so many more checkpoints; None to live."""
    left, save = [None], checkpoint.Checkpoints.save

    def saved(self, found):
        save(self, found)
        if left[0] is not None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

    monkeypatch.setattr(checkpoint.Checkpoints, "save", saved)
    return lambda count: left.__setitem__(0, count)


@pytest.fixture
def network(tmp_path, monkeypatch):
    (tmp_path / "network_of_test_saver.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)


def config_of(lab, kind="weights"):
    changes = {"eval_every": 4, "checkpoint.steps": 1, **KINDS[kind]}
    config = lab.config(changes)
    if kind == "states":
        del config.model.arguments["hidden"]
        config.train.arguments.momentum = 0.9
    return config


def killed(lab, config, workdir):
    """Plays until it is killed; returns whether it was."""
    try:
        lab.play(config, workdir)
    except Killed:
        return True
    return False


@pytest.fixture(scope="module")
def played(lab, tmp_path_factory):
    """Returns (run, rows) of a run that was never stopped."""
    return lab.play(config_of(lab), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("kind", KINDS)
def test_killed_after_every_third_checkpoint_all_is_as_it_was(
    kind, lab, tmp_path, contents, killing, network
):
    config = config_of(lab, kind)
    whole, _ = lab.play(config, tmp_path / "whole")
    kills = 0
    killing(3)
    while killed(lab, config, tmp_path / "killed"):
        kills += 1
        killing(3)
    run = directory.RunDirectory.of(config, tmp_path / "killed")
    # Of 8 steps 7 are saved, 3 where a training begins at its fifth.
    assert kills >= len(whole.levels())
    assert contents(run.path) == contents(whole.path)


def test_nothing_is_trained_twice(lab, tmp_path, killing, played):
    steps = []

    class Counts(play.Silence):
        def start(self, left):
            self.left = left

        def advance(self, count):
            steps.append(count)

    killing(5)
    config = config_of(lab)
    assert killed(lab, config, tmp_path)
    killing(None)
    counted = Counts()
    run, rows = lab.play(config, tmp_path, counted)
    assert rows == played[1]
    assert (steps[:3], sum(steps), counted.left) == ([5, 3, 4], 72, 72)


def test_two_are_kept_and_none_of_a_level_that_is_done(
    lab, tmp_path, killing, played
):
    config = config_of(lab)
    for count in (1, 2, 4):  # 1, 3 and 7 steps of the first training
        killing(count)
        assert killed(lab, config, tmp_path)
        [folder] = tmp_path.glob("*/replicate_0/ticket/*")
        assert len(list(folder.glob("checkpoint-*"))) == min(2, count)
    assert not list(pathlib.Path(played[0].path).rglob("checkpoint-*"))


@pytest.mark.parametrize("damaged", [1, 2])
@pytest.mark.parametrize("how", ["flip", "truncate", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damaged, how, lab, tmp_path, killing, played, contents, caplog
):
    config = config_of(lab)
    killing(3)
    assert killed(lab, config, tmp_path)
    found = sorted(tmp_path.rglob("checkpoint-*"))
    for path in found[-damaged:]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(
            {"flip": content, "truncate": content[:99], "empty": b""}[how]
        )
    killing(None)
    run, _ = lab.play(config, tmp_path)
    assert contents(run.path) == contents(played[0].path)
    named = [path.name for path in found if path.name in caplog.text]
    assert named == [path.name for path in found[-damaged:]]


def test_a_checkpoint_of_another_training_is_not_used(
    lab, tmp_path, killing, played, contents, caplog
):
    config, other = config_of(lab), config_of(lab)
    other.seed = 1
    for each in (config, other):
        killing(3)
        assert killed(lab, each, tmp_path)
    run, stranger = (
        pathlib.Path(directory.RunDirectory.of(each, tmp_path).path)
        for each in (config, other)
    )
    level = "replicate_0/ticket/level_0"
    shutil.rmtree(run / level)
    shutil.copytree(stranger / level, run / level)
    killing(None)
    lab.play(config, tmp_path)
    assert caplog.text.count("is not used: it is of") == 2
    assert contents(run) == contents(played[0].path)


def test_other_conditions_lose_no_work_and_are_on_record(
    lab, tmp_path, killing, played, caplog, monkeypatch
):
    config, of = config_of(lab), conditions.of

    def otherwise(*arguments):
        return {**of(*arguments), "threads_inside_ops": 64}

    with monkeypatch.context() as patch:
        patch.setattr(conditions, "of", otherwise)
        for _ in range(2):
            killing(2)
            assert killed(lab, config, tmp_path)
    killing(None)
    run, rows = lab.play(config, tmp_path)
    now = rows[0]["threads_inside_ops"]
    said = f"threads_inside_ops 64, then {now}"
    assert said in caplog.text
    assert [row["conditions_changed"] for row in rows[:2]] == [said, ""]
    # Here nothing has changed but what is said.
    assert rows[1:] == played[1][1:]


def test_other_masks_are_not_used(lab, tmp_path, killing, played, caplog):
    config = config_of(lab)
    while not list(tmp_path.rglob("level_1/checkpoint-*")):
        killing(3)
        assert killed(lab, config, tmp_path)
    folder = next(tmp_path.rglob("level_1/checkpoint-*")).parent
    run = directory.RunDirectory.of(config, tmp_path)
    dense = run.checksums(0, "ticket", 0)[paths.TICKET]
    of = saver.described(run.identity, (0, "ticket", 1), {"ticket": dense})
    there = checkpoint.Checkpoints(folder, of)
    found = there.newest()
    name = next(name for name in found.arrays if name.startswith("mask/"))
    found.arrays[name] ^= 1
    there.save(found)
    killing(None)
    _, rows = lab.play(config, tmp_path)
    assert "it has other masks" in caplog.text
    assert rows == played[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", "3"), ("mode", "fast"), ("rows", None), ("seconds", [])],
)
def test_a_forged_record_is_not_used(
    name, value, lab, tmp_path, killing, played, caplog
):
    config = config_of(lab)
    killing(2)
    assert killed(lab, config, tmp_path)
    folder = next(tmp_path.rglob("checkpoint-*")).parent
    run = directory.RunDirectory.of(config, tmp_path)
    of = saver.described(run.identity, (0, "ticket", 0), {})
    there = checkpoint.Checkpoints(folder, of)
    found = there.newest()
    found.record[name] = value
    there.clear()
    there.save(found)
    killing(None)
    _, rows = lab.play(config, tmp_path)
    assert "is not used: it" in caplog.text
    assert rows == played[1]


def test_the_time_before_a_stop_counts(lab, tmp_path, killing, monkeypatch):
    config = config_of(lab)
    killing(2)
    assert killed(lab, config, tmp_path)
    [path] = tmp_path.rglob("checkpoint-00000001-*")
    run = directory.RunDirectory.of(config, tmp_path)
    found = checkpoint.Checkpoints(
        path.parent, saver.described(run.identity, (0, "ticket", 0), {})
    ).newest()
    assert 0 < found.record["seconds"] < 600
    found.record["seconds"] = 5000.0
    checkpoint.Checkpoints(
        path.parent, saver.described(run.identity, (0, "ticket", 0), {})
    ).save(found)
    killing(None)
    lab.play(config, tmp_path)
    assert 5000 < run.time(0, "ticket", 0)["seconds"] < 5600


class Signals(play.Silence):
    """Sends this process a signal after so many validations."""

    def __init__(self, number, after):
        self._number, self._left = number, after

    def advance(self, steps):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._number)


@pytest.fixture
def ctrl_c():
    """Ctrl-C is heard, as at a terminal: in the background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGTERM, Preempted), (signal.SIGINT, KeyboardInterrupt)],
)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_signal_stops_after_a_checkpoint_or_a_level(
    number, error, after, lab, tmp_path, contents, played
):
    """After 2 validations the level is at its end, and saved as such."""
    config = config_of(lab)
    config.checkpoint.steps = 0  # by time: none is due
    handlers = signal.getsignal(number)
    with pytest.raises(error):
        lab.play(config, tmp_path, Signals(number, after))
    assert signal.getsignal(number) == handlers
    saved = list(tmp_path.rglob("checkpoint-*"))
    run = directory.RunDirectory.of(config, tmp_path)
    assert (len(saved), len(run.levels())) == {
        1: (1, 0),
        2: (0, 1),
        3: (1, 1),
    }[after]
    lab.play(config, tmp_path)
    assert contents(run.path) | {paths.CONFIG: b""} == (
        contents(played[0].path) | {paths.CONFIG: b""}
    )


def test_a_second_signal_stops_at_once(lab, tmp_path, monkeypatch):
    class Thrice(play.Silence):
        def advance(self, steps):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)  # of the same stop
            said.append("both are one")
            now[0] += 1.5
            os.kill(os.getpid(), signal.SIGTERM)
            said.append("never said")

    said, now = [], [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    config = config_of(lab)
    config.checkpoint.steps = 0
    with pytest.raises((Preempted, KeyboardInterrupt)):
        lab.play(config, tmp_path, Thrice())
    assert said == ["both are one"]
    assert not list(tmp_path.rglob("checkpoint-*"))
    assert Preempted(75).code == 75


def test_who_has_nobody_listening_still_saves(lab, tmp_path, monkeypatch):
    """As with `run | tee log` and Ctrl-C: tee is gone at once."""

    def gone(number, text):
        raise BrokenPipeError

    monkeypatch.setattr(stopping.os, "write", gone)
    with pytest.raises(Preempted):
        lab.play(config_of(lab), tmp_path, Signals(signal.SIGTERM, 1))
    assert list(tmp_path.rglob("checkpoint-*"))


def test_a_signal_while_a_level_is_written_waits(lab, tmp_path, monkeypatch):
    """The level is saved, with nothing trained again afterwards."""
    write = files.write_whole

    def interrupted(path, content):
        if os.path.basename(path) == paths.TICKET:
            os.kill(os.getpid(), signal.SIGTERM)
        write(path, content)

    config = config_of(lab)
    monkeypatch.setattr(files, "write_whole", interrupted)
    with pytest.raises(Preempted):
        lab.play(config, tmp_path)
    run = directory.RunDirectory.of(config, tmp_path)
    assert run.levels() == [(0, "ticket", 0)]


def test_a_checkpoint_of_another_ticket_is_not_used(
    lab, tmp_path, killing, played, caplog
):
    """The ticket that the level came from is another one now."""
    config = config_of(lab)
    while not list(tmp_path.rglob("level_1/checkpoint-*")):
        killing(3)
        assert killed(lab, config, tmp_path)
    run = directory.RunDirectory.of(config, tmp_path)
    [folder] = {p.parent for p in tmp_path.rglob("level_1/checkpoint-*")}
    of = saver.described(run.identity, (0, "ticket", 1), {"ticket": "0" * 64})
    for path in sorted(folder.glob("checkpoint-*")):
        taken = checkpoint.unpack(path.read_bytes(), _of(path))
        path.unlink()
    checkpoint.Checkpoints(folder, of).save(taken)
    killing(None)
    _, rows = lab.play(config, tmp_path)
    assert "is not used: it is of" in caplog.text
    assert rows == played[1]


def _of(path):
    header = state_file.read(path).model["header"].tobytes()
    return json.loads(header)["of"]


@pytest.mark.parametrize(
    ("name", "value"), [("steps", -1), ("seconds", -1.0), ("seconds", math.nan)]
)
def test_checkpoints_that_cannot_be_are_refused(name, value, lab, tmp_path):
    config = lab.config({f"checkpoint.{name}": value})
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        lab.experiment(config)
