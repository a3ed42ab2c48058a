"""Play: what is trained, what is not trained again, what a stop leaves."""

import csv
import itertools
import os

import numpy as np
import pytest

from keras_lottery import files
from keras_lottery import seeds
from keras_lottery.errors import RunError
from keras_lottery.runs import directory
from keras_lottery.runs import experiment
from keras_lottery.runs import formats
from keras_lottery.runs import paths
from keras_lottery.runs import play
from keras_lottery.runs import trainer
from keras_lottery.tickets.ticket import Ticket

ARMS = ("one_shot", "reinitialized_0", "shuffled_0")
ORDER = [("ticket", level) for level in range(3)] + [
    (arm, level) for arm in ARMS for level in (1, 2)
]


PLAIN = {
    "controls.names": ("shuffle",),
    "controls.one_shot": False,
    "train.steps": 4,
}


def ticket_of(run, replicate, arm, level):
    return Ticket.load(run.file(replicate, arm, level, paths.TICKET))


def curve_of(run, replicate, arm, level):
    return formats.read_csv(run.file(replicate, arm, level, paths.METRICS))


def trainings_of(run):
    return [
        (int(row["replicate"]), row["arm"], int(row["level"]))
        for row in formats.read_csv(os.path.join(run.path, paths.TIMES))
    ]


@pytest.fixture(scope="module")
def kept(lab, tmp_path_factory):
    """The tiny run with two of each control, whose tickets are kept."""
    config = lab.config({"controls.repeats": 2})
    return lab.play(config, tmp_path_factory.mktemp("kept"), keep="all")


@pytest.fixture(scope="module")
def plain(lab, tmp_path_factory):
    """A run of five trainings."""
    return lab.play(lab.config(PLAIN), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def long(lab, tmp_path_factory):
    """Five levels at once, two replicates, one control."""
    return lab.play(longer(lab, 5, 2), tmp_path_factory.mktemp("long"))


def longer(lab, levels, replicates):
    return lab.config(
        {
            "controls.names": ("reinitialize",),
            "controls.one_shot": False,
            "prune.levels": levels,
            "replicates": replicates,
            "train.steps": 4,
        }
    )


def test_a_run_has_a_row_per_replicate_arm_and_level(whole):
    run, rows = whole
    assert [(row["arm"], row["level"]) for row in rows] == ORDER
    assert rows == run.rows()
    assert {row["replicate"] for row in rows} == {0}


def test_counts_are_those_of_the_schedule(whole):
    _, rows = whole
    # fc1 64 x 8 at 20 % a level, output 8 x 10 at 10 %.
    counts = {
        level: 512
        - round(512 * (1 - 0.8**level))
        + 80
        - round(80 * (1 - 0.9**level))
        for level in range(3)
    }
    assert counts == {0: 592, 1: 482, 2: 393}
    assert [row["kept"] for row in rows] == [counts[n] for _, n in ORDER]
    assert {row["size"] for row in rows} == {592}
    assert [row["density"] for row in rows] == [
        counts[n] / 592 for _, n in ORDER
    ]


def test_every_level_starts_where_the_run_started(whole):
    run, _ = whole
    first, *others = [ticket_of(run, 0, "ticket", n) for n in range(3)]
    assert set(first.start) == {"fc1/kernel", "output/kernel"}
    for other in others:
        for name, value in first.start.items():
            assert np.array_equal(value, other.start[name])
        assert first.start_state.keys() == other.start_state.keys()
        for name, value in first.start_state.items():
            assert np.array_equal(value, other.start_state[name])


def test_levels_csv_holds_the_rows(whole):
    run, rows = whole
    with open(run.levels_path, newline="") as file:
        found = list(csv.DictReader(file))
    assert found == [{k: str(v) for k, v in row.items()} for row in rows]


def test_metrics_are_read_at_the_validation_minimum(whole):
    run, rows = whole
    steps = set()
    for row in rows:
        curve = curve_of(run, 0, row["arm"], row["level"])
        assert [int(each["step"]) for each in curve] == [2, 4, 6, 8]
        best = min(curve, key=lambda each: float(each["val_loss"]))
        steps.add(int(best["step"]))
        assert row["early_step"] == int(best["step"])
        for name in ("val_accuracy", "val_loss", "test_accuracy", "test_loss"):
            assert row[name] == float(best[name])
            assert row[f"last_{name}"] == float(curve[-1][name])
        assert row["last_step"] == 8
        assert row["last_loss"] == float(curve[-1]["loss"])
    assert len(steps) > 1  # else this test says little


def test_the_test_set_is_read_at_new_minima_and_at_the_end(whole):
    run, rows = whole
    read = 0
    for row in rows:
        curve = curve_of(run, 0, row["arm"], row["level"])
        losses = [float(each["val_loss"]) for each in curve]
        expected = [
            i == 0 or loss < min(losses[:i]) or i == len(losses) - 1
            for i, loss in enumerate(losses)
        ]
        assert [each["test_loss"] != "" for each in curve] == expected
        assert [each["test_accuracy"] != "" for each in curve] == expected
        read += sum(expected)
    assert read < 4 * len(rows)  # some were not read


def test_times_has_a_row_per_training_and_is_the_only_file_with_times(whole):
    run, _ = whole
    assert trainings_of(run) == [(0, *each) for each in ORDER]
    times = formats.read_csv(os.path.join(run.path, paths.TIMES))
    assert all(float(row["seconds"]) > 0 for row in times)
    days = {row["began"][:10].encode() for row in times}
    for folder, _, names in os.walk(run.path):
        for name in set(names) - {paths.TIMES, paths.TIME, paths.LOCK}:
            with open(os.path.join(folder, name), "rb") as file:
                content = file.read()
            assert b'"seconds"' not in content or name == paths.CONFIG
            assert not any(day in content for day in days), name


def test_a_listener_hears_every_training(lab, tmp_path):
    heard = {"start": [], "begin": [], "advance": [], "end": []}

    class Listener:
        def __getattr__(self, name):
            return lambda *arguments: heard[name].append(arguments)

    _, rows = lab.play(lab.config(), tmp_path, Listener())
    assert heard["start"] == [(9 * 8,)]
    assert sum(steps for (steps,) in heard["advance"]) == 9 * 8
    densities = {row["level"]: row["density"] for row in rows}
    assert heard["begin"] == [(0, arm, n, densities[n]) for arm, n in ORDER]
    assert [row for row, _ in heard["end"]] == rows


def test_what_is_done_is_not_done_again(lab, whole, contents, monkeypatch):
    run, rows = whole
    before, times = contents(run.path), trainings_of(run)

    def trained(*unused):
        raise AssertionError("something was trained again")

    monkeypatch.setattr(trainer.Trainer, "__call__", trained)
    assert play.play(lab.experiment(lab.config()), run) == rows
    assert contents(run.path) == before and trainings_of(run) == times


def test_a_new_process_gives_the_same_bytes(lab, whole, tmp_path, contents):
    config = lab.config()
    run = directory.RunDirectory.of(config, tmp_path)
    run.create(config)
    play.play(experiment.Experiment(config), run)
    assert contents(run.path) == contents(whole[0].path)


@pytest.mark.parametrize("position", range(5))
def test_a_stopped_run_ends_as_one_that_was_not(
    position, lab, plain, tmp_path, contents
):
    config = lab.config(PLAIN)
    assert lab.play_until(position, config, tmp_path)
    order = [("ticket", 0), ("ticket", 1), ("ticket", 2)]
    order += [("shuffled_0", 1), ("shuffled_0", 2)]
    done = directory.RunDirectory.of(config, tmp_path).levels()
    assert done == [(0, *each) for each in order[:position]]
    run, rows = lab.play(config, tmp_path)
    assert rows == plain[1]
    assert contents(run.path) == contents(plain[0].path)
    assert trainings_of(run) == [(0, *each) for each in order]


def test_a_stop_in_one_shot_changes_nothing(lab, whole, tmp_path, contents):
    assert lab.play_until(4, lab.config(), tmp_path)
    run, _ = lab.play(lab.config(), tmp_path)
    assert contents(run.path) == contents(whole[0].path)


@pytest.mark.parametrize("position", [1, 3])
def test_one_experiment_can_be_played_on_after_a_stop(
    position, lab, plain, tmp_path, contents, monkeypatch
):
    """As in a notebook, where object and traceback outlive the stop."""
    config = lab.config(PLAIN)
    chosen = lab.experiment(config)
    monkeypatch.setattr(lab, "experiment", lambda config: chosen)
    with pytest.raises(BaseException, match="stopped") as stop:
        lab.play(config, tmp_path, lab.stop_at(position))
    run, rows = lab.play(config, tmp_path)
    assert rows == plain[1]
    assert contents(run.path) == contents(plain[0].path)
    del stop


def test_a_stop_at_a_write_changes_nothing(
    lab, tmp_path, contents, monkeypatch
):
    config = lab.config({**PLAIN, "prune.levels": 1, "controls.names": ()})
    expected = contents(lab.play(config, tmp_path / "whole")[0].path)
    write = files.write_whole
    # Of two trainings: metrics, ticket, record, levels.csv, times.csv; then
    # levels.csv once more, as number 11. Number 0 is config.json.
    for last in (2, 3, 4, 5, 11):
        count = itertools.count()

        def stop(path, content, last=last, count=count):
            if next(count) == last:
                raise KeyboardInterrupt
            write(path, content)

        monkeypatch.setattr(files, "write_whole", stop)
        stopped = False
        try:
            lab.play(config, tmp_path / str(last))
        except KeyboardInterrupt:
            stopped = True
        monkeypatch.setattr(files, "write_whole", write)
        assert stopped, last
        run, _ = lab.play(config, tmp_path / str(last))
        assert contents(run.path) == expected, last


def test_a_longer_run_extends_a_shorter_one(lab, long, tmp_path, contents):
    short, _ = lab.play(longer(lab, 3, 1), tmp_path)
    before = contents(short.path)
    run, _ = lab.play(longer(lab, 5, 1), tmp_path)
    assert run.path == short.path
    after = contents(run.path)
    levels = [name for name in before if name.startswith("replicate_")]
    assert len(levels) == 4 * 3 + 3 * 2
    assert all(after[name] == before[name] for name in levels)
    assert trainings_of(run) == [
        *[(0, "ticket", n) for n in range(6)],
        *[(0, "reinitialized_0", n) for n in range(1, 6)],
    ]

    # Another replicate extends it again, to what it is when played at once.
    run, rows = lab.play(longer(lab, 5, 2), tmp_path)
    assert rows == long[1]
    for where in run.levels():
        if where[1] == "ticket":
            one, two = (ticket_of(each, *where) for each in (run, long[0]))
            assert one.mask == two.mask and one.metrics == two.metrics
            for part in ("start", "start_state", "end", "end_state"):
                values, others = getattr(one, part), getattr(two, part)
                assert values.keys() == others.keys()
                assert all(np.array_equal(values[n], others[n]) for n in values)

    # A shorter one takes nothing away.
    before = contents(run.path)
    lab.play(longer(lab, 3, 1), tmp_path)
    assert contents(run.path) == before


def test_an_extended_run_has_the_bytes_of_one_played_at_once(
    lab, plain, tmp_path, contents
):
    lab.play(lab.config({**PLAIN, "prune.levels": 1}), tmp_path)
    run, _ = lab.play(lab.config(PLAIN), tmp_path)
    found, expected = contents(run.path), contents(plain[0].path)
    assert found.keys() == expected.keys()
    assert [n for n in found if found[n] != expected[n]] == []


def test_replicates_differ_and_depend_on_nothing_trained_before(
    lab, long, tmp_path
):
    run, rows = long
    first, second = (ticket_of(run, n, "ticket", 0) for n in (0, 1))
    for name in first.start:
        assert not (first.start[name] == second.start[name]).any()
    tickets = [row for row in rows if row["arm"] == "ticket"]
    for seed in ("init_seed", "data_order_seed", "dropout_seed"):
        assert len({row[seed] for row in tickets}) == 2
    bare = lab.config(
        {
            "controls.names": (),
            "controls.one_shot": False,
            "prune.levels": 5,
            "replicates": 2,
            "train.steps": 4,
        }
    )
    alone = lab.play(bare, tmp_path)[1]
    assert alone == tickets


def test_a_run_stopped_in_its_second_replicate_continues(
    lab, tmp_path, contents, long
):
    # Of 11 trainings a replicate, in level 1 of the second ticket.
    assert lab.play_until(12, longer(lab, 5, 2), tmp_path)
    run, _ = lab.play(longer(lab, 5, 2), tmp_path)
    assert contents(run.path) == contents(long[0].path)


def test_only_keep_all_keeps_the_tickets_of_controls(whole, kept, contents):
    for run, keeps_all in ((whole[0], False), (kept[0], True)):
        for where in run.levels():
            there = os.path.exists(run.file(*where, paths.TICKET))
            assert there == (where[1] == "ticket" or keeps_all), where
    rows = [row for row in kept[1] if not row["arm"].endswith("_1")]
    assert rows == whole[1]
    control = ticket_of(kept[0], 0, "shuffled_0", 2)
    assert control.metrics["val_loss"] == rows[-1]["val_loss"]
    for name, value in control.weights("end").items():
        assert not value[~control.mask[name]].any()
        assert value[control.mask[name]].all()


def test_an_unknown_keep_is_refused(lab, tmp_path):
    with pytest.raises(ValueError, match=r"keep.*'tickets', 'all'.*'some'"):
        lab.play(lab.config(), tmp_path, keep="some")


def test_one_shot_prunes_the_dense_network_to_the_same_counts(kept):
    run, _ = kept
    dense = ticket_of(run, 0, "ticket", 0)
    shots = [ticket_of(run, 0, "one_shot", level) for level in (1, 2)]
    tickets = [ticket_of(run, 0, "ticket", level) for level in (1, 2)]
    # The first pruning is the same either way.
    assert shots[0].mask == tickets[0].mask
    for name in shots[0].end:
        assert np.array_equal(shots[0].end[name], tickets[0].end[name])
    assert shots[1].mask.kept_by_name == tickets[1].mask.kept_by_name
    assert shots[1].mask != tickets[1].mask
    # By hand: the largest weights of the dense network, layer by layer.
    trained = dense.weights("end")
    for shot in shots:
        for name, value in trained.items():
            kept = shot.mask.kept_by_name[name]
            lowest = np.sort(np.abs(value).ravel())[-kept]
            assert np.array_equal(shot.mask[name], np.abs(value) >= lowest)
            assert np.array_equal(shot.start[name], dense.start[name])


def test_controls_keep_what_they_should(kept):
    run, _ = kept
    for level in (1, 2):
        ticket = ticket_of(run, 0, "ticket", level)
        for repeat in (0, 1):
            anew = ticket_of(run, 0, f"reinitialized_{repeat}", level)
            assert anew.mask == ticket.mask
            moved = ticket_of(run, 0, f"shuffled_{repeat}", level)
            assert moved.mask != ticket.mask
            assert moved.mask.kept_by_name == ticket.mask.kept_by_name
            for name, start in ticket.start.items():
                assert np.array_equal(moved.start[name], start)
                assert not (anew.start[name] == start).any()


def test_repeats_of_a_control_differ_and_say_their_seed(kept):
    run, rows = kept
    for level in (1, 2):
        one, two = (
            ticket_of(run, 0, f"reinitialized_{n}", level) for n in (0, 1)
        )
        assert not (one.start["fc1/kernel"] == two.start["fc1/kernel"]).any()
        one, two = (ticket_of(run, 0, f"shuffled_{n}", level) for n in (0, 1))
        assert one.mask != two.mask
    for row in rows:
        arm = row["arm"]
        if arm in ("ticket", "one_shot"):
            assert row["control_seed"] == ""
        else:
            repeat = int(arm[-1])
            expected = seeds.stream(0, "controls", 0, repeat)
            assert row["control_seed"] == expected
            made = ticket_of(run, 0, arm, row["level"]).provenance
            assert made["control_seed"] == expected


@pytest.mark.parametrize(
    "names",
    [
        ("reinitialize", "reinitialize"),
        ("shuffle", "mine_too:shuffled"),
    ],
)
def test_two_arms_of_one_name_are_refused(names, lab, tmp_path, monkeypatch):
    """One would be taken for the other, which then is never trained."""
    (tmp_path / "mine_too.py").write_text("def shuffled(*each): return each[0]")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="controls"):
        lab.play(lab.config({"controls.names": names}), tmp_path)


def test_a_second_player_is_kept_out(lab, whole):
    with whole[0].lock(), pytest.raises(RunError, match="Another process"):
        play.play(lab.experiment(lab.config()), whole[0])
