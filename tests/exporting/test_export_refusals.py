"""What `lottery.export` refuses: what it says, and that nothing is left."""

import concurrent.futures
import errno
import importlib.util
import os
import re
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery import tfmot_bridge
from keras_lottery.exporting import codec
from keras_lottery.exporting import compact
from keras_lottery.exporting import describing
from keras_lottery.exporting import formats
from keras_lottery.exporting import warm_up
from keras_lottery.exporting.card import model_card

pytestmark = pytest.mark.thorough

LAYERS = keras.layers
SERVED = [name for name, each in formats.FORMATS.items() if each.served]
OTHERS = [name for name in formats.FORMATS if name not in SERVED]


def small():
    return keras.Sequential([keras.Input((4,), name="x"), LAYERS.Dense(3)])


def of_layers(*layers, shape=(4,), dtype=None):
    inputs = outputs = keras.Input(shape, dtype=dtype, name="x")
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def refused(tmp_path, match, model, error=ValueError, **asked):
    """Exports into a base that is not there; nothing of it may stay."""
    base = tmp_path / "not" / "there"
    with pytest.raises(error, match=match) as raised:
        lottery.export(model, base, **asked)
    assert os.listdir(tmp_path) == []
    return raised.value


# ------------------------------------------------------------------- models


def unbuilt():
    return keras.Sequential([LAYERS.Dense(2)])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.out = LAYERS.Dense(2)

    def call(self, inputs):
        return self.out(inputs)


def hashing():
    layers = [LAYERS.Hashing(5), LAYERS.Embedding(5, 3), LAYERS.Dense(2)]
    return of_layers(*layers, shape=(1,), dtype="string")


def text():
    words = LAYERS.TextVectorization(output_sequence_length=3)
    words.adapt(["to be or not to be"])
    layers = [words, LAYERS.Embedding(9, 3)]
    return of_layers(*layers, shape=(), dtype="string")


def open_ended():
    inputs = keras.Input((None, 4), name="x")
    return keras.Model(inputs, LAYERS.LSTM(3)(inputs))


def ragged():
    inputs = keras.Input((None,), dtype="int32", ragged=True, name="x")
    return keras.Model(inputs, LAYERS.Embedding(4, 2)(inputs))


def complex_inputs():
    return of_layers(LAYERS.Activation("linear"), dtype="complex64")


def hash_table():
    lookup = LAYERS.IntegerLookup(vocabulary=[3, 4, 5])
    layers = [lookup, LAYERS.Embedding(9, 3)]
    return of_layers(*layers, shape=(1,), dtype="int64")


def with_state():
    inputs = keras.Input(batch_shape=(16, 5, 4), name="x")
    return keras.Model(inputs, LAYERS.LSTM(3, stateful=True)(inputs))


REFUSED = {
    unbuilt: "'sequential.*' is not built: call it once first",
    Subclassed: "'subclassed.*' is not built: call it once first",
    hashing: "The input 'x' has dtype string; expected floats, integers or",
    text: "The input 'x' has dtype string; expected floats, integers or",
    open_ended: r"'x' has shape \(None, None, 4\).*only its first dimension",
    ragged: r"'x' has shape \(None, None\).*only its first dimension",
    complex_inputs: "The input 'x' has dtype complex64; expected floats",
}


@pytest.mark.parametrize("format", ["compact", "keras", "onnx"])
@pytest.mark.parametrize("build", REFUSED)
def test_a_model_that_no_format_takes(build, format, tmp_path):
    refused(tmp_path, REFUSED[build], build(), format=format)


@pytest.mark.parametrize("format", SERVED)
@pytest.mark.parametrize("build", [hash_table, with_state])
def test_what_lives_outside_the_weights(build, format, tmp_path):
    """Tables and states are resources that no value stands for."""
    match = "holds .* beside its weights"
    refused(tmp_path, match, build(), format=format)


@pytest.mark.parametrize("format", ["compact", "compact-serving"])
def test_float64_goes_into_a_dense_export(format, tmp_path):
    model = of_layers(LAYERS.Dense(2, dtype="float64"), LAYERS.Dense(2))
    match = "holds float32, float16, bfloat16, and the model has float64.*dense"
    refused(tmp_path, match, model, format=format)
    assert lottery.export(model, tmp_path, format="dense")


@pytest.mark.parametrize("format", formats.FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value, format, tmp_path):
    model = small()
    model.layers[-1].bias.assign([0, 0, value])
    match = "'dense.*/bias' is not finite: nothing was exported"
    refused(tmp_path, match, model, format=format)


@pytest.mark.parametrize("format", ["compact", "compact-serving"])
def test_float16_ends_at_65504(format, tmp_path):
    model = small()
    model.layers[-1].kernel.assign(np.full((4, 3), 65504))
    asked = {"format": format, "values": "float16"}
    assert lottery.export(model, tmp_path / "fits", **asked)
    model.layers[-1].kernel.assign(np.full((4, 3), 65520))
    base = tmp_path / "beyond"
    match = "dense.*/kernel has a weight of 65520, and float16 ends at 65504"
    with pytest.raises(ValueError, match=match):
        lottery.export(model, base, **asked)
    assert os.listdir(tmp_path) == ["fits"]


@pytest.mark.parametrize("format", ["compact", "compact-serving"])
def test_more_than_a_payload_holds(format, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(codec, "MOST", 32)
        refused(tmp_path, "format='dense'", small(), format=format)
        patched.setattr(codec, "MOST", 33)  # 12 + 3 in rows of 16
        assert lottery.export(small(), tmp_path / "a", format=format)
    monkeypatch.setattr(compact, "MOST_BYTES", 16)
    with pytest.raises(ValueError, match="16 bytes of weights at most.*dense"):
        lottery.export(small(), tmp_path / "b", format=format)
    assert os.listdir(tmp_path) == ["a"]


NAMES = ["class", "lambda", "from", "self", "a:b", "a.b", "a b", "_a", "ä", "1"]


@pytest.mark.parametrize("format", ["compact", "dense"])
@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_parameters_of_a_signature(name, format, tmp_path):
    inputs = keras.Input((4,), name=name)
    model = keras.Model(inputs, LAYERS.Dense(2)(inputs))
    match = rf"The input '{re.escape(name)}' .*keras.Input\(.*name="
    refused(tmp_path, match, model, format=format)


@pytest.mark.parametrize("name", ["class", "self"])
def test_what_python_cannot_load_is_not_for_servers_only(name, tmp_path):
    inputs = keras.Input((4,), name=name)
    model = keras.Model(inputs, LAYERS.Dense(2)(inputs))
    refused(tmp_path, f"The input '{name}'", model, format="compact-serving")


@pytest.mark.parametrize("name", ["two words", "ünï 模型", "a:b", "-rf", "_a"])
def test_names_that_keras_itself_cannot_trace(name, tmp_path):
    """Neither `fit` nor `predict` runs such a model as a graph."""
    model = keras.Sequential([keras.Input((4,)), LAYERS.Dense(3)], name=name)
    match = f"TensorFlow.*{re.escape(repr(name))}.*[Rr]ename"
    for format in SERVED:
        refused(tmp_path, match, model, format=format)
    inside = of_layers(LAYERS.Dense(3, name="ü"))
    refused(tmp_path, "TensorFlow.*'ü'.*[Rr]ename", inside)
    # No scope of a refused model stays open for the next one.
    assert lottery.export(small(), tmp_path)


def test_what_is_no_model(tmp_path):
    layer = LAYERS.Dense(3)
    layer.build((None, 4))
    for given in (None, layer, small, [small()], small().get_weights()):
        refused(tmp_path, "Expected a Ticket, a PrunedModel.*got", given)


def test_model_is_for_tickets(tmp_path):
    with pytest.raises(ValueError, match="`model` is what a ticket is"):
        lottery.export(small(), tmp_path / "base", model=small())
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------- what is asked of it


COMBINATIONS = [
    ("dense", "float16"),
    ("keras", "int8"),
    ("onnx", "bfloat16"),
    ("lite", "bfloat16"),
]


@pytest.mark.parametrize("format, values", COMBINATIONS)
def test_values_that_a_format_does_not_hold(format, values, tmp_path):
    match = f"format='{format}' holds .*got values='{values}'.*format=compact"
    refused(tmp_path, match, small(), format=format, values=values)


@pytest.mark.parametrize("values", ["float64", "int4", None, ["int8"]])
def test_values_that_are_none(values, tmp_path):
    match = "`values` is one of float32, float16, bfloat16, int8; got"
    refused(tmp_path, match, small(), values=values)


@pytest.mark.parametrize("format", ["Compact", "", None, 1, ["compact"]])
def test_formats_that_are_none(format, tmp_path):
    match = "Unknown format .*Expected one of 'compact', 'compact-serving'"
    refused(tmp_path, match, small(), format=format)


@pytest.mark.parametrize("format", OTHERS)
def test_only_what_is_served_is_measured(format, tmp_path):
    match = r"`measure` is for .*\(compact, compact-serving, dense\)"
    refused(tmp_path, match, small(), format=format, measure=True)


def test_code_of_ones_own_does_not_shrink(tmp_path):
    model = Subclassed()
    model(np.zeros((1, 4), np.float32))
    match = "code of its own.*keras.Model"
    refused(tmp_path, match, model, shrink=True)


ROWS = np.ones((3, 4), np.float32)
SAMPLES = {
    "width": (np.ones((3, 5)), r"shape \(3, 5\), expected \('rows', 4\)"),
    "rank": (np.ones(4), r"shape \(4,\), expected .*samples\[None\]"),
    "text": (np.array([["a"] * 4]), "are strings, expected arrays of numbers"),
    "ragged": ([[1, 2, 3, 4], [1]], "ragged or no array"),
    "NaN": (ROWS * np.nan, "hold NaN or infinity in float32"),
    "beyond float32": (np.full((3, 4), 1e300), "NaN or infinity in float32"),
    "no rows": (ROWS[:0], "have no rows"),
    "complex": (ROWS.astype(complex), "expected arrays of numbers"),
    "other name": ({"y": ROWS}, "dict with 'y'; the model's inputs are 'x'"),
    "three": ((ROWS, [0] * 3, [1] * 3), "A tuple as `samples` is"),
    "generator": ((row for row in ROWS), "expected arrays of numbers"),
    "fewer labels": ((ROWS, [0, 1]), "numbers of rows: 'x' 3, 'labels' 2"),
    "high label": ((ROWS, [0, 1, 3]), "class numbers from 0 to 2, got 0 to 3"),
    "negative label": ((ROWS, [0, 1, -1]), "from 0 to 2, got -1 to 1"),
    "half a label": ((ROWS, [0, 1, 0.5]), "Labels must be class numbers"),
    "wide labels": ((ROWS, np.ones((3, 2))), r"shape \(3, 2\) .*do not fit"),
    "text labels": ((ROWS, ["a", "b", "c"]), "are strings"),
    "NaN labels": ((ROWS, [0, 1, np.nan]), "hold NaN"),
}


@pytest.mark.parametrize("format", ["compact", "keras"])
@pytest.mark.parametrize("case", SAMPLES)
def test_samples_that_do_not_fit(case, format, tmp_path):
    samples, match = SAMPLES[case]
    refused(tmp_path, match, small(), samples=samples, format=format)


def test_samples_of_another_kind_of_number(tmp_path):
    model = of_layers(LAYERS.Embedding(7, 2), shape=(2,), dtype="uint8")
    for samples, match in (
        (np.ones((3, 2)), "dtype float64, expected uint8"),
        (np.full((3, 2), 256), "hold 256 to 256, beyond uint8"),
    ):
        refused(tmp_path, match, model, samples=samples)


def test_labels_are_of_one_output(tmp_path):
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, [LAYERS.Dense(3)(inputs) for _ in range(2)])
    match = "Accuracy is of one output, got 2"
    refused(tmp_path, match, model, samples=(ROWS, [0, 1, 2]))


def test_samples_need_messages_of_a_server(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    match = r"pip install 'keras_lottery\[serving\]'.*leave `samples` out"
    for format in SERVED:
        refused(
            tmp_path, match, small(), ImportError, samples=ROWS, format=format
        )
    lottery.export(small(), tmp_path / "no samples")
    lottery.export(small(), tmp_path / "a file", samples=ROWS, format="keras")


def test_onnx_needs_tf2onnx(tmp_path, monkeypatch):
    real = importlib.util.find_spec

    def found(name, *rest):
        return None if name == "tf2onnx" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    match = r"format='onnx' needs tf2onnx.*pip install 'keras_lottery\[onnx\]'"
    refused(tmp_path, match, small(), format="onnx")


def test_what_tf_keras_models_cannot_be(tmp_path):
    tf_keras = tfmot_bridge.legacy_keras()
    model = tf_keras.Sequential(
        [tf_keras.Input((4,), name="x"), tf_keras.layers.Dense(3)]
    )
    for format in OTHERS:
        match = f"format='{format}' starts from a Keras 3 model.*tf_keras"
        refused(tmp_path, match, model, format=format)
    refused(tmp_path, "`shrink` works on Keras 3 models", model, shrink=True)
    model.weights[0].assign(np.full((4, 3), np.nan))
    refused(tmp_path, "kernel' is not finite", model)
    unbuilt_one = tf_keras.Sequential([tf_keras.layers.Dense(2)])
    refused(tmp_path, "not built", unbuilt_one)


# -------------------------------------------------------------- directories


def test_a_version_that_exists_in_any_form(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").write_text("a file")
    (tmp_path / "3").symlink_to("nowhere")
    before = sorted(os.listdir(tmp_path))
    for version in (1, 2, 3):
        with pytest.raises(ValueError, match=f"{version} exists.*Leave `vers"):
            lottery.export(small(), tmp_path, version=version)
        assert sorted(os.listdir(tmp_path)) == before
    assert os.path.basename(lottery.export(small(), tmp_path)) == "4"
    assert (tmp_path / "2").read_text() == "a file"
    assert os.readlink(tmp_path / "3") == "nowhere"


def test_a_version_under_another_spelling(tmp_path):
    """A server reads both as 7, and serves one of them."""
    (tmp_path / "007").mkdir()
    with pytest.raises(ValueError, match="007 exists"):
        lottery.export(small(), tmp_path, version=7)
    assert os.path.basename(lottery.export(small(), tmp_path)) == "8"


def test_a_version_that_a_server_can_count(tmp_path):
    match = r"`version` must be an int >= 0.*got 9223372036854775808"
    refused(tmp_path, match, small(), version=2**63)
    (tmp_path / str(10**30)).mkdir()  # no version: a server skips it
    assert os.path.basename(lottery.export(small(), tmp_path)) == "1"
    lottery.export(small(), tmp_path, version=2**63 - 1)
    with pytest.raises(ValueError, match="no version .* free"):
        lottery.export(small(), tmp_path)
    assert len(os.listdir(tmp_path)) == 3


def test_a_base_that_is_no_directory(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    before = sorted(os.listdir(tmp_path))
    for base in (file, file / "below" / "it", link):
        with pytest.raises(ValueError, match="`base` .*directory.*(file|link)"):
            lottery.export(small(), base)
        assert sorted(os.listdir(tmp_path)) == before
    assert file.read_text() == "mine"


@pytest.mark.parametrize("base", ["", None, 5, "gs://bucket/model"])
def test_a_base_that_is_no_local_path(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="`base` must be .*path.*got"):
        lottery.export(small(), base)
    assert os.listdir(tmp_path) == []


def test_a_base_in_bytes(tmp_path):
    path = lottery.export(small(), os.fsencode(tmp_path), samples=ROWS)
    assert path == os.path.join(tmp_path, "1")


def test_a_base_that_cannot_be_made_leaves_no_half_of_it(tmp_path):
    refused_base = tmp_path / "not" / "there" / ("n" * 300)
    with pytest.raises(OSError, match="File name too long"):
        lottery.export(small(), refused_base)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_base_that_is_not_writable():
    # Nobody, root neither, makes directories here.
    with pytest.raises(OSError):
        lottery.export(small(), "/proc/self/fd")
    with pytest.raises(OSError):
        lottery.export(small(), "/proc/not/there")


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


class Half:
    """A writer that breaks after it has written something."""

    def __init__(self, error):
        self.error = error

    def __call__(self, model, path, *, values):
        compact.write_compact(model, path, values=values)
        raise self.error


STAGES = {
    "format": lambda patch, error: patch.setitem(
        formats.FORMATS,
        "compact",
        formats.FORMATS["compact"]._replace(write=Half(error)),
    ),
    "asking": lambda patch, error: patch.setattr(
        formats.tf.saved_model, "load", raising(error)
    ),
    "warm-up": lambda patch, error: patch.setattr(
        warm_up.tf.io, "TFRecordWriter", raising(error)
    ),
    "facts": lambda patch, error: patch.setattr(
        describing.model_card, "facts", raising(error)
    ),
    "cards": lambda patch, error: patch.setattr(
        model_card.files, "write_whole", raising(error)
    ),
    "rename": lambda patch, error: patch.setattr(os, "rename", raising(error)),
}
FULL = OSError(errno.ENOSPC, "No space left on device")
TF_FULL = tf.errors.ResourceExhaustedError(
    None, None, "x/saved_model.pb; No space left on device"
)


ENDS = [
    *((stage, FULL) for stage in STAGES),
    *((stage, KeyboardInterrupt()) for stage in STAGES),
    ("format", OSError(errno.EDQUOT, "Disk quota exceeded")),
    ("format", TF_FULL),
    ("cards", SystemExit(1)),
]


@pytest.mark.parametrize(
    "stage, error", ENDS, ids=[f"{s}-{type(e).__name__}" for s, e in ENDS]
)
def test_whenever_it_ends_nothing_is_left(stage, error, tmp_path, monkeypatch):
    full = not isinstance(error, (KeyboardInterrupt, SystemExit))
    STAGES[stage](monkeypatch, error)
    raised = OSError if full else type(error)
    found = refused(tmp_path, "", small(), raised, samples=ROWS)
    if full:
        assert found.errno == errno.ENOSPC
        assert "There is no room for the export in" in str(found)


def test_a_failure_leaves_versions_that_were_there(tmp_path, monkeypatch):
    path = lottery.export(small(), tmp_path)
    before = contents(path)
    with monkeypatch.context() as patch:
        STAGES["cards"](patch, FULL)
        with pytest.raises(OSError, match="no room"):
            lottery.export(small(), tmp_path)
    assert os.listdir(tmp_path) == ["1"]
    assert contents(path) == before
    assert os.path.basename(lottery.export(small(), tmp_path)) == "2"


def contents(path):
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.join(folder, name)] = file.read()
    return found


@pytest.fixture
def disk(tmp_path):
    """A directory that is a disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root and `mount`")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(disk):
    """Page by page: either all of a version is there, or nothing."""
    model = of_layers(LAYERS.Dense(20), LAYERS.Dense(3))
    whole, ended = None, []
    for free in (64, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0):  # pages of 4 kB
        filler, base = disk / "filler", disk / "base"
        filler.write_bytes(b"x" * (256 - 4 * free) * 1024)
        try:
            path = lottery.export(model, base, samples=(ROWS, [0, 1, 2]))
        except OSError as error:
            assert error.errno == errno.ENOSPC
            assert "There is no room for the export in" in str(error)
            assert os.listdir(disk) == ["filler"]
            ended.append(False)
        else:
            names = {os.path.relpath(n, path) for n in contents(path)}
            whole = whole or names
            assert names == whole
            requests = warm_up.read(path)
            assert sum(len(given["x"]) for given, _ in requests) == 3
            subprocess.run(["rm", "-r", str(base)], check=True)
            ended.append(True)
    assert ended[0] and not ended[-1]
    assert ended == sorted(ended, reverse=True)


def test_exports_that_race_for_a_number(tmp_path):
    """All finish their writing at once, and each gets a number of its own."""
    together = threading.Barrier(6)
    chosen = formats.FORMATS["compact"]

    def export(number):
        model = small()
        model.layers[-1].bias.assign([number] * 3)
        return number, lottery.export(model, tmp_path)

    def write(model, path, *, values):
        chosen.write(model, path, values=values)
        together.wait(60)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(formats.FORMATS, "compact", chosen._replace(write=write))
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            found = dict(pool.map(export, range(6)))
    versions = sorted(int(os.path.basename(path)) for path in found.values())
    assert versions == [1, 2, 3, 4, 5, 6]
    assert sorted(os.listdir(tmp_path), key=int) == list(map(str, versions))
    for number, path in found.items():
        serve = tf.saved_model.load(path).signatures["serving_default"]
        (answer,) = serve(x=tf.zeros((1, 4))).values()
        np.testing.assert_array_equal(answer, [[number] * 3])


def test_a_version_that_appears_meanwhile_is_not_overwritten(
    tmp_path, monkeypatch
):
    write = formats.FORMATS["compact"].write

    def slow(model, path, *, values):
        write(model, path, values=values)
        (tmp_path / "5").mkdir()
        (tmp_path / "5" / "theirs").write_text("first")

    late = formats.FORMATS["compact"]._replace(write=slow)
    monkeypatch.setitem(formats.FORMATS, "compact", late)
    with pytest.raises(ValueError, match="5 exists"):
        lottery.export(small(), tmp_path, version=5)
    assert os.listdir(tmp_path) == ["5"]
    assert os.listdir(tmp_path / "5") == ["theirs"]


def test_another_is_first_between_the_look_and_the_rename(
    tmp_path, monkeypatch
):
    """The last moment: the number was free, and is taken by `rename`."""
    rename = os.rename

    def beaten(source, target):
        monkeypatch.setattr(os, "rename", rename)
        os.mkdir(target)
        with open(os.path.join(target, "theirs"), "w") as file:
            file.write("first")
        rename(source, target)

    monkeypatch.setattr(os, "rename", beaten)
    assert os.path.basename(lottery.export(small(), tmp_path)) == "2"
    assert os.listdir(tmp_path / "1") == ["theirs"]
    monkeypatch.setattr(os, "rename", beaten)
    with pytest.raises(ValueError, match="7 exists"):
        lottery.export(small(), tmp_path, version=7)
    assert sorted(os.listdir(tmp_path)) == ["1", "2", "7"]
