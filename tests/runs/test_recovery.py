"""Damage: whatever happens to a file of a run, it is named and made again."""

import logging
import os
import pathlib
import shutil

import pytest

from keras_lottery import files
from keras_lottery.errors import RunError
from keras_lottery.runs import directory
from keras_lottery.runs import parts
from keras_lottery.runs import paths
from keras_lottery.runs import play
from keras_lottery.runs import verify

pytestmark = pytest.mark.thorough

LEVELS = ("replicate_0/ticket/level_0", "replicate_0/ticket/level_1")
FILES = [
    *(f"{LEVELS[0]}/{name}" for name in ("level.json", "ticket.safetensors")),
    f"{LEVELS[0]}/metrics.csv",
    *(f"{LEVELS[1]}/{name}" for name in ("level.json", "ticket.safetensors")),
    "replicate_0/ticket/level_2/metrics.csv",
    "replicate_0/shuffled_0/level_1/level.json",
    "replicate_0/one_shot/level_2/metrics.csv",
    "config.json",
    "levels.csv",
]
DAMAGES = ("truncate", "empty", "flip", "swap", "delete")


class Trained(play.Silence):
    """Collects what is trained."""

    def __init__(self):
        self.levels = []

    def begin(self, replicate, arm, level, density):
        self.levels.append((replicate, arm, level))


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of the whole run that may be damaged."""
    run = directory.RunDirectory(tmp_path / pathlib.Path(whole[0].path).name)
    shutil.copytree(whole[0].path, run.path)
    return run


@pytest.fixture(scope="module")
def other(lab, tmp_path_factory):
    """A run of another seed."""
    config = lab.config({"seed": 3})
    return lab.play(config, tmp_path_factory.mktemp("other"))[0]


def damage(how, run, name, other):
    path = pathlib.Path(run.path, name)
    content = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
        return
    if how == "swap":
        content = pathlib.Path(other.path, name).read_bytes()
    elif how == "flip":
        content[len(content) // 2] ^= 1
    else:
        content = content[: {"truncate": len(content) // 2, "empty": 0}[how]]
    path.write_bytes(content)


def undamaged(found):
    return {k: v for k, v in found.items() if not k.startswith("damaged/")}


@pytest.mark.thorough
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_made_again(
    name, how, lab, whole, copied, other, contents, caplog, tmp_path
):
    damage(how, copied, name, other)
    found = verify.differences_of_run(copied) if name != "config.json" else []
    trained = Trained()
    with caplog.at_level(logging.WARNING):
        lab.play(lab.config(), tmp_path, trained)
    assert undamaged(contents(copied.path)) == contents(whole[0].path)
    assert verify.differences_of_run(copied) == []
    folder, _, base = name.rpartition("/")
    if base != "config.json":
        assert found, "verify found nothing"
    if how != "delete" or base not in ("config.json", "levels.csv"):
        gone = how == "delete" and base == "level.json"
        assert gone or base in caplog.text
    expected = [folder] if folder else []
    assert [
        f"replicate_{r}/{arm}/level_{level}" for r, arm, level in trained.levels
    ] == expected


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["flip", "delete"])
def test_levels_that_need_the_end_before_them_begin_again(
    how, lab, contents, tmp_path, caplog
):
    config = lab.config(
        {"rewind.name": "learning_rate", "controls.names": ("reinitialize",)}
    )
    config.controls.one_shot = False
    whole, _ = lab.play(config, tmp_path / "whole")
    run, _ = lab.play(config, tmp_path / "damaged")
    damage(how, run, "replicate_0/ticket/level_1/ticket.safetensors", whole)
    trained = Trained()
    lab.play(config, tmp_path / "damaged", trained)
    assert [level for _, _, level in trained.levels] == [0, 1]
    assert undamaged(contents(run.path)) == contents(whole.path)


def test_a_ticket_that_comes_out_otherwise_has_its_offspring_trained_again(
    lab, whole, copied, contents, tmp_path, monkeypatch
):
    """As on another machine: here by another, equally good, level 1."""
    damage("empty", copied, f"{LEVELS[1]}/ticket.safetensors", None)
    from keras_lottery.runs import outcome

    signed = outcome.signed

    def otherwise(ticket, *rest):
        found = signed(ticket, *rest)
        if ticket.level == 1:
            found.provenance["machine"] = "another"
        return found

    monkeypatch.setattr(outcome, "signed", otherwise)
    trained = Trained()
    lab.play(lab.config(), tmp_path, trained)
    assert trained.levels[:2] == [(0, "ticket", 1), (0, "ticket", 2)]
    assert sorted(trained.levels[2:]) == sorted(
        (0, arm, level)
        for arm in ("reinitialized_0", "shuffled_0", "one_shot")
        # Those of level 2 come from a ticket that has the same bytes again.
        for level in (1,)
    )
    assert verify.differences_of_run(copied) == []


def test_whole_levels_of_another_run_are_not_taken_for_ours(
    lab, whole, copied, other, contents, tmp_path, caplog
):
    shutil.rmtree(pathlib.Path(copied.path, LEVELS[1]))
    shutil.copytree(
        pathlib.Path(other.path, LEVELS[1]),
        pathlib.Path(copied.path, LEVELS[1]),
    )
    [first, *_] = verify.differences_of_run(copied)
    assert "is of another run" in first
    lab.play(lab.config(), tmp_path)
    assert "is of another run" in caplog.text
    assert undamaged(contents(copied.path)) == contents(whole[0].path)


def test_what_is_damaged_is_kept_aside(lab, copied, tmp_path):
    for content in (b"first", b"second"):
        path = pathlib.Path(copied.path, LEVELS[1], "metrics.csv")
        path.write_bytes(content)
        lab.play(lab.config(), tmp_path)
    for number, content in ((0, b"first"), (1, b"second")):
        aside = pathlib.Path(copied.path, paths.DAMAGED, str(number))
        assert (aside / LEVELS[1] / "metrics.csv").read_bytes() == content


def test_what_a_killed_process_was_writing_is_removed(lab, copied, tmp_path):
    for folder in (copied.path, os.path.join(copied.path, LEVELS[0])):
        pathlib.Path(folder, f"{files.ASIDE}abc").write_bytes(b"half")
    lab.play(lab.config(), tmp_path)
    assert not list(pathlib.Path(copied.path).rglob(f"{files.ASIDE}*"))


def test_an_older_table_is_no_damage(lab, copied, tmp_path, caplog):
    """Killed after a level was saved, and before the tables were."""
    last = pathlib.Path(copied.path, "replicate_0/one_shot/level_2")
    before = pathlib.Path(copied.levels_path).read_bytes()
    last.rename(tmp_path / "aside")
    copied.save_tables()
    (tmp_path / "aside").rename(last)
    assert pathlib.Path(copied.levels_path).read_bytes() != before
    assert verify.differences_of_run(copied) == []
    lab.play(lab.config(), tmp_path)
    assert caplog.text == ""
    assert pathlib.Path(copied.levels_path).read_bytes() == before


@pytest.mark.parametrize("name", ["levels.csv", "times.csv"])
def test_a_table_that_was_cut_at_a_line_is_found(name, lab, copied, tmp_path):
    path = pathlib.Path(copied.path, name)
    content = path.read_bytes()
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:-2]))
    [difference] = verify.differences_of_run(copied)
    assert difference == f"{name} is not what the levels say"
    lab.play(lab.config(), tmp_path)
    assert path.read_bytes() == content


def test_a_part_mends_its_own_levels_only(lab, copied, tmp_path, contents):
    config = lab.config()
    chosen = lab.experiment(config)
    part = parts.named("replicate_0/shuffled_0", chosen)
    own = "replicate_0/shuffled_0/level_1/metrics.csv"
    others = "replicate_0/reinitialized_0/level_1/metrics.csv"
    before = contents(copied.path)
    for name in (own, others):
        damage("flip", copied, name, None)
    play.play_part(chosen, copied, part)
    after = contents(copied.path)
    assert after[own] == before[own] and after[others] != before[others]


def test_a_control_does_not_start_from_a_damaged_ticket(lab, copied):
    chosen = lab.experiment(lab.config())
    part = parts.named("replicate_0/shuffled_0", chosen)
    damage("flip", copied, f"{LEVELS[1]}/ticket.safetensors", None)
    with pytest.raises(RunError, match="level 1.*--part=replicate_0/ticket"):
        play.play_part(chosen, copied, part)
