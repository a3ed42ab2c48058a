"""A run's directory: what counts as done, who may write, what is refused."""

import errno
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from keras_lottery import files
from keras_lottery import sealed_json
from keras_lottery.errors import RunError
from keras_lottery.runs import configuration
from keras_lottery.runs import directory
from keras_lottery.runs import formats
from keras_lottery.runs import identity
from keras_lottery.runs import made
from keras_lottery.runs import paths
from keras_lottery.runs import records
from keras_lottery.runs import state_of_run

HOLD = """
import sys, time
from keras_lottery.runs import directory
with directory.RunDirectory(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""
WHERE = (0, "ticket", 1)
ROW = {"replicate": 0, "arm": "ticket", "level": 1}
CONTENTS = {paths.METRICS: b"step\n1\n", paths.TICKET: b"ticket"}


@pytest.fixture
def run(tmp_path):
    """A new run of the default configuration."""
    config = configuration.defaults()
    found = directory.RunDirectory.of(config, tmp_path / "runs")
    found.create(config)
    return found


def config_of(run):
    with open(os.path.join(run.path, paths.CONFIG)) as file:
        return json.load(file)


def write_config(run, found):
    """Writes text as it is, and a dict under a checksum."""
    content = found.encode() if isinstance(found, str) else sealed(found)
    with open(os.path.join(run.path, paths.CONFIG), "wb") as file:
        file.write(content)


def sealed(found):
    return sealed_json.pack({k: v for k, v in found.items() if k != "checksum"})


def test_a_run_is_named_by_its_configuration(run, tmp_path):
    hexes = identity.identity(configuration.defaults())
    assert run.path == str(tmp_path / "runs" / f"run-{hexes}")
    assert set(os.listdir(run.path)) - {paths.LOCK} == {paths.CONFIG}
    assert config_of(run)["format"] == identity.FORMAT
    opened = directory.RunDirectory.open(run.path)
    assert identity.identity(opened.read_config()) == hexes


def test_paths_are_where_the_docs_say(run):
    root = run.path
    assert run.file(*WHERE, paths.TICKET) == (
        f"{root}/replicate_0/ticket/level_1/ticket.safetensors"
    )
    assert run.levels_path == f"{root}/levels.csv"
    assert run.report_path == f"{root}/report.html"
    assert run.export_path == f"{root}/export"
    with pytest.raises(RunError, match="not the name of a level"):
        run.file(0, "../..", 1, paths.TICKET)
    with pytest.raises(RunError, match="not the name of a level"):
        run.file(0, "ticket", -1, paths.TICKET)
    with pytest.raises(RunError, match="leads out of the run"):
        run.file(*WHERE, "../../../../other/file")


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "a b", "../x", "é", "-x"]
)
def test_names_that_no_directory_should_have(name, tmp_path):
    config = configuration.defaults()
    config.name = name
    with pytest.raises(ValueError, match="becomes part of a directory"):
        directory.RunDirectory.of(config, tmp_path)


def test_creating_again_keeps_the_larger_numbers(run):
    config = configuration.defaults()
    config.prune.levels, config.replicates = 3, 8
    config.distribute.strategy = "mirrored"
    run.create(config)
    found = run.read_config()
    assert (found["prune"]["levels"], found["replicates"]) == (10, 8)
    assert found["distribute"]["strategy"] == "mirrored"


def test_a_configuration_of_another_version_is_refused(run):
    """One that had fewer settings; the hash is the same."""
    found = config_of(run)
    del found["config"]["train"]["warmup"]
    write_config(run, found)
    with pytest.raises(RunError) as caught:
        run.create(configuration.defaults())
    text = str(caught.value)
    assert "train.warmup: 'absent' there, 0 here" in text
    assert "Choose another --workdir" in text
    assert config_of(run)["config"] == found["config"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "holds no object"),
        ("\xff", "is damaged|format is None"),
        ("{}", "another version.*format is None"),
        ({"format": 1, "config": {"name": "x"}}, "format is 1, version .* 3"),
        ('{"format": 2, "config": {"name": "x"}}', "format is 2, version .* 3"),
        ('{"format": 3, "config": {"name": "x"}}', "differs from its checksum"),
        ({"format": 3, "config": [1]}, "holds no configuration"),
        ({"format": 3, "config": {"name": 3}}, "holds no configuration"),
        ("[" * 100_000, "is damaged"),
    ],
)
def test_a_damaged_configuration_is_refused(content, message, run):
    write_config(run, content)
    for action in (
        run.read_config,
        lambda: directory.RunDirectory.open(run.path),
    ):
        with pytest.raises(RunError, match=message):
            action()
    [line] = state_of_run.table(os.path.dirname(run.path))
    assert "unreadable" in line


@pytest.mark.parametrize(
    "content", ["", "{", '{"format": 3}', "flipped", "swapped"]
)
def test_a_damaged_configuration_is_set_aside(content, run, caplog):
    before = pathlib.Path(run.path, paths.CONFIG).read_text()
    if content == "swapped":
        found = config_of(run)
        found["config"]["seed"] = 3
        content = sealed(found).decode()
    if content == "flipped":
        content = before.replace('"seed": 0', '"seed": 4')
        assert content != before
    write_config(run, content)
    run.create(configuration.defaults())
    assert pathlib.Path(run.path, paths.CONFIG).read_text() == before
    aside = pathlib.Path(run.path, paths.DAMAGED, "0", paths.CONFIG)
    assert aside.read_text() == content
    assert "config.json is" in caplog.text
    assert str(aside) in caplog.text


def test_a_configuration_of_another_version_is_no_damage(run):
    write_config(run, {"format": 2, "config": {"name": "x"}})
    with pytest.raises(RunError, match="another version"):
        run.create(configuration.defaults())
    assert not os.path.exists(os.path.join(run.path, paths.DAMAGED))


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(RunError, match="this is not a run"):
        directory.RunDirectory.open(tmp_path)
    with pytest.raises(RunError, match="this is not a run"):
        directory.RunDirectory.open(tmp_path / "nowhere")
    (tmp_path / "one" / paths.CONFIG).mkdir(parents=True)
    with pytest.raises(RunError, match=r"config\.json"):
        directory.RunDirectory.open(tmp_path / "one")


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    config = configuration.defaults()
    run = directory.RunDirectory.of(config, tmp_path / "file")
    with pytest.raises(RunError, match="Choose another place"):
        run.create(config)


def test_another_process_holds_the_lock_until_it_ends(run):
    assert not run.is_locked()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, run.path],
        stdout=subprocess.PIPE,
        cwd=pathlib.Path(directory.__file__).parents[2],
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert run.is_locked()
        with pytest.raises(RunError, match="Another process.*by hand"):
            run.lock()
        [line] = state_of_run.table(os.path.dirname(run.path))
        assert "running" in line
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    # The file is still there, and holds nobody up.
    assert os.path.exists(os.path.join(run.path, paths.LOCK))
    assert not run.is_locked()
    with run.lock():
        assert run.is_locked()
    assert not run.is_locked()


def test_a_saved_level_is_done_and_whole(run):
    run.save(WHERE, {**ROW, "loss": 0.5}, CONTENTS)
    assert run.levels() == [WHERE] and run.is_done(*WHERE)
    assert run.row(*WHERE) == {**ROW, "loss": 0.5}
    assert run.checksums(*WHERE) == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in CONTENTS.items()
    }
    folder = os.path.dirname(run.file(*WHERE, paths.DONE))
    assert sorted(os.listdir(folder)) == sorted([*CONTENTS, paths.DONE])


@pytest.mark.parametrize("failing", range(3))
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_level_that_is_not_whole_is_not_done(
    failing, error, run, monkeypatch
):
    write, left = files.write_whole, [failing]

    def fail(path, content):
        if not left[0]:
            raise error(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        write(path, content)

    monkeypatch.setattr(files, "write_whole", fail)
    with pytest.raises(RunError if error is OSError else error):
        run.save(WHERE, ROW, CONTENTS)
    assert run.levels() == [] and run.rows() == []
    assert not run.is_done(*WHERE)


def test_a_full_disk_leaves_nothing_under_a_final_name(run, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises((RunError, OSError), match="No space left"):
        run.save(WHERE, ROW, CONTENTS)
    monkeypatch.undo()
    folder = os.path.dirname(run.file(*WHERE, paths.DONE))
    assert os.listdir(folder) == []
    assert run.levels() == []


def test_a_full_disk_leaves_the_tables_as_they_were(run, monkeypatch):
    run.save(WHERE, ROW, CONTENTS)
    run.save_tables()
    before = pathlib.Path(run.levels_path).read_bytes()

    def full(*unused):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run.save((0, "ticket", 2), {**ROW, "level": 2}, CONTENTS)
    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(RunError, match="No space left.*Free room"):
        run.save_tables()
    monkeypatch.undo()
    assert pathlib.Path(run.levels_path).read_bytes() == before
    assert not [n for n in os.listdir(run.path) if n.startswith(".writing")]


def test_what_is_known_of_the_tables_is_what_the_disk_says(run):
    wheres = [(1, "ticket", 0), (0, "b", 2), (0, "ticket", 10), (0, "a", 0)]
    for number, where in enumerate(wheres):
        named = dict(zip(ROW, where))
        run.save(where, named, CONTENTS, time={**named, "seconds": number})
        run.save_tables()
        tables = run.levels_path, run.times_path
        found = [pathlib.Path(path).read_bytes() for path in tables]
        directory.RunDirectory(run.path).save_tables()
        assert [pathlib.Path(path).read_bytes() for path in tables] == found
    times = formats.read_csv(run.times_path)
    assert [int(row["seconds"]) for row in times] == [2, 3, 1, 0]
    assert len(formats.read_csv(run.levels_path)) == 4


@pytest.mark.parametrize("content", [b"", b"{}", b'{"seconds": 3}'])
def test_a_time_that_is_damaged_is_left_out(content, run, caplog):
    run.save(WHERE, ROW, CONTENTS, time={**ROW, "seconds": 2.5})
    pathlib.Path(run.file(*WHERE, paths.TIME)).write_bytes(content)
    run.recover()
    assert run.is_done(*WHERE) and run.row(*WHERE) == ROW
    assert "time.json is damaged" in caplog.text
    run.save_tables()
    assert formats.read_csv(run.times_path) == []


def test_the_ticket_comes_first_and_levels_are_in_order(run):
    for where in [
        (1, "ticket", 0),
        (0, "one_shot", 2),
        (0, "ticket", 10),
        (0, "ticket", 2),
        (0, "a", 1),
    ]:
        run.save(where, dict(zip(ROW, where)), {})
    expected = [
        (0, "ticket", 2),
        (0, "ticket", 10),
        (0, "a", 1),
        (0, "one_shot", 2),
        (1, "ticket", 0),
    ]
    assert run.levels() == expected
    assert [tuple(row.values()) for row in run.rows()] == expected


def test_folders_of_other_names_are_no_levels(run):
    run.save(WHERE, ROW, {})
    record = sealed_json.pack({"row": ROW, "sha256": {}, "from": {}})
    for folder in (
        "replicate_0/ticket/level_01",
        "replicate_00/ticket/level_1",
        "replicate_0/ticket/level_٢",
        "replicate_0/ticket/copy of level_2",
        "export/ticket/level_2",
    ):
        path = pathlib.Path(run.path, folder)
        path.mkdir(parents=True)
        (path / paths.DONE).write_bytes(record)
    assert run.levels() == [WHERE]


def test_drop_takes_a_file_and_its_checksum(run):
    run.save(WHERE, ROW, {**CONTENTS, paths.END: b"end"})
    assert set(run.checksums(*WHERE)) == {*CONTENTS, paths.END}
    run.drop(WHERE, paths.END)
    assert set(run.checksums(*WHERE)) == set(CONTENTS)
    assert not os.path.exists(run.file(*WHERE, paths.END))
    assert run.row(*WHERE) == ROW
    run.drop(WHERE, paths.END)  # gone already: nothing to do
    assert run.levels() == [WHERE]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"{", "is damaged"),
        (b"{}", "differs from its checksum"),
        (sealed_json.pack({}), "has no 'row'"),
        (sealed_json.pack({"row": 3, "sha256": {}}), "has no 'row'"),
        (sealed_json.pack({"row": {}, "sha256": {}}), "has no 'from'"),
        (
            records.pack("0" * 12, ROW, {}, {}),
            "is of another run: of '000000000000', not",
        ),
    ],
)
def test_a_damaged_record_is_named(record, message, run):
    run.save(WHERE, ROW, CONTENTS)
    pathlib.Path(run.file(*WHERE, paths.DONE)).write_bytes(record)
    with pytest.raises(RunError, match=f"level_1/level.json.*{message}"):
        run.rows()


def test_a_record_may_name_no_other_files(run):
    run.save(WHERE, ROW, CONTENTS)
    sums = {"../../../config.json": "0"}
    record = records.pack(run.identity, ROW, sums, {})
    pathlib.Path(run.file(*WHERE, paths.DONE)).write_bytes(record)
    with pytest.raises(RunError, match="not files of a level"):
        run.checksums(*WHERE)


@pytest.mark.parametrize(
    "name", [paths.CONFIG, paths.LEVELS, paths.EXPORT, "replicate_0"]
)
def test_links_out_of_a_run_are_refused(name, run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = pathlib.Path(run.path, name)
    if link.exists():
        link.unlink()
    link.symlink_to(outside)
    with pytest.raises(RunError, match=f"{name}.* leads out of the run"):
        run.create(configuration.defaults())
        run.save(WHERE, ROW, CONTENTS)
        run.save_tables()
        made.exported(run, "0")
    assert list(outside.iterdir()) == []


def test_a_link_to_a_run_is_a_run(run, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(run.path)
    assert directory.RunDirectory.open(link).read_config()["name"] == "run"


def test_a_listing_survives_a_lock_that_leads_out(run, tmp_path):
    lock = pathlib.Path(run.path, paths.LOCK)
    lock.unlink(missing_ok=True)
    lock.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("")
    [line] = state_of_run.table(os.path.dirname(run.path))
    assert run.path in line


def test_find_runs_and_their_states(run, tmp_path):
    workdir = os.path.dirname(run.path)
    os.makedirs(os.path.join(workdir, "other"))
    assert [each.path for each in directory.find_runs(workdir)] == [run.path]
    assert directory.find_runs(tmp_path / "nowhere") == []
    # 3 replicates of a dense network, 10 levels, 2 controls at each.
    assert state_of_run.progress(run) == (0, 3 * (1 + 10 * 3))
    run.save(WHERE, ROW, CONTENTS)
    [line] = state_of_run.table(workdir)
    assert line == f"{run.path}  stopped, 1 of 93 trainings"


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("controls", "repeats", "many"),
        ("prune", "levels", None),
        (None, "replicates", "3"),
        (None, "controls", 3),
    ],
)
def test_states_of_runs_with_damaged_numbers(section, name, value, run):
    found = config_of(run)
    tree = found["config"][section] if section else found["config"]
    tree[name] = value
    write_config(run, found)
    [line] = state_of_run.table(os.path.dirname(run.path))
    assert "unreadable" in line


def test_csv_round_trip(tmp_path):
    rows = [{"a": 1, "b": 0.1}, {"a": 'x,\n"y"', "c": None}]
    path = tmp_path / "table.csv"
    path.write_bytes(formats.as_csv(rows))
    assert formats.read_csv(path) == [
        {"a": "1", "b": "0.1", "c": ""},
        {"a": 'x,\n"y"', "b": "", "c": ""},
    ]
    assert formats.read_csv(tmp_path / "none.csv") == []


def test_a_damaged_table_is_named(tmp_path):
    path = tmp_path / "times.csv"
    path.write_bytes(b"replicate,arm\n0,\xff\n")
    with pytest.raises(RunError, match=r"times\.csv is damaged"):
        formats.read_csv(path)
