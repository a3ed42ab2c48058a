"""Parts: what they are called, and that they add up to the whole run."""

import pytest

from keras_lottery.errors import RunError
from keras_lottery.runs import directory
from keras_lottery.runs import parts
from keras_lottery.runs import play
from keras_lottery.runs.parts import Part


class Counts(play.Silence):
    """Remembers what is trained, and how many steps were announced."""

    def __init__(self):
        self.begun = []

    def start(self, steps):
        self.steps = steps

    def begin(self, replicate, arm, level, density):
        self.begun.append((replicate, arm, level))


def play_part(lab, config, workdir, part):
    """Trains a part as a process of its own would; returns what it told."""
    run = directory.RunDirectory.of(config, workdir)
    run.join(config)
    told = Counts()
    play.play_part(lab.experiment(config), run, part, told)
    return run, told


def without_locks(contents, run):
    found = contents(run.path)
    return {n: c for n, c in found.items() if not n.startswith(".lock")}


def test_the_parts_of_an_experiment(lab):
    changes = {"replicates": 2, "controls.names": ("shuffle",)}
    experiment = lab.experiment(lab.config(changes))
    names = [str(part) for part in parts.of(experiment)]
    assert names == [
        f"replicate_{n}/{arm}"
        for n in (0, 1)
        for arm in ("ticket", "one_shot", "shuffled_0")
    ]
    for name, part in zip(names, parts.of(experiment)):
        assert parts.named(name, experiment) == part


@pytest.mark.parametrize(
    "name",
    ["ticket", "replicate_1/ticket", "replicate_0/shufled_0", "../ticket", ""],
)
def test_what_is_no_part_is_refused_with_those_there_are(name, lab):
    with pytest.raises(ValueError, match="0 to 0 and ARM one of ticket, one_"):
        parts.named(name, lab.experiment(lab.config()))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"replicates": 2}, marks=pytest.mark.thorough),
        pytest.param({"rewind.step": 4}, marks=pytest.mark.thorough),
        {
            "rewind.name": "fine_tune",
            "controls.names": ("reinitialize",),
            "controls.one_shot": False,
        },
    ],
    ids=["init", "step", "fine_tune"],
)
def test_parts_in_any_order_are_the_whole_run_byte_for_byte(
    changes, lab, tmp_path, contents
):
    config = lab.config(changes)
    whole, rows = lab.play(config, tmp_path / "whole")
    found = parts.of(lab.experiment(config))
    trained = []
    for part in sorted(found, key=lambda p: (p.arm != "ticket", -p.replicate)):
        run, told = play_part(lab, config, tmp_path / "parts", part)
        trained += told.begun
        assert not run.is_locked()
    assert sorted(trained) == sorted(
        (row["replicate"], row["arm"], row["level"]) for row in rows
    )
    assert without_locks(contents, run) == without_locks(contents, whole)
    run, told = play_part(lab, config, tmp_path / "parts", found[-1])
    assert (told.steps, told.begun) == (0, [])  # nothing is done twice


def test_a_control_waits_for_its_tickets(lab, tmp_path):
    with pytest.raises(RunError, match="--part=replicate_0/ticket"):
        play_part(lab, lab.config(), tmp_path, Part(0, "shuffled_0"))


def test_parts_extend_a_run_and_keep_the_command(lab, tmp_path):
    config = lab.config({"prune.levels": 1})
    play_part(lab, config, tmp_path, Part(0, "ticket"))
    longer = lab.config()
    run, told = play_part(lab, longer, tmp_path, Part(0, "ticket"))
    assert told.begun == [(0, "ticket", 2)]
    # A shorter one takes nothing back, and trains its own levels only.
    run, told = play_part(lab, config, tmp_path, Part(0, "shuffled_0"))
    assert told.begun == [(0, "shuffled_0", 1)]
    assert run.read_config()["prune"]["levels"] == longer.prune.levels


def test_a_part_that_another_process_trains_is_refused(lab, tmp_path):
    config, part = lab.config(), Part(0, "ticket")
    run, _ = play_part(lab, config, tmp_path, part)
    with run.lock_part(part):
        with pytest.raises(RunError, match="working on replicate_0/ticket"):
            play_part(lab, config, tmp_path, part)
        with pytest.raises(RunError, match="Another process"):
            lab.play(config, tmp_path)
        play_part(lab, config, tmp_path, Part(0, "shuffled_0"))
