"""Compact exports: every loader there is answers as the Keras model."""

import gc
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_lottery.exporting import codec
from keras_lottery.exporting import compact
from keras_lottery.exporting import compact_serving
from keras_lottery.exporting import decoding
from keras_lottery.exporting import dense as dense_format
from keras_lottery.exporting import network as networks
from keras_lottery.exporting import signature as signatures
from keras_lottery.exporting import stripping
from keras_lottery.exporting.verifying import served
from keras_lottery.models import lenet

pytestmark = pytest.mark.thorough

LAYERS = keras.layers


def fill(model, sparsity=0.9):
    """Random weights, of the kernels the largest: nothing trivially 0 or 1."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if "float" not in variable.dtype:
            continue
        value = generator.normal(0, 0.3, variable.shape)
        if "variance" in variable.path or "gamma" in variable.path:
            value = generator.uniform(0.5, 1.5, variable.shape)
        elif len(variable.shape) > 1:
            value[np.abs(value) < np.quantile(np.abs(value), sparsity)] = 0
        variable.assign(value)
    return model


def dense():
    return fill(
        keras.Sequential(
            [
                keras.Input((20,), name="pixels"),
                LAYERS.Dense(70, activation="relu"),
                LAYERS.Dropout(0.5),
                LAYERS.Dense(3, name="logits"),
            ]
        )
    )


def other_dense():
    model = dense()
    for variable in model.trainable_variables:
        variable.assign(-2 * variable)
    return model


def convolutional():
    inputs = keras.Input((8, 8, 2), name="image")
    x = LAYERS.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = LAYERS.ReLU()(LAYERS.BatchNormalization()(x))
    y = LAYERS.DepthwiseConv2D(3, padding="same")(x)
    x = LAYERS.GlobalAveragePooling2D()(LAYERS.add([x, y]))
    return fill(keras.Model(inputs, LAYERS.Dense(3)(x)))


def two_dtypes():
    """Three stores in one export; no biases, which graphs round once less."""
    inputs = keras.Input((20,), name="pixels")
    x = LAYERS.Dense(30, use_bias=False, dtype="float16")(inputs)
    y = LAYERS.Dense(30, use_bias=False, dtype="bfloat16")(inputs)
    both = [LAYERS.Activation("linear", dtype="float32")(z) for z in (x, y)]
    return fill(keras.Model(inputs, LAYERS.Dense(3)(LAYERS.add(both))))


def two_in_two_out():
    a = keras.Input((4,), name="left")
    b = keras.Input((2,), name="right", dtype="int32")
    embedded = LAYERS.Flatten()(LAYERS.Embedding(7, 3)(b))
    both = LAYERS.Concatenate()([a, embedded])
    outputs = {"one": LAYERS.Dense(2)(both), "two": LAYERS.Dense(1)(both)}
    return fill(keras.Model({"left": a, "right": b}, outputs), 0.7)


def sequences():
    """Loops, whose bodies are functions of their own, and attention."""
    inputs = keras.Input((5, 6), name="steps")
    x = LAYERS.Bidirectional(LAYERS.LSTM(8, return_sequences=True))(inputs)
    x = LAYERS.LayerNormalization()(x + LAYERS.MultiHeadAttention(2, 4)(x, x))
    return fill(keras.Model(inputs, LAYERS.GRU(3)(x)))


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = LAYERS.Dense(40, activation="relu")
        self.out = LAYERS.Dense(2)

    def call(self, inputs):
        return self.out(self.hidden(inputs))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 6), np.float32))
    return fill(model)


def no_weights():
    return keras.Sequential([keras.Input((4,), name="pixels"), LAYERS.ReLU()])


WRITERS = [compact.write_compact, compact_serving.write_compact_serving]
EXACT = {f.__name__: f for f in (dense, other_dense, subclassed, no_weights)}
CLOSE = {
    f.__name__: f
    for f in (convolutional, two_dtypes, two_in_two_out, sequences)
}


class Export:
    """A model, where it was written, and what it answers to what."""

    def __init__(self, model, path, rows=5):
        self.model = model
        self.path = os.fspath(path)
        compact.write_compact(model, self.path)
        specs, arranged = signatures.signature(model)
        generator = np.random.default_rng(1)
        self.inputs = {
            name: (generator.random((rows, *spec.shape[1:])) * 6).astype(
                spec.dtype.as_numpy_dtype
            )
            for name, spec in specs.items()
        }
        outputs = model(arranged(self.inputs), training=False)
        named = signatures.named_outputs(model, outputs)
        self.expected = {name: value.numpy() for name, value in named.items()}

    def serve(self, signature):
        given = {name: tf.constant(v) for name, v in self.inputs.items()}
        return {name: v.numpy() for name, v in signature(**given).items()}

    def check(self, found, exact):
        assert set(found) == set(self.expected)
        for name, value in self.expected.items():
            assert found[name].dtype == value.dtype
            if exact:
                np.testing.assert_array_equal(found[name], value)
            else:
                limit = 1e-7 * np.abs(value).max()
                # float32 itself has steps of 6e-8 of the largest.
                limit = max(limit, 2 * np.spacing(np.abs(value).max()))
                assert np.abs(found[name] - value).max() <= limit


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    base = tmp_path_factory.mktemp("compact")
    return {
        name: Export(build(), base / name)
        for name, build in {**EXACT, **CLOSE}.items()
    }


@pytest.fixture(params=[*EXACT, *CLOSE])
def each(request, exports):
    return exports[request.param], request.param in EXACT


def signature_of(path):
    """Returns the signature alone: what it came from is gone."""
    signature = tf.saved_model.load(path).signatures["serving_default"]
    gc.collect()
    return signature


def meta_graph(path):
    saved = saved_model_pb2.SavedModel()
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        saved.ParseFromString(file.read())
    (only,) = saved.meta_graphs
    return only


def test_tensorflow_loads_it(each):
    export, exact = each
    loaded = tf.saved_model.load(export.path)
    export.check(export.serve(loaded.signatures["serving_default"]), exact)


def test_a_signature_answers_without_what_it_was_loaded_with(each):
    export, exact = each
    export.check(export.serve(signature_of(export.path)), exact)


def test_it_answers_as_the_dense_export_does(each, tmp_path):
    """Both run as graphs, which fuse what the Keras model does in steps."""
    export, _ = each
    dense_format.write_dense(export.model, str(tmp_path))
    expected = export.serve(signature_of(str(tmp_path)))
    for name, value in export.serve(signature_of(export.path)).items():
        np.testing.assert_array_equal(value, expected[name])


def test_a_signature_owns_its_weights_because_we_tie_them(
    tmp_path, monkeypatch
):
    """Where this fails, TensorFlow ties them itself and `tie` can go."""
    monkeypatch.setattr(stripping, "tie", lambda objects: None)
    export = Export(dense(), tmp_path)
    with pytest.raises(tf.errors.OpError, match="(?i)resource|variable"):
        export.serve(signature_of(export.path))


def test_batch_size_is_free_and_names_and_dtypes_are_the_models(exports):
    serve = signature_of(exports["two_in_two_out"].path)
    _, specs = serve.structured_input_signature
    assert set(specs) == {"left", "right"}
    assert specs["right"].dtype == tf.int32
    assert specs["left"].shape.as_list() == [None, 4]
    assert set(serve.structured_outputs) == {"one", "two"}
    for rows in (0, 1, 9):
        given = {
            "left": tf.ones((rows, 4)),
            "right": tf.ones((rows, 2), tf.int32),
        }
        assert serve(**given)["two"].shape == (rows, 1)


def test_the_tf1_loader_loads_it_several_in_one_session(exports):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        chosen = [exports[n] for n in ("dense", "other_dense", "two_dtypes")]
        signatures = [
            v1.saved_model.load(
                session, ["serve"], export.path, import_scope=f"at_{i}"
            ).signature_def["serving_default"]
            for i, export in enumerate(chosen)
        ]
        for i, (export, signature) in enumerate(
            zip(chosen, signatures, strict=True)
        ):
            found = session.run(
                {
                    name: f"at_{i}/{info.name}"
                    for name, info in signature.outputs.items()
                },
                {
                    f"at_{i}/{signature.inputs[name].name}": value
                    for name, value in export.inputs.items()
                },
            )
            export.check(found, exact=export is not chosen[2])


def served_in_c(exports):
    """Returns what TensorFlow's C++ loader answers, as TF Serving calls it."""
    asked = [(export.path, [export.inputs]) for export in exports]
    return [answers[0] for answers in served.together(asked)]


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_the_c_api_loads_all_in_one_process(exports, tmp_path):
    answers = served_in_c(exports.values())
    for (name, export), found in zip(exports.items(), answers, strict=True):
        export.check(found, exact=name in EXACT)


def test_keras_loads_it_as_a_layer(exports):
    export = exports["dense"]
    layer = LAYERS.TFSMLayer(export.path, call_endpoint="serving_default")
    model = keras.Sequential([keras.Input((20,)), layer])
    (x,) = export.inputs.values()
    found = model.predict(x, verbose=0)
    assert len(model.trainable_variables) == 0
    export.check({k: np.asarray(v) for k, v in found.items()}, exact=True)


MIRRORED = """
import sys
import numpy as np
import tensorflow as tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    loaded = tf.saved_model.load(sys.argv[1])
serve = loaded.signatures["serving_default"]
given = {k: tf.constant(v) for k, v in np.load(sys.argv[2]).items()}
found = tf.function(lambda: strategy.run(lambda: serve(**given)))()
answers = [strategy.experimental_local_results(v) for v in found.values()]
assert {len(each) for each in answers} == {2}
for i in range(2):
    np.savez(sys.argv[3 + i], **{
        name: each[i].numpy() for name, each in zip(found, answers)})
"""


@pytest.mark.parametrize("name", ["dense", "two_dtypes"])
def test_a_mirrored_strategy_loads_it(name, exports, tmp_path):
    export = exports[name]
    given, *found = [f"{tmp_path}/{n}.npz" for n in ("given", "one", "two")]
    np.savez(given, **export.inputs)
    run("-c", MIRRORED, export.path, given, *found)
    for path in found:
        export.check(dict(np.load(path)), exact=name in EXACT)


def test_saved_again_it_stays_compact(exports, tmp_path):
    chosen = [exports["dense"], exports["two_dtypes"]]
    for i, export in enumerate(chosen):
        loaded = tf.saved_model.load(export.path)
        again = f"{tmp_path}/{i}"
        tf.saved_model.save(loaded, again, signatures=loaded.signatures)
        del loaded
        gc.collect()
        once_more = tf.saved_model.load(again)
        serve = once_more.signatures["serving_default"]
        export.check(export.serve(serve), exact=i == 0)
        data = f"{again}/variables/variables.data-00000-of-00001"
        assert os.path.getsize(data) < 1000
    moved = [
        shallow(export, f"{tmp_path}/{i}") for i, export in enumerate(chosen)
    ]
    for i, found in enumerate(served_in_c(moved)):
        chosen[i].check(found, exact=i == 0)


@pytest.mark.xfail(
    strict=True,
    raises=tf.errors.OpError,
    reason="TensorFlow saves no attributes of a signature again: of an export "
    "that is loaded and saved again, the loaded object has to be held.",
)
def test_saved_again_a_signature_answers_alone(exports, tmp_path):
    loaded = tf.saved_model.load(exports["dense"].path)
    again = str(tmp_path)
    tf.saved_model.save(loaded, again, signatures=loaded.signatures)
    exports["dense"].serve(signature_of(again))


def shallow(export, path):
    other = Export.__new__(Export)
    other.__dict__.update(export.__dict__, path=path)
    return other


@pytest.mark.parametrize("name", ["dense", "convolutional"])
def test_xla_compiles_around_the_signature(name, exports):
    export = exports[name]
    serve = signature_of(export.path)
    compiled = tf.function(lambda **given: serve(**given), jit_compile=True)
    for output, value in export.serve(compiled).items():
        np.testing.assert_allclose(
            value, export.expected[output], rtol=1e-5, atol=1e-6
        )


def test_several_loads_in_one_process_keep_apart(exports):
    names = ["dense", "other_dense", "two_dtypes", "dense", "other_dense"]
    served = [(n, signature_of(exports[n].path)) for n in names]
    for name, signature in served + served[::-1]:
        export = exports[name]
        export.check(export.serve(signature), exact=name in EXACT)
    del served[0], signature
    gc.collect()
    for name, signature in served:
        export = exports[name]
        export.check(export.serve(signature), exact=name in EXACT)


def test_weights_go_with_the_last_that_holds_them(exports):
    loaded = tf.saved_model.load(exports["dense"].path)
    handle = loaded.float32[0].resource_handle
    kept = loaded.signatures
    del loaded
    gc.collect()
    read = {"resource": handle, "dtype": tf.float32}
    # One array of 1,400 and small ones, in one variable.
    assert tf.raw_ops.ReadVariableOp(**read).shape == (1400 + 70 + 210 + 3,)
    del kept
    gc.collect()
    with pytest.raises(tf.errors.OpError):
        tf.raw_ops.ReadVariableOp(**read)


def test_a_moved_directory_loads(tmp_path):
    export = Export(dense(), tmp_path / "written")
    moved = tmp_path / "elsewhere" / "7"
    shutil.move(export.path, moved)
    export.check(export.serve(signature_of(str(moved))), exact=True)


def test_saved_model_cli_shows_runs_and_scans_it(exports, tmp_path):
    export = exports["dense"]
    cli = "-m", "tensorflow.python.tools.saved_model_cli"
    shown = run(*cli, "show", "--dir", export.path, "--all").stdout
    assert "serving_default" in shown and "inputs['pixels']" in shown
    # Float constants and variables only: no file is read or written.
    scanned = run(*cli, "scan", "--dir", export.path, "--tag_set", "serve")
    assert "does not contain the default denylisted ops" in scanned.stdout
    np.save(tmp_path / "x.npy", export.inputs["pixels"])
    signature = ["--tag_set", "serve", "--signature_def", "serving_default"]
    given = ["--inputs", f"pixels={tmp_path}/x.npy", "--outdir", str(tmp_path)]
    run(*cli, "run", "--dir", export.path, *signature, *given)
    (name,) = export.expected
    export.check({name: np.load(tmp_path / f"{name}.npy")}, exact=True)


def functions_from(graph, name):
    """Returns a function of a graph and all that it calls."""
    library = {f.signature.name: f for f in graph.library.function}
    found, open_names = {}, [name]
    while open_names:
        name = open_names.pop()
        if name in found:
            continue
        found[name] = library[name]
        for node in library[name].node_def:
            for attribute in node.attr.values():
                if attribute.WhichOneof("value") == "func":
                    open_names.append(attribute.func.name)
    return found.values()


CORE = set(
    "AddV2 AssignVariableOp Bitcast Cast ConcatV2 Const Cumsum DecodeCompressed"
    " DecodeRaw EnsureShape GatherNd Identity Less NoOp Range Reshape ScatterNd"
    " SplitV StridedSlice Sub TensorScatterUpdate Transpose Where".split()
)


def test_requests_decode_nothing_and_the_initializer_is_core_ops(exports):
    graph = meta_graph(exports["two_dtypes"].path).graph_def
    signed = meta_graph(exports["two_dtypes"].path).signature_def
    ((output,),) = [
        [info.name.split(":")[0] for info in signed[name].outputs.values()]
        for name in ("serving_default",)
    ]
    (call,) = [node for node in graph.node if node.name == output]
    serving = call.attr["f"].func.name
    served = {n.op for f in functions_from(graph, serving) for n in f.node_def}
    assert "MatMul" in served
    assert not served & {"DecodeCompressed", "ScatterNd", "AssignVariableOp"}
    filling = [
        {node.op for node in f.node_def}
        for f in graph.library.function
        if any(node.op == "DecodeCompressed" for node in f.node_def)
    ]
    assert len(filling) == 3  # float16, bfloat16 and float32
    assert set().union(*filling) <= CORE
    assert not any(n.op == "DecodeCompressed" for n in graph.node)


def test_resources_have_names_of_their_own(exports):
    names = set()
    for name in ("dense", "other_dense", "two_dtypes"):
        for node in meta_graph(exports[name].path).graph_def.node:
            if node.op == "VarHandleOp":
                names.add(node.attr["shared_name"].s)
    assert len(names) == 1 + 1 + 3
    assert b"" not in names


def test_equal_bytes_of_other_shapes_have_names_of_their_own(tmp_path):
    names, payloads = set(), set()
    for size in (40, 80):
        model = keras.Sequential([keras.Input((size,)), LAYERS.Dense(2)])
        model.layers[0].kernel.assign(np.zeros((size, 2)))
        export = Export(model, tmp_path / str(size))
        (payload,), _ = compact.encoded(networks.of(model))
        payloads.add(payload.blob)
        (handle,) = [
            node
            for node in meta_graph(export.path).graph_def.node
            if node.op == "VarHandleOp"
        ]
        names.add(handle.attr["shared_name"].s)
    assert len(payloads) == 1
    assert len(names) == 2


@pytest.mark.parametrize("seed", range(3))
def test_the_graph_decodes_as_numpy_does(seed):
    generator = np.random.default_rng(seed)
    arrays = {}
    for i, density in enumerate([0.0, 0.003, 0.05, 0.3, 1.0]):
        shape = tuple(generator.integers(1, 30, generator.integers(0, 4)))
        value = generator.normal(size=shape).astype(np.float32)
        value = np.where(generator.random(shape) < density, value, 0)
        arrays[f"w{i}"] = value.astype(np.float32)
    arrays["empty"] = np.zeros((0, 4), np.float32)
    payload = codec.encode(arrays)
    rows = decoding.decode(tf.constant(payload.blob), payload).numpy()
    first = 0
    for slot in payload.slots:
        found = rows[first : first + slot.rows].ravel()[: slot.size]
        assert found.tobytes() == arrays[slot.name].tobytes()
        first += slot.rows
    assert first == len(rows)


def test_one_flipped_bit_is_noticed_or_changes_nothing():
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(200, 100)).astype(np.float32)
    kernel[np.abs(kernel) < 2] = 0
    bias = generator.normal(size=100).astype(np.float32)
    payload = codec.encode({"kernel": kernel, "bias": bias})
    expected = decoding.decode(tf.constant(payload.blob), payload).numpy()
    noticed = 0
    for bit in generator.choice(8 * len(payload.blob), 200, replace=False):
        blob = bytearray(payload.blob)
        blob[bit // 8] ^= 1 << bit % 8
        try:
            found = decoding.decode(tf.constant(bytes(blob)), payload).numpy()
        except tf.errors.OpError:
            noticed += 1
        else:
            assert found.tobytes() == expected.tobytes()
    assert noticed > 190


def test_an_export_with_a_flipped_bit_does_not_load(tmp_path):
    export = Export(dense(), tmp_path)
    (payload,), _ = compact.encoded(networks.of(export.model))
    path = os.path.join(export.path, "saved_model.pb")
    with open(path, "rb") as file:
        written = file.read()
    first = written.index(payload.blob)
    for byte in (20, len(payload.blob) // 2, -2):
        damaged = bytearray(written)
        damaged[first + byte % len(payload.blob)] ^= 4
        with open(path, "wb") as file:
            file.write(damaged)
        with pytest.raises(tf.errors.OpError):
            tf.saved_model.load(export.path)


@pytest.mark.parametrize("write", WRITERS)
def test_equal_models_give_equal_bytes(write, tmp_path):
    """However many functions were traced before, in whatever names."""
    found, model = [], sequences()
    for i in range(2):
        path = tmp_path / str(i)
        path.mkdir()
        write(model, str(path))
        found.append((path / "saved_model.pb").read_bytes())
    assert found[0] == found[1]


def test_functions_are_named_by_what_is_in_them(exports):
    """Where two exports meet in one graph, equal names are equal functions."""
    known = {}
    for export in exports.values():
        for function in meta_graph(export.path).graph_def.library.function:
            content = function.SerializeToString(deterministic=True)
            name = function.signature.name
            assert known.setdefault(name, content) == content
    assert len(known) > 20


def test_negative_zeros_cost_nothing(tmp_path):
    model = dense()
    kernel = model.layers[0].kernel
    before = Export(model, tmp_path / "positive")
    kernel.assign(np.where(kernel.numpy() == 0, np.float32(-0.0), kernel))
    after = Export(model, tmp_path / "negative")
    before.check(after.expected, exact=True)
    sizes = [
        os.path.getsize(os.path.join(e.path, "saved_model.pb"))
        for e in (before, after)
    ]
    assert sizes[0] == sizes[1]


def test_lenet_is_small_exact_and_smaller_than_dense(tmp_path):
    model = fill(lenet.lenet((28, 28, 1), 10), 0.964)
    export = Export(model, tmp_path / "compact")
    dense_format.write_dense(model, str(tmp_path / "dense"))
    found = directory_bytes(tmp_path / "compact")
    assert found <= 52_000
    assert directory_bytes(tmp_path / "dense") > 20 * found
    export.check(export.serve(signature_of(export.path)), exact=True)


def directory_bytes(path):
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def test_dtypes_that_no_payload_holds_are_refused(tmp_path):
    inputs = keras.Input((3,), dtype="float64")
    model = keras.Model(inputs, LAYERS.Dense(2, dtype="float64")(inputs))
    with pytest.raises(ValueError, match="float64. Export with format=.dense."):
        compact.write_compact(model, str(tmp_path / "1"))
    assert os.listdir(tmp_path) == []


def test_more_than_a_graph_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="100 bytes of weights at most, got"):
        compact.write_compact(dense(), str(tmp_path / "1"))
    assert os.listdir(tmp_path) == []
