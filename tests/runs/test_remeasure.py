"""Numbers of a run, reproduced from the end weights of its tickets."""

import dataclasses
import json
import os
import pathlib
import resource
import shutil

import numpy as np
import pytest

from keras_lottery import sealed_json
from keras_lottery.runs import directory
from keras_lottery.runs import formats
from keras_lottery.runs import paths
from keras_lottery.runs import remeasure
from keras_lottery.tickets.ticket import Ticket

pytestmark = pytest.mark.thorough


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the tiny run, to be changed."""
    path = tmp_path / os.path.basename(whole[0].path)
    shutil.copytree(whole[0].path, path)
    return directory.RunDirectory(path)


def change_config(run, **changes):
    """Changes settings by dotted path, `__` for dots, and seals again."""
    path = pathlib.Path(run.path, paths.CONFIG)
    found = json.loads(path.read_bytes())
    found.pop("checksum", None)
    for dotted, value in changes.items():
        *sections, name = dotted.split("__")
        tree = found["config"]
        for section in sections:
            tree = tree[section]
        tree[name] = value
    path.write_bytes(sealed_json.pack(found))
    # Levels are of a configuration: seal them again, too.
    other = directory.RunDirectory(run.path)
    for where in run.levels():
        done = pathlib.Path(run.file(*where, paths.DONE))
        record = formats.read_sealed(done)
        record["run"] = other.identity
        done.write_bytes(sealed_json.pack(record))
    return other


def change_ticket(run, level, **changes):
    """Replaces fields of a ticket."""
    path = run.file(0, "ticket", level, paths.TICKET)
    dataclasses.replace(Ticket.load(path), **changes).save(path)


def change_rows(run, **changes):
    """Changes what the rows of all levels record."""
    for where in run.levels():
        done = pathlib.Path(run.file(*where, paths.DONE))
        record = formats.read_sealed(done)
        record["row"].update(changes)
        done.write_bytes(sealed_json.pack(record))


def test_a_run_is_reproduced_bit_for_bit(run):
    told = []
    measured = remeasure.of_run(run, lambda where: told.append(where))
    assert measured == (
        (),
        "metrics of 3 tickets measured again: the same, bit for bit",
    )
    assert told == [(0, "ticket", level) for level in (0, 1, 2)]


def test_controls_that_were_kept_are_measured_too(lab, tmp_path):
    config = lab.config({"train.steps": 4, "prune.levels": 1})
    run, rows = lab.play(config, tmp_path, keep="all")
    measured = remeasure.of_run(run)
    assert measured.differences == ()
    assert measured.note.startswith(f"metrics of {len(rows)} tickets measured")


def test_end_weights_that_are_others_are_found(run):
    """Sparse, finite and nested as they are."""
    ticket = Ticket.load(run.file(0, "ticket", 1, paths.TICKET))
    end = {name: -value for name, value in ticket.end.items()}
    change_ticket(run, 1, end=end)
    measured = remeasure.of_run(run)
    named = [each.split(" is ")[0] for each in measured.differences]
    losses = [f"0/ticket/1: last_{part}_loss" for part in ("val", "test")]
    assert set(losses) <= set(named)
    assert all(each.startswith("0/ticket/1: ") for each in named)
    assert measured.note.endswith("not reproduced")


def test_a_number_that_is_another_is_found(run):
    ticket = Ticket.load(run.file(0, "ticket", 2, paths.TICKET))
    right = ticket.metrics["last_test_loss"]
    metrics = {**ticket.metrics, "last_test_loss": right + 0.1}
    change_ticket(run, 2, metrics=metrics)
    [sentence] = remeasure.of_run(run).differences
    assert sentence.startswith(
        f"0/ticket/2: last_test_loss is {right + 0.1} in the ticket, and its "
        f"end weights give {right}"
    )


class TestConditions:
    """The last bit counts where all that it depends on is the same."""

    @pytest.fixture
    def off(self, run):
        """The run, with one loss a last bit off."""
        ticket = Ticket.load(run.file(0, "ticket", 1, paths.TICKET))
        loss = float(np.nextafter(np.float32(ticket.metrics["last_val_loss"]),
                                  np.float32(9)))  # fmt: skip
        metrics = {**ticket.metrics, "last_val_loss": loss}
        change_ticket(run, 1, metrics=metrics)
        return run

    def test_the_same_machine(self, off):
        """Its processor is on record."""
        [sentence] = remeasure.of_run(off).differences
        assert sentence.startswith("0/ticket/1: last_val_loss is ")
        assert "other conditions" not in sentence

    def test_another_version(self, off):
        """What differs is named."""
        change_rows(off, version_tensorflow="2.0.0", processor="Q")
        measured = remeasure.of_run(off)
        assert measured.differences == ()
        assert measured.note.endswith(
            "not bit for bit: not as recorded here are processor, "
            "version_tensorflow"
        )


class TestLeftOut:
    """It says why, and nothing of a stranger's is run."""

    def note(self, run, **changes):
        """Returns the note, where nothing is measured."""
        measured = remeasure.of_run(change_config(run, **changes))
        assert measured.differences == ()
        text = "metrics not measured again: "
        assert measured.note.startswith(text)
        return measured.note.removeprefix(text)

    @pytest.mark.parametrize(
        "changes",
        [
            {"data__name": "of_a_stranger:f"},
            {"model__name": "of_a_stranger:f"},
            {"train__loss": "of_a_stranger:f"},
            {"train__metrics": ["accuracy", "of_a_stranger:f"]},
            {"train__loss": "os.system"},
            {"train__loss": "package>Name"},
            {"data__name": "../../etc"},
        ],
    )
    def test_what_is_not_in_this_package(
        self, changes, run, tmp_path, monkeypatch
    ):
        (tmp_path / "of_a_stranger.py").write_text("raise SystemExit(3)")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        assert "is not imported to verify" in self.note(run, **changes)

    def test_functions_that_are_not_needed_do_not_matter(self, run):
        """Optimizer, criterion and controls: nothing is trained."""
        name = "of_a_stranger:f"
        other = change_config(
            run, prune__criterion=name, prune__allocation=name,
            controls__names=[name], train__optimizer=name,
            distribute__strategy=name,
        )  # fmt: skip
        measured = remeasure.of_run(other)
        assert measured.note.endswith("the same, bit for bit")

    def test_data_that_are_not_at_hand(self, run, tmp_path, monkeypatch):
        """Nothing is downloaded."""
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
        note = self.note(run, data__name="mnist")
        assert "Unknown data set 'mnist'" in note

    def test_arguments_of_a_data_set(self, run):
        note = self.note(run, data__arguments={"length": 10**9})
        assert note == "its data set takes arguments of its own"

    def test_averages(self, run):
        """Their weights are not those that were measured."""
        note = self.note(run, train__arguments={"use_ema": True})
        assert "averages" in note

    @pytest.mark.parametrize(
        "changes",
        [
            {"model__arguments": {"hidden": [10**9, 10**9]}},
            {"model__width": 1e9},
            {"model__width": 1e300},
            {"model__arguments": {"hidden": [8] * 100_000}},
            {"model__name": "resnet20", "model__arguments": {"depth": 6002}},
            {"model__name": "conv6", "model__arguments": {"depth": 10**9}},
            {"model__name": "vgg19", "model__width": 1e5},
            {"model__arguments": {"hidden": "many"}},
            {"model__arguments": {"hidden": [[8]]}},
            {"model__arguments": {"input_shape": [10**6, 10**6, 10**6]}},
            {"model__arguments": {"name": 3}},
            {"data__rows": 10**12, "model__width": 2.0},
        ],
        ids=lambda changes: str(changes)[:50],
    )
    def test_sizes_take_no_memory(self, changes, run):
        """A network that is not the tickets' is never given weights."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.note(run, **changes)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 200 * 1024  # kB

    def test_networks_are_built_as_ever_afterwards(self, run):
        """What was looked at without weights leaves nothing behind."""
        self.note(run, model__width=1e6)
        measured = remeasure.of_run(change_config(run, model__width=1.0))
        assert measured.note.endswith("the same, bit for bit")


def test_without_tickets_there_is_nothing_to_measure(lab, tmp_path):
    config = lab.config()
    new = directory.RunDirectory.of(config, tmp_path)
    new.create(config)
    assert remeasure.of_run(new).note.endswith("no ticket is there")
