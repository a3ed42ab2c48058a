"""Runs and tickets of strangers: read, never executed, never believed."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import keras
import pytest

from keras_lottery import sealed_json
from keras_lottery.report import page
from keras_lottery.runs import config_file
from keras_lottery.runs import identity
from keras_lottery.tickets.ticket import Ticket

pytestmark = pytest.mark.thorough

MODULE = "stranger_of_test_strangers"
LEVEL = "replicate_0/ticket/level_1"


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported, where it is found."""
    home = tmp_path / "home"
    home.mkdir()
    marker = tmp_path / "executed"
    (home / f"{MODULE}.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n\n\n"
        "def load(*args, **kwargs):\n    return None\n"
    )
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    yield marker
    assert not marker.exists(), "a stranger's module was imported"
    assert MODULE not in sys.modules


def rewrite(path, **changes):
    """Changes settings in config.json by dotted path, and seals it all anew.

    Whoever changes a run can change its checksums, too.
    """
    record = sealed_in(path)
    for dotted, value in changes.items():
        tree = record["config"]
        *sections, name = dotted.split("__")
        for section in sections:
            tree = tree[section]
        tree[name] = value
    path.write_bytes(sealed_json.pack(record))
    try:
        name = identity.identity(config_file.read(path))
    except Exception:  # no configuration any more: of no run
        return
    for level in path.parent.rglob("level.json"):
        level.write_bytes(sealed_json.pack({**sealed_in(level), "run": name}))


def record_of(run, change, level=LEVEL):
    path = run / level / "level.json"
    record = sealed_in(path)
    change(record)
    path.write_bytes(sealed_json.pack(record))


def sealed_in(path):
    """Returns what a sealed file holds."""
    record = json.loads(path.read_bytes())
    record.pop("checksum")
    return record


def commands(run, tmp_path):
    return {
        "report": ("report", run),
        "verify": ("verify", run),
        "list": ("list", "runs", f"--workdir={run.parent}"),
        "export": ("export", run, f"--to={tmp_path / 'served'}"),
    }


def test_the_trap_works(trap):
    found = subprocess.run([sys.executable, "-c", f"import {MODULE}"])
    assert found.returncode == 0 and trap.exists()
    trap.unlink()


@pytest.mark.parametrize("name", ["report", "verify", "list", "export"])
def test_functions_that_a_run_names_are_never_imported(
    name, finished, answer, trap, tmp_path
):
    function = f"{MODULE}:load"
    rewrite(
        finished / "config.json",
        data__name=function,
        model__name=function,
        prune__criterion=function,
        prune__allocation=function,
        controls__names=[function],
        train__optimizer=function,
        train__loss=function,
        train__metrics=["accuracy", function],
    )
    told = answer(*commands(finished, tmp_path)[name])
    # Only `verify` has a reason to complain: the name is not the hash.
    assert told.code == (1 if name == "verify" else 0), told
    assert not trap.exists()


def test_a_running_command_line_imports_no_ticket_class(
    finished, answer, trap, tmp_path
):
    """The network in a ticket is data: no module it names is imported."""
    for config in (
        {"module": MODULE, "class_name": "load", "config": {}},
        {"module": "subprocess", "class_name": "Popen", "config": {}},
        {"module": "builtins", "class_name": "exec", "config": {}},
        {"module": None, "class_name": f"{MODULE}>load", "config": {}},
    ):
        config.setdefault("registered_name", None)
        path = finished / LEVEL / "ticket.safetensors"
        ticket = dataclasses.replace(Ticket.load(path), model_config=config)
        mine = tmp_path / "theirs.safetensors"
        ticket.save(mine)
        told = answer("export", mine, f"--to={tmp_path / 'served'}")
        assert told.code == 1, config
        assert told.err.startswith("keras-lottery: ")
        assert not (tmp_path / "served").exists()
        assert answer("verify", mine).code == 0  # it reads no network


def test_popen_with_arguments_starts_nothing(finished, answer, tmp_path):
    marker = tmp_path / "executed"
    config = {
        "module": "subprocess",
        "class_name": "Popen",
        "config": {"args": ["touch", str(marker)]},
        "registered_name": "Popen",
    }
    ticket = Ticket.load(finished / LEVEL / "ticket.safetensors")
    mine = tmp_path / "theirs.safetensors"
    dataclasses.replace(ticket, model_config=config).save(mine)
    assert answer("export", mine, f"--to={tmp_path / 'served'}").code == 1
    assert not marker.exists()


def test_a_lambda_in_a_ticket_is_refused(finished, answer, tmp_path):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Lambda(lambda x: x)]
    )
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    ticket = Ticket.load(finished / LEVEL / "ticket.safetensors")
    mine = tmp_path / "theirs.safetensors"
    dataclasses.replace(ticket, model_config=config).save(mine)
    told = answer("export", mine, f"--to={tmp_path / 'served'}")
    assert told.code == 1
    assert "ambda" in told.err
    assert not (tmp_path / "served").exists()


@pytest.mark.parametrize("stray", ["../outside", "/etc/passwd", "level.json"])
def test_files_outside_a_level_are_not_opened(
    stray, finished, answer, tmp_path
):
    (finished / LEVEL / "../outside").resolve().write_text("secret")
    record_of(finished, lambda r: r["sha256"].update({stray: "0" * 64}))
    told = answer("verify", finished)
    assert told.code == 1
    assert "damaged" in told.err + told.out and stray in told.err + told.out
    told = answer("export", finished, f"--to={tmp_path / 'served'}")
    assert told.code in (0, 1)


@pytest.mark.parametrize("version", ["../..", "/etc", "..", "1/../..", "", "a"])
def test_versions_of_exports_that_lead_elsewhere_are_not_believed(
    version, finished, answer
):
    """A run continues in a directory that came from elsewhere."""
    path = finished / "made.json"
    made = sealed_in(path)
    (checksum,) = made["exports"].values()
    path.write_bytes(sealed_json.pack({**made, "exports": {version: checksum}}))
    told = answer(
        "run", "--config=digits:smoke", f"--workdir={finished.parent}"
    )
    assert told.code == 0, told.err
    assert f"export   {finished / 'export' / '2'} " in told.out


@pytest.mark.parametrize("text", ["[]", "{", '{"1": 3}', "null"])
def test_a_damaged_list_of_exports_is_no_traceback(text, finished, answer):
    (finished / "made.json").write_text(text)
    told = answer(
        "run", "--config=digits:smoke", f"--workdir={finished.parent}"
    )
    assert told.code in (0, 1)


@pytest.mark.parametrize("name", ["report", "verify", "export"])
@pytest.mark.parametrize(
    "link",
    [
        f"{LEVEL}/level.json",
        f"{LEVEL}/ticket.safetensors",
        "replicate_0/ticket/level_2",
        "replicate_0/ticket",
        "replicate_0",
        "levels.csv",
        "config.json",
    ],
)
def test_links_out_of_the_run_are_not_followed(
    link, name, finished, answer, tmp_path
):
    outside = tmp_path / "outside"
    (finished / link).rename(outside)
    (finished / link).symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else None
    told = answer(*commands(finished, tmp_path)[name])
    # `report` opens no tickets, `export` that of level 2 and no tables.
    unread = {"report": [".safetensors"], "export": [".safetensors", ".csv"]}
    if not link.endswith(tuple(unread.get(name, ["nothing"]))):
        assert told.code == 1, told
        # `verify` counts it among the differences that it prints.
        assert "leads out of the run" in told.err + told.out
    if before is not None:
        assert outside.read_bytes() == before


def test_a_report_is_not_written_through_a_link(finished, answer, tmp_path):
    outside = tmp_path / "outside.html"
    outside.write_text("mine")
    (finished / "report.html").unlink()
    (finished / "report.html").symlink_to(outside)
    told = answer("report", finished)
    assert outside.read_text() == "mine"
    assert told.code == 1


SCRIPT = "<script>alert('x')</script>"


@pytest.mark.parametrize("where", ["name", "data__name", "model__name"])
def test_html_in_a_configuration_is_text_in_the_page(where, finished, answer):
    rewrite(finished / "config.json", **{where: SCRIPT})
    told = answer("report", finished)
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert told.code == 0
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize(
    "name", [SCRIPT, "</svg><img src=x onerror=alert(1)>", "$\\frac{1}{0}$"]
)
def test_html_in_an_arm_is_text_in_the_page(name, finished, answer):
    record_of(
        finished,
        lambda r: r["row"].update(arm=name),
        "replicate_0/shuffled_0/level_1",
    )
    told = answer("report", finished)
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<img" not in page
    assert told.code in (0, 1)


def test_nothing_in_a_run_steers_the_terminal(finished, answer):
    escape = "\x1b]0;owned\x07\x1b[2J"
    record_of(
        finished,
        lambda r: r["row"].update(arm=f"shuffled{escape}"),
        "replicate_0/shuffled_0/level_1",
    )
    for typed in (("report", finished), ("verify", finished)):
        told = answer(*typed)
        assert "\x1b" not in told.out + told.err


@pytest.mark.parametrize("command", ["verify", "export"])
@pytest.mark.parametrize("kind", ["pipe", "zeros", "hole"])
def test_a_ticket_that_does_not_end_is_refused(
    kind, command, finished, answer, tmp_path
):
    path = tmp_path / "theirs.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes((finished / LEVEL / "ticket.safetensors").read_bytes())
        os.truncate(path, 2**40)
    there = {"export": [f"--to={tmp_path / 'served'}"], "verify": []}
    told = answer(command, path, *there[command])
    assert told.code == 1
    assert str(path) in told.err + told.out


def test_a_network_that_takes_all_memory_is_not_built(
    finished, answer, tmp_path
):
    ticket = Ticket.load(finished / LEVEL / "ticket.safetensors")
    text = json.dumps(ticket.model_config)
    larger = text.replace('"units": 10,', f'"units": {10**12},')
    assert larger != text
    mine = tmp_path / "theirs.safetensors"
    theirs = dataclasses.replace(ticket, model_config=json.loads(larger))
    theirs.save(mine)
    told = answer("export", mine, f"--to={tmp_path / 'served'}")
    assert told.code == 1
    assert str(10**12) in told.err


def test_a_command_that_a_run_claims_is_text_in_the_page():
    facts = {"command": f"{SCRIPT}\x1b[2J\x00", SCRIPT: "a\u202eb"}
    html = page.render([], title=f"t\x1b{SCRIPT}", facts=facts)
    assert "<script" not in html
    assert not {"\x1b", "\x00", "\u202e"} & set(html)
    assert html.count("&lt;script&gt;") == 4


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["report", "verify", "export"])
@pytest.mark.parametrize(
    "change",
    [
        {"arm": "x" * 100_000},
        {"arm": None},
        {"arm": ["ticket"]},
        {"arm": float("nan")},
        {"level": "two"},
        {"level": None},
        {"level": 1e300},
        {"level": -5},
        {"density": "much"},
        {"density": float("nan")},
        {"replicate": {}},
        {"val_accuracy": "good"},
        {"val_accuracy": None},
        {"val_accuracy": float("inf")},
        {"early_step": "soon"},
        {"test_accuracy": [1]},
    ],
    ids=lambda change: json.dumps(change)[:30],
)
def test_rows_that_cannot_be_are_no_traceback(
    change, command, finished, answer, tmp_path
):
    record_of(finished, lambda r: r["row"].update(change))
    told = answer(*commands(finished, tmp_path)[command])
    assert told.code in (0, 1)
    assert len(told.out + told.err) < 20_000
    if command == "verify":
        assert told.code == 1


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["report", "verify", "export", "list"])
@pytest.mark.parametrize(
    "record",
    [
        {},
        {"row": {}, "sha256": {}},
        {"row": [], "sha256": {}},
        {"row": {"arm": "ticket"}},
        {"row": {"arm": "ticket", "level": 1}, "sha256": []},
        [],
    ],
    ids=json.dumps,
)
def test_records_that_are_none_are_no_traceback(
    record, command, finished, answer, tmp_path
):
    (finished / LEVEL / "level.json").write_text(json.dumps(record))
    told = answer(*commands(finished, tmp_path)[command])
    assert told.code == (0 if command == "list" else 1), told
    if told.code:
        assert "level_1" in told.err + told.out


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["report", "verify", "export", "list"])
@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"name": "../../x"},
        {"name": "x" * 5000},
        {"prune": None},
        {"prune": {"levels": "many"}},
        {"prune__rates": 3},
        {"prune__rates": [["*"]]},
        {"prune__rate": float("nan")},
        {"prune__levels": 10**9},
        {"prune__sparsities": {"a": 1}},
        {"controls": []},
        {"controls__names": 5},
        {"controls__repeats": "3"},
        {"train": None},
        {"train__metrics": 4},
        {"train__metrics": [None]},
        {"train__metric": "nothing"},
        {"train__metric": {}},
        {"train__mode": "sideways"},
        {"export": None},
        {"export__tolerance": "lots"},
        {"replicates": "all"},
        {"rewind": None},
        {"data": None},
        {"model": []},
    ],
    ids=lambda change: json.dumps(change)[:30],
)
def test_configurations_that_cannot_be_are_no_traceback(
    change, command, finished, answer, tmp_path
):
    rewrite(finished / "config.json", **change)
    told = answer(*commands(finished, tmp_path)[command])
    # What a command does not need it need not find wrong; 2 is for usage.
    assert told.code in (0, 1), told
    if command == "verify":
        assert told.code == 1
    assert len(told.out + told.err) < 20_000


@pytest.mark.parametrize("command", ["report", "verify", "export"])
def test_what_is_no_file_but_called_like_one(
    command, finished, answer, tmp_path
):
    (finished / LEVEL / "level.json").unlink()
    (finished / LEVEL / "level.json").mkdir()
    told = answer(*commands(finished, tmp_path)[command])
    assert told.code == 1


def test_bytes_that_are_no_text_are_no_traceback(finished, answer):
    for name in ("levels.csv", "config.json", f"{LEVEL}/level.json"):
        path = finished / name
        whole = path.read_bytes()
        path.write_bytes(b"\xff\xfe\x00" * 50)
        assert answer("verify", finished).code == 1, name
        path.write_bytes(whole)


def test_names_that_are_no_levels_are_left_out(finished, answer):
    for name in ("replicate_0/.. /level_1", "replicate_x/ticket/level_1"):
        path = finished / name
        path.mkdir(parents=True)
        (path / "level.json").write_text("{")
    told = answer("verify", finished)
    assert told.code == 0 and "9 levels" in told.out


def test_a_ticket_that_lies_about_its_checksum_is_refused(finished, answer):
    path = finished / LEVEL / "ticket.safetensors"
    content = path.read_bytes().replace(b'\\"level\\": 1', b'\\"level\\": 2')
    path.write_bytes(content)
    record_of(
        finished,
        lambda r: r["sha256"].update(
            {"ticket.safetensors": hashlib.sha256(content).hexdigest()}
        ),
    )
    told = answer("verify", finished)
    assert told.code == 1 and "ticket.safetensors" in told.out
