"""The smallest export: what servers load answers as the model does."""

import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_lottery.exporting import codec
from keras_lottery.exporting import compact
from keras_lottery.exporting import network as networks
from keras_lottery.exporting.compact_serving import write_compact_serving
from keras_lottery.exporting.verifying import served

pytestmark = pytest.mark.thorough

LAYERS = keras.layers


def filled(model, sparsity=0.9):
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if "float" in variable.dtype:
            value = generator.uniform(0.5, 1.5, variable.shape)
            if len(variable.shape) > 1:
                value *= generator.random(variable.shape) >= sparsity
            variable.assign(value)
    return model


def dense():
    return filled(
        keras.Sequential(
            [
                keras.Input((20,), name="pixels"),
                LAYERS.Dense(70, activation="tanh"),
                LAYERS.Dropout(0.5),
                LAYERS.Dense(3, name="logits"),
            ]
        )
    )


def two_in_two_out():
    a = keras.Input((4,), name="left")
    b = keras.Input((2,), name="right", dtype="int32")
    embedded = LAYERS.Flatten()(LAYERS.Embedding(7, 3)(b))
    both = LAYERS.Concatenate()([a, embedded])
    outputs = {"one": LAYERS.Dense(2)(both), "two": LAYERS.Dense(1)(both)}
    return filled(keras.Model({"left": a, "right": b}, outputs), 0.6)


def sequences():
    """Loops, whose bodies stay functions of a library."""
    inputs = keras.Input((5, 6), name="steps")
    x = LAYERS.Bidirectional(LAYERS.LSTM(8, return_sequences=True))(inputs)
    x = LAYERS.LayerNormalization()(x + LAYERS.MultiHeadAttention(2, 4)(x, x))
    return filled(keras.Model(inputs, LAYERS.GRU(3)(x)))


def two_dtypes():
    inputs = keras.Input((20,), name="pixels")
    x = LAYERS.Dense(30, use_bias=False, dtype="float16")(inputs)
    return filled(keras.Model(inputs, LAYERS.Dense(3, dtype="float32")(x)))


def no_weights():
    return keras.Sequential([keras.Input((4,), name="pixels"), LAYERS.ReLU()])


MODELS = [dense, two_in_two_out, sequences, two_dtypes, no_weights]


class Export:
    def __init__(self, build, folder):
        self.path = str(folder / build.__name__)
        os.makedirs(self.path)
        model = build()
        write_compact_serving(model, self.path)
        network = networks.of(model)
        generator = np.random.default_rng(1)
        self.inputs = {
            name: (generator.random((5, *spec.shape[1:])) * 6).astype(
                spec.dtype.as_numpy_dtype
            )
            for name, spec in network.specs.items()
        }
        outputs = network.call(network.weights, self.inputs)
        self.expected = {name: value.numpy() for name, value in outputs.items()}

    def check(self, found):
        assert set(found) == set(self.expected)
        for name, value in self.expected.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=2e-6)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    return {build.__name__: Export(build, folder) for build in MODELS}


def test_the_c_api_loads_all_in_one_process(exports):
    asked = [(each.path, [each.inputs]) for each in exports.values()]
    for each, (found,) in zip(exports.values(), served.together(asked)):
        each.check(found)


@pytest.mark.parametrize("name", [build.__name__ for build in MODELS])
def test_its_signature_loads_in_python(name, exports):
    each = exports[name]
    serve = tf.saved_model.load(each.path).signatures["serving_default"]
    given = {key: tf.constant(value) for key, value in each.inputs.items()}
    each.check({key: v.numpy() for key, v in serve(**given).items()})


def test_the_tf1_loader_loads_it_moved(exports, tmp_path):
    each = exports["two_in_two_out"]
    path = str(tmp_path / "moved")
    shutil.copytree(each.path, path)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        loaded = v1.saved_model.load(session, ["serve"], path)
        signature = loaded.signature_def["serving_default"]
        fetched = {k: info.name for k, info in signature.outputs.items()}
        fed = {
            signature.inputs[name].name: value
            for name, value in each.inputs.items()
        }
        each.check(session.run(fetched, fed))


def graph_of(path):
    saved = saved_model_pb2.SavedModel()
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        saved.ParseFromString(file.read())
    return saved.meta_graphs[0]


def test_it_is_one_graph_and_one_file(exports):
    path = exports["dense"].path
    assert os.listdir(path) == ["saved_model.pb"]
    meta_graph = graph_of(path)
    assert not meta_graph.graph_def.library.function
    assert set(meta_graph.signature_def) == {
        "serving_default",
        "__saved_model_init_op",
    }
    placeholders = [
        node for node in meta_graph.graph_def.node if node.op == "Placeholder"
    ]
    assert len(placeholders) == 1
    names = [node.name for node in meta_graph.graph_def.node]
    assert len(set(names)) == len(names)


def test_requests_decode_nothing(exports):
    meta_graph = graph_of(exports["dense"].path)
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    (output,) = meta_graph.signature_def["serving_default"].outputs.values()
    open_names, served_ops = [output.name], set()
    while open_names:
        name = open_names.pop().removeprefix("^").split(":")[0]
        served_ops.add(nodes[name].op)
        open_names.extend(nodes[name].input)
    assert "MatMul" in served_ops
    assert not served_ops & {"DecodeCompressed", "ScatterNd", "Cumsum"}


def test_it_is_smaller_than_compact(tmp_path):
    sizes = []
    for write in (compact.write_compact, write_compact_serving):
        path = tmp_path / write.__name__
        path.mkdir()
        write(dense(), str(path))
        files = [f for f in path.rglob("*") if f.is_file()]
        sizes.append(sum(f.stat().st_size for f in files))
    (payload,), _ = compact.encoded(networks.of(dense()))
    assert len(payload.blob) < sizes[1] < sizes[0]
    assert sizes[1] < len(payload.blob) + 4_000


@pytest.mark.parametrize("values", ["float16", "bfloat16", "int8"])
def test_rounded_values_answer_as_their_decoding(values, tmp_path):
    model = dense()
    network = networks.of(model)
    (payload,), _ = compact.encoded(network, values)
    rounded = codec.decode(payload)
    x = {"pixels": np.random.default_rng(0).random((4, 20), np.float32)}
    (expected,) = network.call({**network.weights, **rounded}, x).values()
    (exact,) = network.call(network.weights, x).values()
    for i, write in enumerate([compact.write_compact, write_compact_serving]):
        path = tmp_path / str(i)
        path.mkdir()
        write(model, str(path), values=values)
        (answers,) = served.answers(str(path), [x])
        (found,) = answers.values()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        assert np.abs(found - exact).max() > 1e-5
