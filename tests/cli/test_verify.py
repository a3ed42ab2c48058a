"""`verify`: every kind of damage is a line, and exit code 1."""

import csv
import dataclasses
import hashlib
import shutil

import numpy as np
import pytest

from keras_lottery import sealed_json
from keras_lottery.pruning.mask import Mask
from keras_lottery.runs import formats
from keras_lottery.tickets.ticket import Ticket


def folder(run, level=1, arm="ticket"):
    return run / "replicate_0" / arm / f"level_{level}"


def rewrite(run, level, change):
    """Changes a ticket, and makes checksums and rows fit the change."""
    place = folder(run, level)
    path = place / "ticket.safetensors"
    ticket = change(Ticket.load(path))
    ticket.save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    reseal(
        place,
        lambda record: (
            record["sha256"].update({"ticket.safetensors": digest}),
            record["row"].update(kept=ticket.mask.kept),
        ),
    )
    for other in run.glob("replicate_0/*/level_*"):
        adopt(other, level, digest)


def adopt(place, level, digest):
    """Has a level that came from a ticket say that it came from it."""
    number = int(place.name.split("_")[1])
    of = {"dense": 0, "ticket": number - (place.parent.name == "ticket")}

    def change(record):
        for role in record["from"]:
            if of[role] == level:
                record["from"][role] = digest

    reseal(place, change)


def reseal(place, change):
    """Changes the record of a level, and makes its checksum fit."""
    path = place / "level.json"
    record = formats.read_sealed(path)
    change(record)
    path.write_bytes(sealed_json.pack(record))


def differences(told):
    return [x for x in told.out.splitlines() if x.startswith("DIFFERS")]


def test_a_run_is_as_it_says(finished, answer):
    told = answer("verify", finished)
    assert told.code == 0
    assert told.out == (
        "metrics of 3 tickets measured again: the same, bit for bit\n"
        f"{finished}: 9 levels: as it says\n"
    )
    assert told.err == ""


def test_nodata_measures_nothing(finished, answer, monkeypatch):
    from keras_lottery.runs import remeasure

    monkeypatch.delattr(remeasure, "of_run")
    told = answer("verify", "--nodata", finished)
    assert told.code == 0
    assert told.out == f"{finished}: 9 levels: as it says\n"


def test_numbers_that_are_not_reproduced_are_differences(finished, answer):
    """All files fit, and the end weights give other numbers."""

    def turned(ticket):
        end = {name: -value for name, value in ticket.end.items()}
        return dataclasses.replace(ticket, end=end)

    rewrite(finished, 1, turned)
    assert answer("verify", "--nodata", finished).code == 0
    told = answer("verify", finished)
    assert told.code == 1
    assert "metrics of 3 tickets measured again: not reproduced" in told.out
    lines = differences(told)
    assert lines[0].startswith("DIFFERS  0/ticket/1: last_val_loss is ") or (
        "last_val_accuracy" in lines[0]
    )
    assert {line.split()[1] for line in lines} == {"0/ticket/1:"}


def test_without_the_data_it_says_so(tmp_path, answer, finished, monkeypatch):
    """Not a difference: the files are as they say."""
    from keras_lottery.data import sources

    def absent(*given, **more):
        raise ValueError("there are no digits here")

    monkeypatch.setitem(sources.DATA_SETS, "digits", absent)
    told = answer("verify", finished)
    assert told.code == 0
    assert "metrics not measured again: ValueError: " in told.out


def test_help_says_what_is_measured_and_how_to_leave_it_out(answer):
    told = answer("verify", "--help")
    assert told.code == 0
    assert "--[no]data" in told.out and "bit for bit" in told.out


def test_a_ticket_is_as_it_says_weight_by_weight(finished, answer):
    told = answer("verify", folder(finished) / "ticket.safetensors")
    assert told.code == 0
    rows = [line.split() for line in told.out.splitlines()[:-1]]
    # 20 % of 64x30 and of 30x10, 10 % of 10x10 removed.
    assert [(r[0], r[-2], r[-1]) for r in rows] == [
        ("fc1/kernel", "1,536", "80.00%"),
        ("fc2/kernel", "240", "80.00%"),
        ("output/kernel", "90", "90.00%"),
    ]
    assert told.out.splitlines()[-1].endswith(": as it says")


@pytest.mark.parametrize("name", ["ticket.safetensors", "metrics.csv"])
def test_a_flipped_bit_is_found(name, finished, answer):
    path = folder(finished) / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    told = answer("verify", finished)
    assert told.code == 1
    assert any(
        "ticket/1" in line and name in line and "checksum" in line
        for line in differences(told)
    )
    assert not told.out.splitlines()[-1].endswith("as it says")


def test_a_missing_file_is_found(finished, answer):
    (folder(finished, 2, "shuffled_0") / "metrics.csv").unlink()
    told = answer("verify", finished)
    assert told.code == 1
    (line,) = differences(told)
    assert "shuffled_0/2/metrics.csv is missing" in line


def test_a_missing_level_is_found(finished, answer):
    shutil.rmtree(folder(finished, 2, "shuffled_0"))
    told = answer("verify", finished)
    assert told.code == 1
    assert "levels.csv" in told.out


def test_a_hole_in_the_tickets_is_found(finished, answer):
    """Of a run that was stopped levels are missing at the end only."""
    shutil.rmtree(folder(finished, 1))
    assert answer("report", finished).code == 0  # levels.csv fits again
    told = answer("verify", finished)
    assert told.code == 1
    assert differences(told)


def test_a_number_changed_in_levels_csv_is_found(finished, answer):
    path = finished / "levels.csv"
    with open(path, newline="") as file:
        value = list(csv.DictReader(file))[1]["test_accuracy"]
    path.write_text(path.read_text().replace(value, "0.99"))
    told = answer("verify", finished)
    assert told.code == 1
    assert differences(told) == [
        "DIFFERS  levels.csv is not what the levels say"
    ]


def test_a_number_changed_in_a_level_is_found(finished, answer):
    reseal(folder(finished), lambda r: r["row"].update(test_accuracy=0.99))
    assert answer("report", finished).code == 0
    told = answer("verify", finished)
    assert told.code == 1
    assert any("test_accuracy" in line for line in differences(told))


def test_another_name_or_configuration_is_found(finished, answer):
    path = finished / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    told = answer("verify", finished)
    assert told.code == 1
    assert any(finished.name in line for line in differences(told))


def test_a_path_with_a_slash_at_its_end_or_from_within(
    finished, answer, monkeypatch
):
    assert answer("verify", f"{finished}/").code == 0
    monkeypatch.chdir(finished)
    assert answer("verify", ".").code == 0


def test_too_many_weights_kept_are_found(finished, answer):
    rewrite(
        finished,
        1,
        lambda t: dataclasses.replace(
            t,
            mask=Mask({n: np.ones(t.mask.shapes[n], bool) for n in t.mask}),
            end={n: np.zeros(t.mask.sizes[n], np.float32) for n in t.mask},
        ),
    )
    told = answer("verify", finished)
    assert told.code == 1
    found = "\n".join(differences(told))
    line = "keeps 2220 weights, the schedule says 1776"
    assert f"fc1/kernel, fc2/kernel: {line}" in found


def test_a_mask_that_is_not_nested_is_found(finished, answer):
    def turned(ticket):
        masks = {n: ticket.mask[n].copy() for n in ticket.mask}
        masks["output/kernel"] = ~masks["output/kernel"]
        # As many as before: what level 1 removed, filled up.
        missing = 81 - masks["output/kernel"].sum()
        free = np.flatnonzero(~masks["output/kernel"])[:missing]
        masks["output/kernel"].flat[free] = True
        return dataclasses.replace(ticket, mask=Mask(masks))

    rewrite(finished, 2, turned)
    told = answer("verify", finished)
    assert told.code == 1
    (line,) = differences(told)
    assert "keeps weights that the level before removed" in line


def test_another_start_is_found(finished, answer):
    def moved(ticket):
        start = dict(ticket.start)
        start["fc2/kernel"] = start["fc2/kernel"] + np.float32(1e-3)
        return dataclasses.replace(ticket, start=start)

    rewrite(finished, 2, moved)
    told = answer("verify", finished)
    assert told.code == 1
    (line,) = differences(told)
    assert "fc2/kernel" in line and "level 0" in line


def test_numbers_that_are_not_finite_are_found(finished, answer):
    def broken(ticket):
        end = dict(ticket.end)
        end["fc1/kernel"] = np.full_like(end["fc1/kernel"], np.nan)
        return dataclasses.replace(ticket, end=end)

    rewrite(finished, 1, broken)
    told = answer("verify", finished)
    assert told.code == 1
    (line,) = differences(told)
    assert line.endswith("0/ticket/1: the end of fc1/kernel[0] is nan")


def test_a_single_difference_is_counted_as_one(finished, answer):
    (folder(finished, 2, "shuffled_0") / "metrics.csv").unlink()
    last = answer("verify", finished).out.splitlines()[-1]
    assert last.endswith("1 difference")


def test_an_export_of_a_run_is_as_it_says(finished, answer):
    version = finished / "export" / "1"
    told = answer("verify", finished / "export")
    assert told.code == 0, told
    lines = told.out.splitlines()
    assert lines[0] == f"{version} is the newest version"
    assert lines[-1] == f"{version}: as it says"


@pytest.mark.parametrize("name", ["nowhere", "levels.csv", "replicate_0"])
def test_what_is_neither_run_nor_ticket_exits_1(name, finished, answer):
    told = answer("verify", finished / name)
    assert told.code == 1 and name in told.err and told.out == ""


def test_it_changes_nothing(finished, answer, contents):
    before = contents(finished)
    assert answer("verify", finished).code == 0
    assert contents(finished) == before


def test_a_terminal_gets_a_bar(finished, on_a_terminal):
    told = on_a_terminal("verify", finished)
    assert told.code == 0
    assert "9/9" in told.err and "9 levels: as it says" in told.out
