"""tf_keras models, plain or wrapped by tfmot, as SavedModels."""

import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery import tfmot_bridge
from keras_lottery.exporting import compact
from keras_lottery.exporting import dense
from keras_lottery.exporting import network as networks

pytestmark = pytest.mark.thorough

tf_keras = tfmot_bridge.legacy_keras()
LAYERS = tf_keras.layers


def plain():
    return tf_keras.Sequential(
        [
            tf_keras.Input((6,), name="pixels"),
            LAYERS.Dense(40, activation="relu", name="hidden"),
            LAYERS.BatchNormalization(),
            LAYERS.Dropout(0.5),
            LAYERS.Dense(3, name="logits"),
        ]
    )


def two_in_two_out():
    a = tf_keras.Input((4,), name="left")
    b = tf_keras.Input((2,), name="right", dtype="int32")
    embedded = LAYERS.Flatten()(LAYERS.Embedding(7, 3)(b))
    both = LAYERS.Concatenate()([a, embedded])
    outputs = {"one": LAYERS.Dense(2)(both), "two": LAYERS.Dense(1)(both)}
    return tf_keras.Model({"l": a, "r": b}, outputs)


def recurrent():
    inputs = tf_keras.Input((5, 6), name="steps")
    x = LAYERS.Bidirectional(LAYERS.LSTM(4, return_sequences=True))(inputs)
    return tf_keras.Model(inputs, LAYERS.GRU(3, name="out")(x))


def convolutional():
    inputs = tf_keras.Input((8, 8, 2), name="image")
    x = LAYERS.SeparableConv2D(4, 3)(LAYERS.DepthwiseConv2D(3)(inputs))
    x = LAYERS.add([x, LAYERS.Conv2D(4, 1)(x)])
    x = LAYERS.GlobalAveragePooling2D()(x)
    return tf_keras.Model(inputs, LAYERS.Dense(3, name="out")(x))


def wrapped():
    prune = tfmot_bridge.tfmot.sparsity.keras.prune_low_magnitude
    return prune(plain(), tfmot_bridge.ConstantSparsity(0.5, 0))


MODELS = [plain, two_in_two_out, recurrent, convolutional, wrapped]


def filled(model):
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if "float" in variable.dtype.name and "threshold" not in variable.name:
            if "mask" not in variable.name:
                low = 0.5 if "variance" in variable.name else -0.5
                variable.assign(generator.uniform(low, 1, variable.shape))
    return model


def given(network, rows=5):
    generator = np.random.default_rng(1)
    return {
        name: (generator.random((rows, *spec.shape[1:])) * 6).astype(
            spec.dtype.as_numpy_dtype
        )
        for name, spec in network.specs.items()
    }


def answers(path, inputs):
    serve = tf.saved_model.load(path).signatures["serving_default"]
    found = serve(**{name: tf.constant(v) for name, v in inputs.items()})
    return {name: value.numpy() for name, value in found.items()}


def as_keras_answers(model, inputs):
    """tf_keras itself, asked as its user would."""
    if set(inputs) == {"left", "right"}:
        inputs = {"l": inputs["left"], "r": inputs["right"]}
        return {k: v.numpy() for k, v in model(inputs, training=False).items()}
    (value,) = inputs.values()
    return {model.output_names[0]: model(value, training=False).numpy()}


@pytest.mark.parametrize("build", MODELS)
def test_a_legacy_model_is_served_as_it_answers(build, tmp_path):
    model = filled(build())
    inputs = given(networks.of(model))
    expected = as_keras_answers(model, inputs)
    for write in (compact.write_compact, dense.write_dense):
        path = tmp_path / write.__name__
        path.mkdir()
        write(model, str(path))
        found = answers(str(path), inputs)
        for name, value in expected.items():
            # wrapped layers have other names
            (answer,) = found.values() if len(found) == 1 else [found[name]]
            np.testing.assert_allclose(answer, value, rtol=0, atol=1e-6)


def test_names_and_dtypes_are_the_models():
    network = networks.of(two_in_two_out())
    assert {n: s.dtype for n, s in network.specs.items()} == {
        "left": tf.float32,
        "right": tf.int32,
    }
    inputs = {name: tf.constant(v) for name, v in given(network).items()}
    assert set(network.call(network.weights, inputs)) == {"one", "two"}
    assert set(networks.of(plain()).specs) == {"pixels"}


def test_weights_are_named_as_in_tickets():
    assert list(networks.of(plain()).weights)[:2] == [
        "hidden/kernel",
        "hidden/bias",
    ]


def test_what_tfmot_removed_stays_removed_whatever_the_last_step_did():
    pruned = lottery.prune(plain(), lottery.OneShot(0.75))
    pruned.compile("adam", "mse")
    generator = np.random.default_rng(0)
    x, y = generator.random((64, 6)), generator.random((64, 3))
    pruned.fit(x.astype("f"), y.astype("f"), epochs=2, verbose=0)
    mask = pruned.mask
    weights = networks.of(pruned).weights
    for name in mask:
        assert np.count_nonzero(weights[name]) == mask.kept_by_name[name]
        assert not np.any(weights[name][~mask[name]])


def test_values_are_arguments():
    model = filled(plain())
    network = networks.of(model)
    inputs = {name: tf.constant(v) for name, v in given(network).items()}
    halved = {name: value / 2 for name, value in network.weights.items()}
    (expected,) = network.call(halved, inputs).values()
    for variable in model.weights:
        variable.assign(variable / 2)
    (found,) = as_keras_answers(model, inputs).values()
    np.testing.assert_allclose(expected, found, rtol=0, atol=1e-6)


def test_what_is_not_a_read_is_refused():
    inputs = tf_keras.Input((5, 6))
    model = tf_keras.Model(inputs, LAYERS.SimpleRNN(4)(inputs))
    with pytest.raises(ValueError, match="simple_rnn/cell/kernel' in a While"):
        networks.of(model)


def test_a_subclassed_legacy_model_needs_inputs():
    class Own(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.out = LAYERS.Dense(2)

        def call(self, inputs):
            return self.out(inputs)

    model = Own()
    model(np.zeros((1, 4), np.float32))
    with pytest.raises(
        ValueError, match="What 'own' is called on is not known"
    ):
        networks.of(model)
    inputs = tf_keras.Input((4,), name="x")
    assert set(networks.of(tf_keras.Model(inputs, model(inputs))).specs) == {
        "x"
    }
