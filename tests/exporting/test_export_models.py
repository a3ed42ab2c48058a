"""What `lottery.export` takes: each file answers as the model it is of."""

import json
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import keras_lottery as lottery
from keras_lottery import tfmot_bridge
from keras_lottery.exporting import formats
from keras_lottery.exporting import network as networks
from keras_lottery.exporting import signature as signatures
from keras_lottery.exporting.card import sizes
from keras_lottery.exporting.verifying import served
from keras_lottery.tickets.ticket import capture
from keras_lottery.tickets.ticket import ended

pytestmark = pytest.mark.thorough

LAYERS = keras.layers
SERVED = [name for name, each in formats.FORMATS.items() if each.served]
COMPACT = SERVED[:2]


@pytest.fixture(autouse=True)
def only_this_export(monkeypatch, request):
    """The rows of other exporters cost more than what is tested here."""
    if "whole_card" not in request.fixturenames:

        def skipped(name, *rest):
            del rest
            missing = {"not_measured": "not here"}
            return {name: missing, f"{name}_tar_gz": missing}

        monkeypatch.setattr(sizes, "_other_writer", skipped)


@pytest.fixture
def whole_card():
    """The card of a test has all its rows."""


def filled(model, sparsity=0.8, seed=0):
    """Random weights, most of the kernels' zero: pruned by hand, elsewhere."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" not in str(keras.backend.standardize_dtype(variable.dtype)):
            continue
        value = generator.normal(0, 0.3, variable.shape)
        if "variance" in variable.name or "gamma" in variable.name:
            value = generator.uniform(0.5, 1.5, variable.shape)
        elif len(variable.shape) > 1:
            value *= generator.random(variable.shape) > sparsity
        variable.assign(value)
    return model


def drawn(specs, rows):
    generator = np.random.default_rng(rows)

    def one(spec):
        shape = (rows, *spec.shape[1:])
        if spec.dtype.is_floating:
            return generator.normal(size=shape)
        return generator.integers(0, 2, shape)

    return {
        name: one(spec).astype(spec.dtype.as_numpy_dtype)
        for name, spec in specs.items()
    }


def answered(path, inputs):
    """What the signature answers, of a loaded object that is held."""
    loaded = tf.saved_model.load(path)
    given = {name: tf.constant(value) for name, value in inputs.items()}
    found = loaded.signatures["serving_default"](**given)
    return {name: value.numpy() for name, value in found.items()}


def asked(model, inputs):
    """What Keras answers, asked by position or name as its user would."""
    _, arranged = signatures.signature(model)
    outputs = model(arranged(inputs), training=False)
    named = signatures.named_outputs(model, outputs)
    return {name: np.asarray(value) for name, value in named.items()}


def compare(found, expected, close=0.0):
    """Equal to the bit, or within a part of the largest output."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        if not close:
            np.testing.assert_array_equal(found[name], value)
        elif value.size:
            one, other = found[name].astype("f8"), value.astype("f8")
            assert np.isfinite(one).all()
            assert np.abs(one - other).max() <= close * np.abs(other).max()


def check(model, path, close=0.0, rows=(1, 1000)):
    specs, _ = signatures.signature(model)
    expected = [asked(model, drawn(specs, count)) for count in rows]
    for count, answer in zip(rows, expected, strict=True):
        compare(answered(path, drawn(specs, count)), answer, close)
    # Keras runs not all of its layers on no rows; a server may be asked that.
    none = answered(path, drawn(specs, 0))
    for name, value in expected[0].items():
        assert none[name].shape == (0, *value.shape[1:])
        assert none[name].dtype == value.dtype


# ------------------------------------------------------------------- models


def dense(name="digits"):
    return keras.Sequential(
        [
            keras.Input((20,), name="x"),
            LAYERS.Dense(33, activation="relu", name="hidden"),
            LAYERS.Dropout(0.5),
            LAYERS.Dense(3, name="logits"),
        ],
        name=name,
    )


def equal_names():
    """Layers and models of one name in several places."""

    def part(name, *inner):
        layers = [keras.Input((4,)), *inner, LAYERS.Dense(4, name="d")]
        return keras.Sequential(layers, name=name)

    inputs = keras.Input((4,), name="x")
    outer = part("outer", part("same"))
    other = part("other", part("same"))
    both = LAYERS.Add()([outer(inputs), other(inputs)])
    return keras.Model(inputs, LAYERS.Dense(2, name="d")(both))


def many_dtypes():
    dtypes = ("int32", "int64", "uint8", "bool", "float16", "bfloat16")
    inputs = [keras.Input((3,), name=f"i_{d}", dtype=d) for d in dtypes]
    floats = [keras.ops.cast(each, "float32") for each in inputs]
    joined = LAYERS.Concatenate()(floats)
    largest = keras.ops.argmax(joined, -1)
    return keras.Model(inputs, [LAYERS.Dense(2)(joined), largest, joined > 0])


def swapped_keys():
    """Dict keys that are names of other inputs: names win."""
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    return keras.Model({"x": y, "y": x}, LAYERS.Dense(2)(y) - x[:, :2])


def words():
    inputs = keras.Input((6,), dtype="int32", name="words")
    x = LAYERS.Embedding(50, 8, mask_zero=True)(inputs)
    return keras.Model(inputs, LAYERS.Dense(2)(LAYERS.LSTM(8)(x)))


def identity():
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, inputs)


def input_and_output():
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, {"same": inputs, "y": LAYERS.Dense(2)(inputs)})


def one_output_twice():
    inputs = keras.Input((4,), name="x")
    outputs = LAYERS.Dense(2)(inputs)
    return keras.Model(inputs, [outputs, outputs])


def unused_input():
    inputs = [keras.Input((4,), name="x"), keras.Input((2,), name="unused")]
    return keras.Model(inputs, LAYERS.Dense(2)(inputs[0]))


class Tied(LAYERS.Layer):
    def __init__(self, embedding):
        super().__init__()
        self.embedding = embedding

    def call(self, inputs):
        return inputs @ keras.ops.transpose(self.embedding.embeddings)


def shared():
    """A layer that is called twice, and a table that two layers use."""
    inputs = keras.Input((3,), dtype="int32", name="words")
    embedding, layer = LAYERS.Embedding(9, 4), LAYERS.Dense(4)
    x = layer(layer(embedding(inputs)))
    return keras.Model(inputs, Tied(embedding)(x))


def not_prunable():
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, LAYERS.LayerNormalization()(inputs))


def no_weights():
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, keras.ops.relu(inputs) * 2)


class Counted(LAYERS.Layer):
    """Integers beside floats: they are exact beyond what a float holds."""

    def build(self, shape):
        self.count = self.add_weight(
            shape=(1,), dtype="int64", initializer="ones", trainable=False
        )
        self.count.assign([2**60 + 1])
        self.scale = self.add_weight(shape=shape[1:])

    def call(self, inputs):
        return inputs * self.scale, self.count + keras.ops.cast(
            inputs > 9, "int64"
        )


def counted():
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, Counted()(inputs))


@tf.custom_gradient
def doubled(x):
    return 2 * x, lambda upstream: upstream * x


def own_gradients():
    """SavedModels hold the gradient functions, and what these capture."""
    return keras.Sequential(
        [
            keras.Input((4,), name="x"),
            LAYERS.Dense(3, activation=doubled),
            LAYERS.Dense(2, activation=doubled),
        ]
    )


def unaligned():
    """All it holds is one kernel that ends within a row of the payload."""
    layer = LAYERS.Dense(999, use_bias=False, name="wide")
    return keras.Sequential([keras.Input((1001,), name="x"), layer])


def adapted():
    """Computes with what it has derived from its weights."""
    layer = LAYERS.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)))
    model = keras.Sequential([keras.Input((4,), name="x"), layer])
    model.add(LAYERS.Dense(2))
    return model


def several_dtypes():
    """Three payloads, each with a kernel of its own variable."""
    inputs = keras.Input((201,), name="x")
    kinds = ("float16", "bfloat16", "float32")
    parts = [LAYERS.Dense(199, dtype=kind)(inputs) for kind in kinds]
    parts = [keras.ops.cast(part, "float32") for part in parts]
    return keras.Model(inputs, LAYERS.Dense(3)(LAYERS.Concatenate()(parts)))


HALF = 2**-6  # graphs round sums of halves in another order
MODELS = {
    dense: 0.0,
    many_dtypes: 0.0,
    swapped_keys: 0.0,
    identity: 0.0,
    input_and_output: 0.0,
    one_output_twice: 0.0,
    unused_input: 0.0,
    no_weights: 0.0,
    counted: 0.0,
    own_gradients: 0.0,
    unaligned: 0.0,
    equal_names: 1e-6,  # Keras's own `predict` differs from a call by as much
    words: 1e-6,
    shared: 1e-6,
    not_prunable: 1e-6,
    adapted: 1e-6,
    several_dtypes: HALF,
}


@pytest.mark.parametrize("build", MODELS)
def test_it_answers_as_the_model(build, tmp_path):
    model = build()
    if build is not adapted:
        filled(model)
    before = variables(model)
    check(model, lottery.export(model, tmp_path), MODELS[build])
    unchanged(model, before)


ON_SERVERS = [adapted, own_gradients, unaligned, counted, several_dtypes]


@pytest.mark.parametrize("build", ON_SERVERS)
def test_the_smallest_form_answers_as_the_model(build, tmp_path):
    model = build()
    if build is not adapted:
        filled(model)
    path = lottery.export(model, tmp_path, format="compact-serving")
    check(model, path, MODELS[build])


def test_servers_answer_as_the_models(tmp_path):
    """The C++ loader, with all of them in one process."""
    builds = (dense, many_dtypes, unaligned, several_dtypes, words, identity)
    cases = []
    for build in builds:
        model = filled(build())
        specs, _ = signatures.signature(model)
        batches = [drawn(specs, rows) for rows in (1, 0, 50)]
        expected = [asked(model, each) for each in (batches[0], batches[2])]
        for format in COMPACT:
            base = tmp_path / f"{build.__name__} {format}"
            path = lottery.export(model, base, format=format)
            cases.append(((path, batches), expected, MODELS[build]))
    answers = served.together([case for case, _, _ in cases])
    for (one, none, many), (_, expected, close) in zip(
        answers, cases, strict=True
    ):
        # Its one thread adds up in another order than ours do.
        compare(one, expected[0], close or 1e-6)
        compare(many, expected[1], close or 1e-6)
        assert all(len(value) == 0 for value in none.values())


@pytest.mark.parametrize("name", ["x" * 300, "a.b-c>d", "..", "7"])
def test_names_of_models(name, tmp_path):
    model = filled(dense(name))
    check(model, lottery.export(model, tmp_path))


@pytest.mark.parametrize(
    "name", ["two words", "ünï 模型 🎟", "-rf", ";rm", "a'b\"c", "a\nb|c"]
)
def test_names_of_bases(name, tmp_path):
    model = filled(dense())
    inputs = drawn(signatures.signature(model)[0], 2)
    path = lottery.export(model, tmp_path / name, samples=inputs)
    assert path == str(tmp_path / name / "1")
    check(model, path)
    with open(os.path.join(path, "model_card.json"), encoding="utf-8") as file:
        assert json.load(file)["name"] == name


@pytest.mark.parametrize("name", ["inputs", "name", "training", "args", "X_1"])
def test_names_of_inputs(name, tmp_path):
    inputs = keras.Input((4,), name=name)
    model = filled(keras.Model(inputs, LAYERS.Dense(2)(inputs)))
    path = lottery.export(model, tmp_path)
    assert set(networks.of(model).specs) == {name}
    check(model, path)


@pytest.mark.parametrize("name", ["a:b", "a.b", "_a", "1"])
def test_names_of_inputs_that_only_graphs_have(name, tmp_path):
    inputs = keras.Input((4,), name=name)
    model = filled(keras.Model(inputs, LAYERS.Dense(2)(inputs)))
    check(model, lottery.export(model, tmp_path, format="compact-serving"))


def mixed(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((20,), name="x")
        x = LAYERS.Dense(31, activation="relu")(inputs)
        x = LAYERS.BatchNormalization()(x)
        return keras.Model(inputs, LAYERS.Dense(3, dtype="float32")(x))
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("format", COMPACT)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, format, tmp_path):
    model = filled(mixed(policy))
    path = lottery.export(model, tmp_path, format=format)
    check(model, path, HALF)


# ------------------------------------------------------------------- values


def kernels(path, size):
    """The kernel of one dense layer without bias: what unit vectors answer."""
    (found,) = answered(path, {"x": np.eye(size, dtype=np.float32)}).values()
    return found


# Half a step of numbers with 11 and 8 significant bits, and of the smallest.
STEPS = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}


@pytest.mark.parametrize("format", COMPACT)
@pytest.mark.parametrize("values", ["float16", "bfloat16", "int8"])
def test_rounded_values_are_within_half_a_step(
    values, format, tmp_path, capsys
):
    model = filled(unaligned())
    weights = model.get_weights()[0]
    path = lottery.export(model, tmp_path, format=format, values=values)
    found = kernels(path, 1001)
    part, least = STEPS.get(values, (0, 0))
    steps = part * np.abs(weights).astype(np.float64) + least
    if values == "int8":
        scale = np.abs(weights).max() / np.float32(127)
        steps = np.full(weights.shape, scale / 2 * (1 + 1e-6), np.float64)
        # Whole steps, and the largest weight is one of them.
        quotients = found / scale
        np.testing.assert_allclose(quotients, np.rint(quotients), atol=1e-4)
        assert np.abs(quotients).max() == pytest.approx(127)
    apart = np.abs(found.astype(np.float64) - weights)
    assert (apart <= steps).all()
    assert apart.max() > 0.2 * steps.max()
    assert not found[weights == 0].any()
    # An answer is off by no more than its weights are.
    inputs = drawn({"x": tf.TensorSpec((None, 1001), tf.float32)}, 7)
    (answer,) = answered(path, inputs).values()
    exact = inputs["x"].astype(np.float64) @ weights
    bound = np.abs(inputs["x"]).astype(np.float64) @ (
        steps * (weights != 0) + np.abs(weights) * 1001 * 2.0**-24
    )
    assert (np.abs(answer - exact) <= bound).all()
    said = capsys.readouterr().out
    assert re.match(rf"values={values}: \w+ differs by up to [\d.]+, ", said)


@pytest.mark.parametrize("values, format", zip(["float16", "int8"], COMPACT))
def test_rounded_values_beside_other_dtypes(values, format, tmp_path):
    model = filled(several_dtypes())
    path = lottery.export(model, tmp_path, format=format, values=values)
    check(model, path, 0.03)


def test_values_of_no_range(tmp_path):
    """Scales of zero and of the smallest numbers."""
    model = dense()
    kernel = np.zeros((20, 33), np.float32)
    kernel[0, :3] = 1e-45, -1e-38, 1e30
    model.layers[0].kernel.assign(kernel)
    model.layers[-1].kernel.assign(np.zeros((33, 3)))
    check(model, lottery.export(model, tmp_path / "exact"))
    for values in ("bfloat16", "int8"):
        path = lottery.export(model, tmp_path / values, values=values)
        inputs = drawn(networks.of(model).specs, 3)
        (found,) = answered(path, inputs).values()
        np.testing.assert_array_equal(found, np.zeros((3, 3)))


def test_a_difference_without_bound_is_said(tmp_path, capsys):
    """Two weights below 2^127 become 2^127 each, and their sum infinity."""
    layer = LAYERS.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((2,), name="x"), layer])
    layer.kernel.assign(np.full((2, 1), 2.0**127 * (1 - 2.0**-20)))
    samples = np.ones((1, 2), np.float32)
    assert np.isfinite(model(samples)).all()
    lottery.export(model, tmp_path, values="bfloat16", samples=samples)
    assert "differs by up to infinity" in capsys.readouterr().out


# ------------------------------------------------------------------ tickets


def played(build, sparsity=0.6):
    """A trained ticket, and the model as it was at its end."""
    model = filled(build(), 0.0)
    mask = lottery.find_mask(model, sparsity)
    lottery.attach(model, mask)
    lottery.detach(model)
    end, end_state = ended(model, mask)
    fields = {"end": end, "end_state": end_state, "level": 1}
    return capture(model, mask, **fields), model


def variables(model):
    return [np.array(variable) for variable in model.variables]


def unchanged(model, before):
    for found, value in zip(variables(model), before, strict=True):
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("format", COMPACT)
def test_a_ticket_with_and_without_its_model(format, tmp_path):
    ticket, trained = played(dense)
    check(trained, lottery.export(ticket, tmp_path / "own", format=format))
    other = filled(dense(), seed=1)
    before = variables(other)
    path = lottery.export(ticket, tmp_path / "lent", format=format, model=other)
    check(trained, path)
    unchanged(other, before)


def test_a_ticket_lent_to_a_pruned_model(tmp_path):
    ticket, trained = played(dense)
    pruned = lottery.prune(filled(dense(), seed=1), lottery.OneShot(0.3))
    before, mask = variables(pruned), pruned.mask
    check(trained, lottery.export(ticket, tmp_path, model=pruned))
    unchanged(pruned, before)
    assert pruned.mask.checksum == mask.checksum


def test_a_lent_model_comes_back_after_a_failure_too(tmp_path):
    ticket, _ = played(dense)
    other = filled(dense(), seed=1)
    before = variables(other)
    samples = np.ones((3, 7), np.float32)
    with pytest.raises(ValueError, match="have shape"):
        lottery.export(ticket, tmp_path, model=other, samples=samples)
    with pytest.raises(lottery.TicketError):
        lottery.export(ticket, tmp_path, model=filled(unaligned()))
    unchanged(other, before)
    assert os.listdir(tmp_path) == []


def test_a_pruned_model(tmp_path):
    model = filled(dense(), 0.0)
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    pruned.adopt_mask(lottery.find_mask(model, 0.5), 1)
    path = lottery.export(pruned, tmp_path)
    check(model, path)
    with open(os.path.join(path, "model_card.json"), encoding="utf-8") as file:
        card = json.load(file)
    assert card["mask"]["sha256"] == pruned.mask.checksum
    assert card["mask"]["kept"] == pruned.mask.kept


# ------------------------------------------------------------------- legacy


tf_keras = tfmot_bridge.legacy_keras()


def legacy(seed=0):
    model = tf_keras.Sequential(
        [
            tf_keras.Input((20,), name="x"),
            tf_keras.layers.Dense(33, activation="relu", name="hidden"),
            tf_keras.layers.Dense(3, name="logits"),
        ]
    )
    generator = np.random.default_rng(seed)
    model.set_weights(
        [generator.normal(0, 0.3, w.shape) for w in model.get_weights()]
    )
    return model


def wrapped(seed=0, sparsity=0.75):
    """As tfmot's user would: wrapped, and masks made by its callback."""
    sparse = tfmot_bridge.tfmot.sparsity.keras
    schedule = sparse.ConstantSparsity(sparsity, 0, frequency=1)
    model = sparse.prune_low_magnitude(legacy(seed), pruning_schedule=schedule)
    model.compile("sgd", "mse")
    x, y = np.ones((8, 20), np.float32), np.ones((8, 3), np.float32)
    step = sparse.UpdatePruningStep()
    model.fit(x, y, epochs=2, verbose=0, callbacks=[step])
    return model


def check_legacy(model, path):
    for rows in (1, 1000):
        inputs = drawn({"x": tf.TensorSpec((None, 20), tf.float32)}, rows)
        (found,) = answered(path, inputs).values()
        expected = model(inputs["x"], training=False).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_model_that_tfmot_wrapped(tmp_path):
    model = wrapped()
    before = variables(model)
    paths = [
        lottery.export(model, tmp_path / format, format=format)
        for format in SERVED
    ]
    unchanged(model, before)
    stripped = tfmot_bridge.tfmot.sparsity.keras.strip_pruning(model)
    for path in paths:
        check_legacy(stripped, path)
        with open(f"{path}/model_card.json", encoding="utf-8") as file:
            weights = json.load(file)["weights"]
        kept = {name: row["kept"] for name, row in weights.items()}
        # A quarter of 20 x 33 and of 33 x 3, 24.75, rounded as tfmot does.
        assert kept == {"hidden/kernel": 165, "logits/kernel": 25}


@pytest.fixture(scope="module")
def legacy_lottery():
    pruned = lottery.prune(legacy(), lottery.OneShot(0.5))
    pruned.compile("sgd", "mse")
    x, y = np.ones((8, 20), np.float32), np.ones((8, 3), np.float32)
    pruned.fit(x, y, epochs=2, verbose=0)
    return pruned


def test_a_legacy_pruned_model(legacy_lottery, tmp_path):
    before = variables(legacy_lottery)
    path = lottery.export(legacy_lottery, tmp_path)
    unchanged(legacy_lottery, before)
    check_legacy(legacy_lottery.strip(), path)


@pytest.mark.parametrize("build", [legacy, wrapped])
def test_a_legacy_ticket_lent_to_a_legacy_model(
    build, legacy_lottery, tmp_path
):
    ticket = legacy_lottery.tickets[-1]
    other = build(seed=1)
    before = variables(other)
    path = lottery.export(ticket, tmp_path, model=other)
    unchanged(other, before)
    check_legacy(ticket.restore(legacy(seed=2), "end"), path)


# ------------------------------------------------------------- determinism


def digested(path):
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            file_path = os.path.join(folder, name)
            with open(file_path, "rb") as file:
                found[os.path.relpath(file_path, path)] = file.read()
    return found


def nodes(content):
    """All nodes of a SavedModel, without the names of functions."""
    saved = saved_model_pb2.SavedModel.FromString(content)
    (meta_graph,) = saved.meta_graphs
    library = meta_graph.graph_def.library.function
    found = [*meta_graph.graph_def.node]
    found += [node for function in library for node in function.node_def]
    constants = [
        node.attr["value"].SerializeToString(deterministic=True)
        for node in found
        if node.op == "Const"
    ]
    return sorted(node.op for node in found), sorted(constants)


def test_the_same_model_gives_the_same_files(tmp_path, whole_card):
    """But for the numbers that TensorFlow gives functions of a process."""
    model = filled(dense())
    samples = drawn(signatures.signature(model)[0], 3)
    for format in SERVED:
        first, second = [
            lottery.export(model, tmp_path / base / format, format=format,
                           samples=samples)
            for base in ("one", "other")
        ]  # fmt: skip
        one, other = digested(first), digested(second)
        assert set(one) == set(other)
        cards = [
            json.loads(each.pop("model_card.json")) for each in (one, other)
        ]
        graphs = [each.pop("saved_model.pb") for each in (one, other)]
        for each in (one, other):
            each.pop("MODEL_CARD.md")
            each.pop("fingerprint.pb", None)  # a hash of the graph
        assert one == other
        assert nodes(graphs[0]) == nodes(graphs[1])
        if format == "compact-serving":
            assert graphs[0] == graphs[1]
        for card in cards:
            card.pop("bytes")
            card.pop("files")
        assert cards[0] == cards[1]
