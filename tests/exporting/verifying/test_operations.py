"""What an export may hold: ordinary models, and nothing that touches files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from keras_lottery.exporting import compact
from keras_lottery.exporting import compact_serving
from keras_lottery.exporting import dense
from keras_lottery.exporting.verifying import inspection
from keras_lottery.exporting.verifying import operations
from keras_lottery.models import lenet

pytestmark = pytest.mark.thorough

LAYERS = keras.layers


def stacked(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def fully_connected():
    return stacked(
        (8,),
        LAYERS.Dense(8, activation="gelu"),
        LAYERS.BatchNormalization(),
        LAYERS.LayerNormalization(),
        LAYERS.PReLU(),
        *map(
            LAYERS.Activation,
            "relu relu6 leaky_relu elu selu silu softplus tanh hard_silu "
            "mish softmax log_softmax".split(),
        ),
    )


def images():
    return stacked(
        (16, 16, 3),
        LAYERS.Rescaling(1 / 255),
        LAYERS.Resizing(12, 12),
        LAYERS.Conv2D(4, 3, dilation_rate=2),
        LAYERS.SeparableConv2D(4, 3),
        LAYERS.UpSampling2D(),
        LAYERS.UpSampling2D(interpolation="bilinear"),
        LAYERS.Conv2DTranspose(4, 3, strides=2),
        LAYERS.GroupNormalization(2),
        LAYERS.MaxPooling2D(),
        LAYERS.AveragePooling2D(2),
        LAYERS.ZeroPadding2D(),
        LAYERS.GlobalAveragePooling2D(),
    )


def volumes():
    return stacked(
        (6, 6, 6, 2),
        LAYERS.Conv3D(3, 2),
        LAYERS.Conv3DTranspose(2, 2),
        LAYERS.MaxPooling3D(),
        LAYERS.AveragePooling3D(1),
    )


def mobile():
    return keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=3
    )


def sequences():
    inputs = keras.Input((5,), dtype="int32")
    x = LAYERS.Embedding(9, 4, mask_zero=True)(inputs)
    x = LAYERS.Bidirectional(LAYERS.LSTM(4, return_sequences=True))(x)
    x = x + LAYERS.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    x = LAYERS.AdditiveAttention()([x, LAYERS.Attention()([x, x])])
    x = LAYERS.Conv1D(4, 3, padding="causal")(x)
    return keras.Model(inputs, LAYERS.GRU(3)(x))


MODELS = [fully_connected, images, volumes, mobile, sequences]
EVERY_FORMAT = {
    "compact": compact.write_compact,
    "compact-serving": compact_serving.write_compact_serving,
    "dense": dense.write_dense,
    "keras": lambda model, path: model.export(path, verbose=False),
}


def lenet_small():
    return lenet.lenet((8, 8, 1), 3, hidden=(8,))


@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
def test_networks_of_all_kinds_are_allowed(build, tmp_path):
    dense.write_dense(build(), str(tmp_path))
    assert operations.refused(tmp_path) == {}


@pytest.mark.parametrize("name", EVERY_FORMAT)
@pytest.mark.parametrize("build", [lenet_small, sequences])
def test_all_that_exporters_write_is_allowed(name, build, tmp_path):
    EVERY_FORMAT[name](build(), str(tmp_path))
    assert operations.refused(tmp_path) == {}


def test_all_names_are_of_operations_that_tensorflow_has():
    unknown = {n for n in operations.SAVING if op_def_registry.get(n) is None}
    assert unknown == set()


FORBIDDEN = """
    Abort Assert AudioSummary Batch BatchFunction CollectiveReduceV2 Copy
    DebugIdentityV3 DecodeProtoV2 EagerPyFunc EncodeProto
    FixedLengthRecordReader
    InitializeTableFromTextFileV2 IteratorGetNext LMDBReader MatchingFiles
    MergeSummary OutfeedEnqueue Print PrintV2 PyFunc PyFuncStateless ReadFile
    ReaderReadV2 Recv RemoteCall Restore RestoreSlice RpcCall Save SaveSlices
    SaveDataset Send SymbolicGradient TFRecordDataset TextLineDataset
    WholeFileReaderV2 WriteAudioSummary WriteFile WriteSummary XlaHostCompute
""".split()


def test_what_leaves_the_graph_is_in_none_of_the_lists():
    assert not set(FORBIDDEN) & operations.SAVING
    # Families, whatever else there is of them.
    for name in operations.SAVING - {"ShardedFilename"}:
        for part in ("File", "Py", "Print", "Reader", "Dataset", "Summary"):
            assert part not in name, name
    assert operations.SAVING - operations.RESTORING == {
        "SaveV2",
        "MergeV2Checkpoints",
    }
    assert operations.RESTORING - operations.COMPUTING == {
        "RestoreV2",
        "ShardedFilename",
        "StaticRegexFullMatch",
        "StringJoin",
    }


def written(x, path):
    tf.io.write_file(path, "stolen")
    return x + 1


def plain(x, path):
    return written(x, path)


def in_a_function(x, path):
    inner = tf.function(written)
    return tf.function(lambda x: inner(x, path))(x)


def in_a_loop(x, path):
    return tf.while_loop(
        lambda i, y: i < 1,
        lambda i, y: (i + 1, written(y, path)),
        (0, x),
    )[1]


def in_a_branch(x, path):
    return tf.cond(
        tf.reduce_sum(x) > 0, lambda: written(x, path), lambda: x - 1
    )


def read(x, path):
    del path
    return x + tf.strings.to_number(tf.io.read_file("/etc/number"))


def in_python(x, path):
    return tf.py_function(lambda x: written(x, path), [x], tf.float32)


def printed(x, path):
    tf.print(x, output_stream=f"file://{path}")
    return x + 1


def checkpoint_read(x, path):
    return (
        x
        + tf.raw_ops.RestoreV2(
            prefix=path,
            tensor_names=["x"],
            shape_and_slices=[""],
            dtypes=["float"],
        )[0]
    )


def checkpoint_written(x, path):
    tf.raw_ops.SaveV2(
        prefix=path, tensor_names=["x"], shape_and_slices=[""], tensors=[x]
    )
    return x + 1


HARMFUL = {
    plain: "WriteFile",
    in_a_function: "WriteFile",
    in_a_loop: "WriteFile",
    in_a_branch: "WriteFile",
    read: "ReadFile",
    in_python: "EagerPyFunc",
    printed: "PrintV2",
    checkpoint_read: "RestoreV2",
    checkpoint_written: "SaveV2",
}


def save(harm, path, target):
    module = tf.Module()
    module.weight = tf.Variable([1.0])  # an ordinary saver is there, too
    module.serve = tf.function(
        lambda x: {"y": harm(x * module.weight, str(target))},
        input_signature=[tf.TensorSpec((None,), name="x")],
    )
    tf.saved_model.save(module, str(path), signatures=module.serve)


@pytest.mark.parametrize(
    ("harm", "operation"),
    HARMFUL.items(),
    ids=lambda v: getattr(v, "__name__", v),
)
def test_what_touches_files_python_or_terminals_is_refused(
    harm, operation, tmp_path
):
    save(harm, tmp_path / "1", tmp_path / "target")
    found = operations.refused(tmp_path / "1")
    assert operation in found
    assert len(found) <= 2  # StringFormat prints, StringToNumber reads
    assert all("/" in node for node in found[operation])
    assert not (tmp_path / "target").exists()


def test_the_main_graph_is_looked_at_too(tmp_path):
    """One without functions: SavedModels of TensorFlow 1."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, (None,), "x")
        write = tf.io.write_file(str(tmp_path / "target"), "stolen")
        with tf.control_dependencies([write]):
            y = tf.identity(x, "y")
        tf.compat.v1.saved_model.simple_save(
            session, str(tmp_path / "1"), {"x": x}, {"y": y}
        )
    found = operations.refused(tmp_path / "1")
    assert {op: len(nodes) for op, nodes in found.items()} == {"WriteFile": 1}
    assert not (tmp_path / "target").exists()


def change(path, edit):
    file = path / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    edit(saved)
    file.write_bytes(saved.SerializeToString())


def test_what_nothing_calls_and_other_graphs_are_looked_at_too(tmp_path):
    save(lambda x, path: x, tmp_path / "1", "")
    assert operations.refused(tmp_path / "1") == {}

    def spoil(saved):
        other = saved.meta_graphs.add()
        other.graph_def.node.add(name="reads", op="ReadFile")
        function = saved.meta_graphs[0].graph_def.library.function.add()
        function.signature.name = "forgotten"
        function.node_def.add(name="writes", op="WriteFile")
        function.node_def.add(name="unknown", op="NobodysOp")

    change(tmp_path / "1", spoil)
    assert operations.refused(tmp_path / "1") == {
        "NobodysOp": ["forgotten/unknown"],
        "ReadFile": ["reads"],
        "WriteFile": ["forgotten/writes"],
    }


def test_a_saver_that_loading_would_run_is_refused(tmp_path):
    """What writes checkpoints, put where the loader restores."""
    save(lambda x, path: x, tmp_path / "1", "")

    def swap(saved):
        saver = saved.meta_graphs[0].saver_def
        saver.restore_op_name = saver.save_tensor_name.partition(":")[0]

    change(tmp_path / "1", swap)
    assert set(operations.refused(tmp_path / "1")) == {
        "SaveV2",
        "MergeV2Checkpoints",
    }


def test_a_saver_that_the_initializer_or_python_would_run_is_refused(tmp_path):
    for place in ("initializer", "object"):
        path = tmp_path / place
        save(lambda x, path: x, path, "")

        def swap(saved, place=place):
            graph = saved.meta_graphs[0]
            if place == "initializer":
                init = graph.signature_def["__saved_model_init_op"]
                name = graph.saver_def.save_tensor_name
                init.outputs["__saved_model_init_op"].name = name
            else:
                (name,) = [
                    function.signature.name
                    for function in graph.graph_def.library.function
                    if "traced_save" in function.signature.name
                ]
                functions = graph.object_graph_def.concrete_functions
                functions[name].SetInParent()

        change(path, swap)
        assert "SaveV2" in operations.refused(path), place


def test_functions_are_followed_wherever_they_are_named():
    graph_def = tf.compat.v1.GraphDef()
    for name, op in (("a", "PartitionedCall"), ("b", "If"), ("c", "Mul")):
        function = graph_def.library.function.add()
        function.signature.name = name
        node = function.node_def.add(name=f"in_{name}", op=op)
        if name == "a":  # in a list
            node.attr["branches"].list.func.add().name = "b"
        if name == "b":  # as an argument of a function
            called = node.attr["then_branch"].func
            called.name = "missing"
            called.attr["g"].func.name = "c"
    # By the name of the operation; and a loop of calls ends.
    graph_def.library.function[2].node_def.add(name="again", op="a")
    graph_def.node.add(name="first", op="a")
    graph_def.node.add(name="last", op="Neg").input.append("^first")
    graph_def.node.add(name="other", op="Abs")
    graph = inspection.Graph(graph_def)
    assert {name for name, _ in graph.reached(["last:0", "gone"])} == {
        "first",
        "last",
        "a/in_a",
        "b/in_b",
        "c/in_c",
        "c/again",
    }
    assert {name for name, _ in graph.reached([], ["c"])} == {
        "a/in_a",
        "b/in_b",
        "c/in_c",
        "c/again",
    }
    assert len(dict(graph.everything())) == 7
    np.testing.assert_equal(len(graph.functions), 3)
