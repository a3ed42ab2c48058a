"""`train.compile`: how steps are compiled, noted, and kept by a run."""

import os

import pytest
import tensorflow as tf

from keras_lottery.cli import main
from keras_lottery.runs import directory
from keras_lottery.runs import experiment
from keras_lottery.runs import formats
from keras_lottery.runs import identity
from keras_lottery.training import compiling
from keras_lottery.training import programs

pytestmark = pytest.mark.thorough

SMALL = {
    "controls.names": ("shuffle",),
    "controls.one_shot": False,
    "train.steps": 4,
    "train.learning_rate": 0.01,
}


def config_of(lab, **train):
    train = {f"train.{name}": value for name, value in train.items()}
    return lab.config({**SMALL, **train})


def never(*arguments):
    raise AssertionError("nobody asked for it to be measured")


def levels(run):
    return formats.read_csv(os.path.join(run.path, "levels.csv"))


def modes(rows):
    return {(row["compiled"], row["update"]) for row in rows}


@pytest.mark.parametrize(
    ("wanted", "optimizer", "expected"),
    [
        ("auto", "adam", ("graph", "fused")),  # levels of 4 steps
        ("graph", "adam", ("graph", "fused")),
        ("graph", "rmsprop", ("graph", "keras")),
        ("xla", "adam", ("xla", "keras")),
    ],
)
def test_rows_say_what_was_used(
    wanted, optimizer, expected, lab, tmp_path, monkeypatch
):
    monkeypatch.setattr(compiling, "measured", never)
    config = config_of(lab, compile=wanted, optimizer=optimizer)
    run, rows = lab.play(config, tmp_path)
    assert len(rows) == 5
    assert modes(rows) == modes(levels(run)) == {expected}


def test_long_levels_follow_the_table(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "LONG", 4)
    monkeypatch.setattr(compiling, "device_kind", lambda: "CPU")
    _, rows = lab.play(config_of(lab), tmp_path)
    assert modes(rows) == {("xla", "keras")}


def test_graph_mode_and_xla_find_the_same(lab, tmp_path):
    found = [
        lab.play(config_of(lab, compile=mode), tmp_path)[1]
        for mode in compiling.MODES
    ]
    for one, other in zip(*found, strict=True):
        assert one["kept"] == other["kept"]
        for name in ("val_loss", "test_loss"):
            assert one[name] == pytest.approx(other[name], rel=1e-4)


@pytest.mark.parametrize("mode", compiling.MODES)
def test_what_was_measured_is_used(mode, lab, tmp_path, monkeypatch):
    asked = []

    def measured(model, feed):
        asked.append(feed.recipe.batch_size)
        return mode

    monkeypatch.setattr(compiling, "measured", measured)
    _, rows = lab.play(config_of(lab, compile="measure"), tmp_path)
    assert asked == [20]
    assert {row["compiled"] for row in rows} == {mode}
    lab.play(config_of(lab, compile="measure"), tmp_path)  # all is done
    assert asked == [20]


def test_measuring_changes_no_number(lab, tmp_path):
    """Both are timed on the network of the run; then it begins anew."""
    _, rows = lab.play(config_of(lab, compile="measure"), tmp_path)
    (mode,) = {row["compiled"] for row in rows}
    _, expected = lab.play(config_of(lab, compile=mode), tmp_path)
    assert rows == expected


@pytest.mark.parametrize("position", [1, 3])
@pytest.mark.parametrize(
    ("first", "then"), [("graph", "xla"), ("xla", "graph")]
)
def test_a_stopped_run_goes_on_with_the_mode_that_was_recorded(
    first, then, position, lab, contents, tmp_path, monkeypatch
):
    config = config_of(lab, compile="measure")
    monkeypatch.setattr(compiling, "measured", lambda *_: first)
    whole, _ = lab.play(config, tmp_path / "whole")
    assert lab.play_until(position, config, tmp_path / "stopped")
    asked = []

    def measured(*arguments):
        asked.append(then)
        return then

    monkeypatch.setattr(compiling, "measured", measured)
    run, rows = lab.play(config, tmp_path / "stopped")
    assert asked == []
    assert {row["compiled"] for row in rows} == {first}
    assert contents(run.path) == contents(whole.path)


def test_a_run_with_nothing_done_measures_anew(lab, tmp_path, monkeypatch):
    config = config_of(lab, compile="measure")
    monkeypatch.setattr(compiling, "measured", lambda *_: "graph")
    assert lab.play_until(0, config, tmp_path)
    monkeypatch.setattr(compiling, "measured", lambda *_: "xla")
    _, rows = lab.play(config, tmp_path)
    assert {row["compiled"] for row in rows} == {"xla"}


def test_what_xla_cannot_compile_is_noted_as_graph_mode(
    lab, tmp_path, monkeypatch
):
    def refused(model, recipe):
        def steps(*arguments):
            raise tf.errors.UnimplementedError(None, None, "not here")

        return steps

    monkeypatch.setattr(programs, "xla", refused)
    config = config_of(lab, compile="xla", batch_size=15)
    _, rows = lab.play(config, tmp_path)
    assert modes(rows) == {("graph", "fused")}


@pytest.mark.parametrize("wanted", ["XLA", "jit", "", "eager"])
def test_other_words_are_refused(wanted, lab):
    known = "'auto', 'graph', 'xla', 'measure'"
    told = rf"train\.compile={wanted!r} is not known\. Expected one of {known}"
    with pytest.raises(ValueError, match=told):
        experiment.Experiment(config_of(lab, compile=wanted))


def test_the_command_refuses_them_before_it_writes(tmp_path, capsys):
    typed = ["run", "--config=digits:smoke", f"--workdir={tmp_path}"]
    with pytest.raises(SystemExit) as stopped:
        main.main([*typed, "--config.train.compile=fast"])
    assert stopped.value.code == 2
    assert "train.compile='fast' is not known" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_mode_is_part_of_a_runs_identity(lab):
    names = {
        wanted: identity.identity(config_of(lab, compile=wanted))
        for wanted in ("auto", "graph", "xla", "measure")
    }
    assert len(set(names.values())) == 4
    default = lab.config(SMALL)
    assert identity.identity(default) == names["auto"]
    assert "train.compile" not in identity.difference(default)
    del default.train.compile  # as a run of an earlier version has it
    assert identity.identity(default) == names["auto"]


def test_a_run_is_found_again_by_its_mode(lab, tmp_path):
    found = {
        directory.RunDirectory.of(config_of(lab, compile=wanted), tmp_path).path
        for wanted in ("auto", "graph", "xla")
    }
    assert len(found) == 3
