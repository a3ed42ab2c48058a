"""`verify` of exports: every damage and every other answer is a line."""

import hashlib
import json
import os
import pathlib
import shutil
import stat
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.cli import main
from keras_lottery.exporting import compact
from keras_lottery.exporting import compact_serving
from keras_lottery.exporting import dense
from keras_lottery.exporting import warm_up
from keras_lottery.exporting.verifying import contents
from keras_lottery.exporting.verifying import served
from keras_lottery.exporting.verifying import server
from keras_lottery.exporting.verifying import verification

pytestmark = pytest.mark.thorough

STAND_IN = pathlib.Path(__file__).parent / "stand_in_server.py"
FORMATS = {
    "compact": compact.write_compact,
    "compact-serving": compact_serving.write_compact_serving,
    "dense": dense.write_dense,
}
ABSENT = "tensorflow_model_server is not on PATH: the C API stands in for it"


def network():
    a = keras.Input((6,), name="left")
    b = keras.Input((2,), name="right", dtype="int32")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(7, 3)(b))
    both = keras.layers.Concatenate()([a, embedded])
    outputs = {
        "one": keras.layers.Dense(2)(both),
        "two": keras.layers.Dense(1)(both),
    }
    return keras.Model({"left": a, "right": b}, outputs)


def inputs(rows):
    generator = np.random.default_rng(0)
    return {
        "left": generator.normal(size=(rows, 6)).astype(np.float32),
        "right": generator.integers(0, 7, (rows, 2)).astype(np.int32),
    }


def write(path, name):
    """Writes a version with warm-up requests and a card."""
    model = network()
    os.makedirs(path)
    FORMATS[name](model, str(path))
    given = inputs(9)
    outputs = {k: v.numpy() for k, v in model(given).items()}
    warm_up.write(str(path), given, outputs, model_name="mine")
    card(path, name)


def card(path, name="compact", **changes):
    """Writes the model card that fits what is there."""
    files = {
        str(each.relative_to(path)): hashlib.sha256(
            each.read_bytes()
        ).hexdigest()
        for each in path.rglob("*")
        if each.is_file() and each.name not in contents.CARDS
    }
    known = {"format": name, "files": {**files, **changes}}
    (path / "model_card.json").write_text(json.dumps(known))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    base = tmp_path_factory.mktemp("written")
    for name in FORMATS:
        write(base / name, name)
    return base


@pytest.fixture
def version(written, tmp_path):
    """A copy of the compact one, to be changed."""
    return shutil.copytree(written / "compact", tmp_path / "base" / "1")


@pytest.fixture
def loads(monkeypatch):
    """What was loaded since."""
    seen, real = [], served._run
    monkeypatch.setattr(
        served, "_run", lambda job: seen.append(job) or real(job)
    )
    return seen


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_as_it_says(name, written, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found, notes = verification.differences(written / name)
    assert found == []
    assert any("the recorded ones" in note for note in notes)
    assert any("C API: 2" in note for note in notes)
    assert any(note.startswith(ABSENT) for note in notes)


def test_the_newest_version_is_taken(written, tmp_path):
    assert contents.version_directory(tmp_path) is None
    assert contents.version_directory(tmp_path / "nowhere") is None
    for number in ("2", "10", "9"):
        shutil.copytree(written / "dense", tmp_path / number)
    (tmp_path / ".writing-11").mkdir()
    newest = str(tmp_path / "10")
    assert contents.version_directory(str(tmp_path)) == newest
    assert contents.version_directory(newest) == newest


def test_the_command_line_says_what_differs(version, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    base = str(version.parent)
    assert asked(base) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{version} is the newest version"
    assert told[-1] == f"{version}: as it says"
    assert not any(line.startswith("DIFFERS") for line in told)
    (version / "model_card.json").unlink()
    os.truncate(version / "saved_model.pb", 1000)
    assert asked(base) == 1
    told = capsys.readouterr().out.splitlines()
    (line,) = [line for line in told if line.startswith("DIFFERS")]
    assert "saved_model.pb is damaged" in line
    assert told[-1] == f"{version}: 1 difference"


def asked(path):
    with pytest.raises(SystemExit) as stopped:
        main.main(["verify", path])
    return stopped.value.code


def record(path, change):
    """Changes the recorded answers, and the card with them."""
    pairs = warm_up.read(str(path))
    given = {k: np.concatenate([p[0][k] for p in pairs]) for k in pairs[0][0]}
    outputs = {k: np.concatenate([p[1][k] for p in pairs]) for k in pairs[0][1]}
    warm_up.write(str(path), given, change(outputs), model_name="mine")
    card(path)


@pytest.mark.parametrize(
    ("factor", "wrong"), [(1 + 1e-4, True), (1 + 2e-6, False), (-1, True)]
)
def test_other_answers_than_the_recorded(factor, wrong, version):
    def change(outputs):
        changed = (outputs["one"] * factor).astype(np.float32)
        return {**outputs, "one": changed}

    record(version, change)
    found, notes = verification.differences(version)
    assert len(found) == 2 * wrong  # both requests
    assert all("'one' is" in line for line in found)
    if not wrong:
        assert any("within 1e-05 of the largest" in note for note in notes)


def test_other_outputs_than_the_recorded(version):
    record(version, lambda outputs: {"one": outputs["one"]})
    found, _ = verification.differences(version)
    assert found[0] == (
        "request 1: the outputs are ['one', 'two'], expected ['one']"
    )
    record(version, lambda outputs: {**outputs, "two": outputs["one"]})
    found, _ = verification.differences(version)
    assert found[0] == (
        "request 1: 'two' is float32[1, 1], expected float32[1, 2]"
    )


@pytest.mark.parametrize(
    ("right", "value", "count"),
    [
        (np.float32([1, 100]), np.float32([1.0009, 100]), 0),
        (np.float32([1, 100]), np.float32([1.002, 100]), 1),
        (np.float32([1, np.nan]), np.float32([1, np.nan]), 0),
        (np.float32([1, 2]), np.float32([1, np.nan]), 1),
        (np.float32([0, 0]), np.float32([0, 1]), 1),
        (np.float16([1, 2]), np.float16([1, 2.001]), 0),
        (np.float16([1, 2]), np.float16([1, 2.01]), 1),
        (np.int32([10**6]), np.int32([10**6 + 1]), 1),
        (np.float32([1]), np.float32([[1]]), 1),
        (np.float32([1]), np.float64([1]), 1),
    ],
)
def test_how_close_answers_have_to_be(right, value, count):
    found, exact = verification.compared("r", {"y": right}, {"y": value})
    assert len(found) == count
    assert exact == (right.tobytes() == value.tobytes() and not count)


def test_without_records_a_probe_must_be_finite(version):
    shutil.rmtree(version / "assets.extra")
    card(version)
    found, notes = verification.differences(version)
    assert found == []
    assert any("instead of recorded" in note for note in notes)


def test_answers_that_are_not_finite_are_found(tmp_path):
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": tf.math.log(x * 0 - 1), "z": x},
        input_signature=[tf.TensorSpec((None, None), name="x")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    found, _ = verification.differences(tmp_path)
    assert found == ["request 1: 'y' is not finite"]


def test_damage_of_every_kind(version):
    pb = version / "saved_model.pb"
    content = pb.read_bytes()
    damage = {
        "is damaged: it is no SavedModel": content[: len(content) // 2],
        "holds no graph": b"",
        "cannot be read": None,
        "tagged": content.replace(b"\x05serve", b"\x05train"),
        "has no signature 'serving_default'": content.replace(
            b"serving_default", b"serving_defaulo"
        ),
    }
    (version / "model_card.json").unlink()
    for message, damaged in damage.items():
        pb.unlink(missing_ok=True)
        if damaged is not None:
            assert damaged != content
            pb.write_bytes(damaged)
        found, _ = verification.differences(version)
        assert len(found) == 1 and message in found[0], found


def test_a_file_that_no_parser_reads_is_not_tried(version, loads):
    os.truncate(version / "saved_model.pb", 2**31)  # sparse: takes no room
    (version / "model_card.json").unlink()
    found, _ = verification.differences(version)
    assert len(found) == 1 and "2,147,483,648 bytes" in found[0]
    assert loads == []


def test_missing_variables_are_found(written, tmp_path):
    version = shutil.copytree(written / "dense", tmp_path / "1")
    shutil.rmtree(version / "variables")
    found, _ = verification.differences(version)
    assert "variables/variables.index is missing" in found
    (version / "model_card.json").unlink()
    found, _ = verification.differences(version)
    assert len(found) == 1


def test_checksums_and_names_of_the_card(version, tmp_path):
    digest = hashlib.sha256(b"mine").hexdigest()
    (tmp_path / "outside").write_bytes(b"mine")
    card(version, **{"gone": digest, "saved_model.pb": digest})
    (version / "extra.txt").write_text("unknown")
    assert verification.differences(version)[0] == [
        "gone is missing",
        "saved_model.pb has another checksum than model_card.json says",
        "extra.txt is not in model_card.json",
    ]
    (version / "extra.txt").unlink()
    for name in ("../../outside", str(tmp_path / "outside"), "."):
        card(version, **{name: digest})
        (line,) = contents.of_card(version, [])
        assert "outside of the export" in line
    card(version, "lite")
    (line,) = contents.of_card(version, [])
    assert line.endswith("'lite', which needs model.tflite")
    for content in ("{", "[]", '{"files": 3}', '{"files": {"a": 1}}'):
        (version / "model_card.json").write_text(content)
        assert contents.of_card(version, [])


def test_a_link_is_not_followed(version, tmp_path, loads):
    (tmp_path / "secret").write_text("mine")
    (version / "leads_out").symlink_to(tmp_path)
    found, _ = verification.differences(version)
    assert len(found) == 1 and found[0].startswith("leads_out is a link")
    assert loads == []


def test_nothing_is_loaded_of_what_writes_files(tmp_path, loads):
    target = tmp_path / "target"
    module = tf.Module()

    def serve(x):
        tf.io.write_file(str(target), "stolen")
        return {"y": x}

    module.serve = tf.function(
        serve, input_signature=[tf.TensorSpec((None,), name="x")]
    )
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.serve)
    found, notes = verification.differences(tmp_path / "1")
    assert len(found) == 1 and "the graph holds WriteFile" in found[0]
    assert "nothing of it was loaded" in notes
    assert loads == [] and not target.exists()
    # It would have been: the same graph, looked at by a list that allows it.
    served.answers(tmp_path / "1", [{"x": np.float32([1])}])
    assert target.read_text() == "stolen"


def test_damaged_records_are_found(version):
    records = version / warm_up.PATH
    content = bytearray(records.read_bytes())
    content[20] ^= 1
    records.write_bytes(content)
    card(version)
    (line,) = verification.differences(version)[0]
    assert "tf_serving_warmup_requests is damaged" in line


@pytest.mark.parametrize("ending", contents.OTHER_KINDS)
def test_other_formats_say_what_was_not_looked_at(ending, tmp_path, loads):
    (tmp_path / f"model{ending}").write_bytes(b"anything")
    formats = {file[len("model") :]: f for f, file in contents.FILES.items()}
    card(tmp_path, formats[ending])
    assert contents.version_directory(str(tmp_path)) == str(tmp_path)
    found, notes = verification.differences(tmp_path)
    assert found == [] and loads == []
    assert "its answers were not looked at" in notes[-1]
    (tmp_path / f"model{ending}").write_bytes(b"another")
    found, _ = verification.differences(tmp_path)
    assert len(found) == 1 and "another checksum" in found[0]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A function that puts a stand-in for the server on PATH."""

    def install(script=None, kind=""):
        program = tmp_path / "bin" / server.PROGRAM
        program.parent.mkdir()
        script = script or f'exec "{sys.executable}" "{STAND_IN}" "$@"'
        log = tmp_path / "pid"
        program.write_text(f'#!/bin/sh\necho $$ > "{log}"\n{script}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        monkeypatch.setenv("PATH", path)
        monkeypatch.setenv("STAND_IN", kind)
        root = pathlib.Path(verification.__file__).parents[3]
        monkeypatch.setenv("PYTHONPATH", str(root))

    yield install
    # Whatever it did: it runs no more.
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_server_answers_in_all_ways(version, stand_in):
    stand_in()
    found, notes = verification.differences(version)
    assert found == []
    ways = [note for note in notes if note.startswith(server.PROGRAM)]
    assert [way.split(": ")[0] for way in ways] == [
        'tensorflow_model_server by REST ("inputs")',
        'tensorflow_model_server by REST ("instances")',
        "tensorflow_model_server by gRPC",
    ]
    assert all(way.endswith("as the C API's, requests: 2") for way in ways)


def test_a_server_that_answers_otherwise_is_found(version, stand_in):
    stand_in(kind="wrong")
    found, _ = verification.differences(version)
    assert len(found) == 3 * 2 * 2  # ways, requests, outputs
    assert all("0.001 of its largest number apart" in line for line in found)


@pytest.mark.thorough
def test_a_server_that_loads_nothing_is_found(version, stand_in):
    stand_in(kind="refuses")
    found, _ = verification.differences(version)
    assert found == ["tensorflow_model_server does not load it: zlib says no"]


@pytest.mark.thorough
def test_a_server_that_does_not_stop_is_stopped(version, stand_in, monkeypatch):
    monkeypatch.setattr(server, "STOP", 1)
    stand_in(kind="stays")
    assert verification.differences(version)[0] == []


def test_a_server_that_ends_is_found(version, stand_in):
    stand_in("echo Unknown flag; exit 1")
    found, _ = verification.differences(version)
    assert found == ["tensorflow_model_server ended: Unknown flag"]


def test_a_server_that_never_answers_is_found(version, stand_in, monkeypatch):
    monkeypatch.setattr(server, "WAIT", 1)
    stand_in("echo starting; exec sleep 60")
    found, _ = verification.differences(version)
    assert found == [
        "tensorflow_model_server was not available after 1 seconds: starting"
    ]


@pytest.mark.parametrize("name", ["left", "right"])
def test_servers_are_asked_what_they_can_be_asked(name):
    given, empty = inputs(2), inputs(0)
    for way in server.WAYS:
        assert server.possible(way, given, {})
        half = {name: given[name].astype(np.float16)}
        assert server.possible(way, half, {}) == (way == "gRPC")
        assert server.possible(way, empty, {}) == ("instances" not in way)
        apart = {**given, "scalar": np.float32(1)}
        assert server.possible(way, apart, {}) == ("instances" not in way)


def test_without_the_messages_of_serving_a_probe_is_asked(version, monkeypatch):
    def missing(path):
        raise ImportError("tensorflow-serving-api is not installed")

    monkeypatch.setattr(warm_up, "read", missing)
    found, notes = verification.differences(version)
    assert found == []
    assert any("were not replayed: tensorflow-serving" in n for n in notes)
    assert any("instead of recorded requests" in note for note in notes)


def test_the_stand_in_is_called_so():
    text = STAND_IN.read_text()
    assert "stand-in" in text.splitlines()[0]
