"""Verify: a clean run has no differences, each kind of damage its sentence."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery import sealed_json
from keras_lottery.pruning.mask import Mask
from keras_lottery.runs import directory
from keras_lottery.runs import formats
from keras_lottery.runs import paths
from keras_lottery.runs import verify
from keras_lottery.tickets import ticket_file
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.training import state_file

WHERE = (0, "ticket", 1)
NONE = {"controls.names": (), "controls.one_shot": False}


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the tiny run, to be damaged."""
    path = tmp_path / os.path.basename(whole[0].path)
    shutil.copytree(whole[0].path, path)
    return directory.RunDirectory(path)


def ticket_path(run, level=1):
    return pathlib.Path(run.file(0, "ticket", level, paths.TICKET))


def replace_ticket(run, level, ticket):
    """Writes another ticket, with the checksum that is right for it."""
    content = ticket_file.pack(ticket)
    ticket_path(run, level).write_bytes(content)
    edit(run, (0, "ticket", level), hash_of=content)


def edit(run, where, hash_of=None, **row):
    path = pathlib.Path(run.file(*where, paths.DONE))
    record = formats.read_sealed(path)
    record["row"].update(row)
    if hash_of is not None:
        digest = hashlib.sha256(hash_of).hexdigest()
        record["sha256"][paths.TICKET] = digest
        adopt(run, where, digest)
    path.write_bytes(sealed_json.pack(record))


def adopt(run, where, digest):
    """Has the levels that came from a ticket say that they came from it."""
    for other in run.levels():
        of = {"dense": 0, "ticket": other[2] - (other[1] == "ticket")}
        path = pathlib.Path(run.file(*other, paths.DONE))
        record = formats.read_sealed(path)
        for role in record["from"]:
            if of[role] == where[2]:
                record["from"][role] = digest
        path.write_bytes(sealed_json.pack(record))


def reseal_config(run, change):
    path = pathlib.Path(run.path, paths.CONFIG)
    found = json.loads(path.read_bytes())
    sealed = "checksum" in found
    found.pop("checksum", None)
    change(found["config"])
    content = sealed_json.pack(found) if sealed else json.dumps(found).encode()
    path.write_bytes(content)


def test_a_clean_run_has_no_differences(whole):
    told = []
    assert verify.differences_of_run(whole[0], lambda *w: told.extend(w)) == []
    assert told == whole[0].levels()


def test_a_copied_run_is_as_good(run):
    assert verify.differences_of_run(run) == []


def test_a_run_with_no_level_yet_has_no_differences(lab, tmp_path):
    config = lab.config()
    new = directory.RunDirectory.of(config, tmp_path)
    new.create(config)
    assert verify.differences_of_run(new) == []


@pytest.mark.parametrize("name", [paths.TICKET, paths.METRICS])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_a_flipped_byte_is_found(name, place, run):
    path = pathlib.Path(run.file(*WHERE, name))
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    found = verify.differences_of_run(run)
    assert found[0] == f"0/ticket/1/{name} differs from its checksum"
    # A damaged ticket cannot be read either; a curve is read by nobody here.
    assert len(found) == (2 if name == paths.TICKET else 1)


@pytest.mark.parametrize("name", [paths.TICKET, paths.METRICS])
def test_a_deleted_file_is_found(name, run):
    os.unlink(run.file(*WHERE, name))
    assert verify.differences_of_run(run) == [f"0/ticket/1/{name} is missing"]


def test_swapped_tickets_are_found(run):
    one, two = (ticket_path(run, level).read_bytes() for level in (1, 2))
    ticket_path(run, 1).write_bytes(two)
    ticket_path(run, 2).write_bytes(one)
    found = verify.differences_of_run(run)
    for level, other in ((1, 2), (2, 1)):
        assert (
            f"0/ticket/{level}/ticket.safetensors differs from its checksum"
            in found
        )
        assert (
            f"0/ticket/{level}: level is {other} in the ticket and {level} in "
            "its row" in found
        )
    # With the checksums swapped too, what is inside still gives it away.
    edit(run, (0, "ticket", 1), hash_of=two)
    edit(run, (0, "ticket", 2), hash_of=one)
    found = verify.differences_of_run(run)
    assert not any("checksum" in each for each in found)
    assert "0/ticket/1: kept is 393 in the ticket and 482 in its row" in found
    assert any(
        "keeps weights that the level before removed" in f for f in found
    )


def test_an_edited_table_is_found(run):
    path = pathlib.Path(run.levels_path)
    text = path.read_text()
    path.write_text(text.replace(",482,", ",481,", 1))
    expected = ["levels.csv is not what the levels say"]
    assert verify.differences_of_run(run) == expected
    path.write_text("\n".join(text.split("\n")[:-2]) + "\n")
    assert verify.differences_of_run(run) == expected
    path.unlink()
    assert verify.differences_of_run(run) == ["levels.csv is missing"]


def test_a_table_of_other_bytes_is_found(run):
    with open(run.levels_path, "r+b") as file:
        file.seek(20)
        file.write(b"\xff")
    [sentence] = verify.differences_of_run(run)
    assert "levels.csv" in sentence


def test_an_edited_row_is_found(run):
    edit(run, WHERE, val_accuracy=0.99)
    found = verify.differences_of_run(run)
    assert found[0] == "levels.csv is not what the levels say"
    assert found[1].startswith("0/ticket/1: val_accuracy is 0.")
    assert found[1].endswith(" in the ticket and 0.99 in its row")
    assert len(found) == 2


def test_an_edited_row_of_a_control_is_found_by_its_curve(run):
    """It has no ticket: only its curve says what came out."""
    edit(run, (0, "shuffled_0", 2), val_accuracy=0.99)
    run.save_tables()
    found = verify.differences_of_run(run)
    assert len(found) == 1 and "shuffled_0" in found[0]


def test_a_renamed_directory_is_found(run):
    path = os.path.join(os.path.dirname(run.path), "mine-000000000000")
    os.rename(run.path, path)
    [sentence] = verify.differences_of_run(directory.RunDirectory.open(path))
    assert sentence == (
        "the directory is called mine-000000000000, its configuration "
        f"{os.path.basename(run.path)}"
    )


def test_an_edited_configuration_is_found(run):
    reseal_config(run, lambda config: config["prune"].update(rate=0.5))
    sentences = verify.differences_of_run(run)
    assert sentences[0].startswith("the directory is called")
    assert (
        "0/ticket/1: fc1/kernel: keeps 410 weights, the schedule says 256"
        in sentences
    )


def test_wrong_counts_are_found(run):
    ticket = Ticket.load(ticket_path(run, 2))
    bits = {name: ticket.mask[name].copy() for name in ticket.mask}
    place = tuple(np.argwhere(bits["fc1/kernel"])[0])
    bits["fc1/kernel"][place] = False
    end = {**ticket.end, "fc1/kernel": ticket.end["fc1/kernel"][1:]}
    wrong = dataclasses.replace(ticket, mask=Mask(bits), end=end)
    replace_ticket(run, 2, wrong)
    assert verify.differences_of_run(run) == [
        "0/ticket/2: kept is 392 in the ticket and 393 in its row",
        "0/ticket/2: fc1/kernel: keeps 327 weights, the schedule says 328",
    ]


def test_revived_weights_are_found(run):
    ticket, before = (Ticket.load(ticket_path(run, n)) for n in (2, 1))
    bits = {name: ticket.mask[name].copy() for name in ticket.mask}
    name = "output/kernel"
    out = tuple(np.argwhere(bits[name])[0])
    back = tuple(np.argwhere(~before.mask[name])[0])
    bits[name][out], bits[name][back] = False, True
    replace_ticket(run, 2, dataclasses.replace(ticket, mask=Mask(bits)))
    [sentence] = verify.differences_of_run(run)
    index = ", ".join(map(str, back))
    assert sentence == (
        "0/ticket/2: its mask keeps weights that the level before removed: "
        f"{name}[{index}] is kept, and was removed before"
    )


def test_another_start_is_found(run):
    ticket = Ticket.load(ticket_path(run, 2))
    start = {**ticket.start, "fc1/kernel": ticket.start["fc1/kernel"] + 1}
    replace_ticket(run, 2, dataclasses.replace(ticket, start=start))
    was = ticket.start["fc1/kernel"][0, 0]
    assert verify.differences_of_run(run) == [
        "0/ticket/2: its start is not that of level 0: fc1/kernel[0, 0] is "
        f"{start['fc1/kernel'][0, 0]}, expected {was}"
    ]


def test_numbers_that_are_none_are_found(run):
    ticket = Ticket.load(ticket_path(run, 2))
    end = {name: value.copy() for name, value in ticket.end.items()}
    end["output/kernel"][3] = np.nan
    wrong = dataclasses.replace(ticket, end=end)
    sentence = "the end of output/kernel[3] is nan"
    assert verify.differences_of_ticket(wrong) == [sentence]
    replace_ticket(run, 2, wrong)
    assert verify.differences_of_run(run) == [f"0/ticket/2: {sentence}"]


def test_a_sparse_level_0_is_found(run):
    ticket = Ticket.load(ticket_path(run, 1))
    wrong = dataclasses.replace(ticket, level=0)
    assert verify.differences_of_ticket(wrong) == [
        "level 0 is dense, and its mask is not"
    ]
    assert verify.differences_of_ticket(ticket) == []


def test_a_level_that_vanished_is_found(run):
    shutil.rmtree(os.path.dirname(run.file(*WHERE, paths.DONE)))
    assert verify.differences_of_run(run) == [
        "levels.csv is not what the levels say",
        "times.csv is not what the levels say",
        "0/ticket/1 is missing, and what came from it is there",
    ]


def test_what_cannot_be_read_is_a_difference_and_the_rest_is_looked_at(run):
    """A damaged record, and another fault in another level."""
    done = run.file(*WHERE, paths.DONE)
    pathlib.Path(done).write_bytes(b"{")
    os.unlink(run.file(0, "shuffled_0", 2, paths.METRICS))
    found = verify.differences_of_run(run)
    assert len(found) == 2
    assert f"{done} is damaged" in found[0]
    assert found[1] == "0/shuffled_0/2/metrics.csv is missing"


def test_without_a_configuration_tickets_are_still_compared(run):
    """Their masks and numbers, among themselves."""
    ticket = Ticket.load(ticket_path(run, 2))
    end = {name: np.full_like(v, np.inf) for name, v in ticket.end.items()}
    dataclasses.replace(ticket, end=end).save(ticket_path(run, 2))
    pathlib.Path(run.path, paths.CONFIG).write_bytes(b"{}")
    found = verify.differences_of_run(run)
    assert "config.json" in found[0]
    assert any(x.startswith("0/ticket/2: the end of ") for x in found)


def test_a_ticket_that_was_not_the_parent_is_found(run):
    """Its successor came from another, whole as both are."""
    ticket = Ticket.load(ticket_path(run, 1))
    other = {**ticket.provenance, "note": "trained again, came out otherwise"}
    content = ticket_file.pack(dataclasses.replace(ticket, provenance=other))
    ticket_path(run, 1).write_bytes(content)
    path = pathlib.Path(run.file(*WHERE, paths.DONE))
    record = formats.read_sealed(path)
    record["sha256"][paths.TICKET] = hashlib.sha256(content).hexdigest()
    path.write_bytes(sealed_json.pack(record))
    text = "it came from another ticket/1 than is there"
    came = [where for where in run.levels() if where[1:] == ("ticket", 2)]
    came += [w for w in run.levels() if w[1] != "ticket" and w[2] == 1]
    found = verify.differences_of_run(run)
    assert "0/ticket/2: " + text in found
    assert all(text in each for each in found)
    with_tickets = [w for w in came if paths.TICKET in run.checksums(*w)]
    assert len(found) == len(with_tickets)


def test_nothing_of_a_run_is_imported(run, tmp_path, monkeypatch):
    (tmp_path / "of_a_stranger.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)

    def change(config):
        config["data"]["name"] = "of_a_stranger:f"
        config["prune"]["criterion"] = "of_a_stranger:f"

    reseal_config(run, change)
    found = verify.differences_of_run(run)
    assert "the directory is called" in found[0]


class TestTheTicketAlone:
    """Its own schedule is enough to count."""

    @pytest.fixture(scope="class")
    @classmethod
    def tickets(cls):
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(2)]
        )
        schedule = lottery.IterativePruning(0.5, 2)
        found = lottery.find_tickets(
            model, lambda *given: None, schedule, steps=1
        )
        return list(found)

    def test_clean(self, tickets):
        assert [t.mask.kept for t in tickets] == [30, 15, 8]  # 30 - round(22.5)
        assert [verify.differences_of_ticket(t) for t in tickets] == [[]] * 3

    def test_counts(self, tickets):
        wrong = dataclasses.replace(tickets[1], level=2)
        [sentence] = verify.differences_of_ticket(wrong)
        assert sentence.endswith(": keeps 15 weights, the schedule says 8")

    @pytest.mark.parametrize("recorded", [3, "x", {"*": 3}, {"*": {}}, []])
    def test_a_schedule_that_is_none(self, tickets, recorded):
        """Of a stranger's ticket; falsy ones are none."""
        provenance = {**tickets[1].provenance, "schedule": recorded}
        wrong = dataclasses.replace(tickets[1], provenance=provenance)
        found = verify.differences_of_ticket(wrong)
        assert len(found) == bool(recorded)

    def test_a_loss_that_is_none(self, tickets):
        wrong = dataclasses.replace(
            tickets[1], metrics={"last_loss": float("nan"), "auc": float("nan")}
        )
        assert verify.differences_of_ticket(wrong) == ["last_loss is nan"]

    def test_numbers_beside_the_mask(self, tickets):
        state = {"dense/bias": np.array([0, np.inf, 0, 0, 0], np.float32)}
        wrong = dataclasses.replace(tickets[1], end_state=state)
        assert verify.differences_of_ticket(wrong) == [
            "the end of dense/bias[1] is inf"
        ]


@pytest.mark.parametrize(
    "changes",
    [
        {"controls.names": ("randomize",)},
        {"controls.names": ("reinitialize_signed",), "controls.one_shot": True},
        {"rewind.name": "learning_rate", "rewind.step": 2},
        {"rewind.name": "learning_rate"},
        {"rewind.name": "weights", "rewind.step": 2},
        {"rewind.name": "fine_tune"},
        {"rewind.name": "none"},
        {"rewind.name": "continue"},
        {"prune.layers": ("fc1",), "prune.rates": ()},
        {"prune.allocation": "global", "prune.rates": ()},
    ],
    ids=[
        "randomize",
        "signed",
        "learning_rate",
        "learning_rate_0",
        "weights_2",
        "fine_tune",
        "none",
        "continue",
        "fc1",
        "global",
    ],
)
def test_other_clean_runs_have_no_differences(changes, lab, tmp_path):
    config = lab.config({**NONE, "train.steps": 4, **changes})
    run, _ = lab.play(config, tmp_path, keep="all")
    assert verify.differences_of_run(run) == []


@pytest.mark.parametrize(
    "rewind, step, file, sentence",
    [
        ("weights", 2, paths.POINT, "0/ticket/0: point.safetensors is not its "
         "start: fc1/kernel[0, 0] is "),
        ("none", 0, paths.END, "0/ticket/2: end.safetensors is not its end: "
         "fc1/kernel[0, 0] is "),
    ],
)  # fmt: skip
def test_another_state_to_go_on_from_is_found(
    rewind, step, file, sentence, lab, tmp_path
):
    """With the checksum that is right for it."""
    config = lab.config(
        {**NONE, "train.steps": 4, "rewind.name": rewind, "rewind.step": step}
    )
    run, _ = lab.play(config, tmp_path)
    level = 0 if file == paths.POINT else 2
    where = (0, "ticket", level)
    path = pathlib.Path(run.file(*where, file))
    taken = state_file.read(path)
    taken.model["fc1/kernel"][0, 0] += 1
    path.write_bytes(state_file.pack(taken))
    done = pathlib.Path(run.file(*where, paths.DONE))
    record = formats.read_sealed(done)
    record["sha256"][file] = hashlib.sha256(path.read_bytes()).hexdigest()
    done.write_bytes(sealed_json.pack(record))
    [found] = verify.differences_of_run(run)
    assert found.startswith(sentence)


def test_a_start_that_is_not_the_end_before_is_found(lab, tmp_path):
    """Of a rewind that keeps weights."""
    config = lab.config({**NONE, "train.steps": 4, "rewind.name": "fine_tune"})
    run, _ = lab.play(config, tmp_path)
    ticket = Ticket.load(ticket_path(run, 1))
    place = tuple(np.argwhere(ticket.mask["fc1/kernel"])[0])
    ticket.start["fc1/kernel"][place] += 1
    replace_ticket(run, 1, ticket)
    [found] = verify.differences_of_run(run)
    index = ", ".join(map(str, place))
    assert found.startswith(
        "0/ticket/1: its start is not the end of the level before: "
        f"fc1/kernel[{index}] is "
    )


def test_a_metric_that_is_no_number_is_no_difference(run):
    """Such as a correlation with a constant."""
    for level in (0, 1, 2):
        ticket = Ticket.load(ticket_path(run, level))
        metrics = {**ticket.metrics, "val_accuracy": float("nan")}
        changed = dataclasses.replace(ticket, metrics=metrics)
        replace_ticket(run, level, changed)
        edit(run, (0, "ticket", level), val_accuracy=float("nan"))
    run.save_tables()
    found = verify.differences_of_run(run)
    assert [
        each for each in found if "nan is" in each or "is nan" in each
    ] == []
