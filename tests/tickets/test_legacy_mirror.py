"""Names and tickets of legacy models are those of their Keras 3 twins."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tf_keras

import keras_lottery as lottery
from keras_lottery.pruning import naming
from keras_lottery.pruning import weights
from keras_lottery.tickets import legacy
from keras_lottery.tickets import legacy_masks
from keras_lottery.tickets import legacy_mirror

pytestmark = pytest.mark.thorough


def sequential(kit):
    """Auto-numbered layers, statistics, a dropout, convolutions."""
    layers = kit.layers
    return kit.Sequential(
        [
            kit.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="tanh", name="stem"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3),
            layers.SeparableConv2D(4, 3),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(5, activation="tanh"),
            layers.Dense(3),
        ]
    )


def functional(kit):
    """Nested, shared and residual."""
    layers = kit.layers
    inputs = kit.Input((6,))
    inner = kit.Sequential(
        [kit.Input((6,)), layers.Dense(6), layers.Dense(6)], name="inner"
    )
    shared = layers.Dense(6, activation="tanh")
    hidden = shared(shared(inner(inputs)))
    return kit.Model(inputs, layers.Dense(3)(layers.Add()([hidden, inputs])))


def recurrent(kit):
    """Cells inside layers inside a wrapper."""
    layers = kit.layers
    return kit.Sequential(
        [
            kit.Input((4, 6)),
            layers.LSTM(3, return_sequences=True, name="memory"),
            layers.Bidirectional(layers.GRU(2)),
            layers.Dense(3),
        ]
    )


def attention(kit):
    """Sub-layers that are held by attributes."""
    inputs = kit.Input((4, 6))
    attended = kit.layers.MultiHeadAttention(2, 3)(inputs, inputs)
    return kit.Model(inputs, kit.layers.LayerNormalization()(attended))


def embedding(kit):
    """An embedding, which is pruned only when named."""
    layers = kit.layers
    return kit.Sequential(
        [
            kit.Input((5,)),
            layers.Embedding(7, 4),
            layers.Flatten(),
            layers.Dense(2, trainable=False),
            layers.Dense(2),
        ]
    )


TWINS = [sequential, functional, recurrent, attention, embedding]


@pytest.mark.parametrize("build", TWINS)
def test_names_shapes_and_reasons_are_those_of_the_twin(build):
    build(tf_keras)  # numbers that tf_keras appends count on
    mirror = legacy_mirror.reflect(build(tf_keras))
    twin = build(keras)

    def shapes(model):
        return {n: tuple(v.shape) for n, v in weights.by_name(model).items()}

    assert shapes(mirror) == shapes(twin)
    assert set(weights.prunable(mirror)) == set(weights.prunable(twin))
    assert weights.unprunable(mirror) == weights.unprunable(twin)


def test_the_variables_are_views():
    model = functional(tf_keras)
    views = weights.by_name(legacy_mirror.reflect(model))
    views["inner/dense/kernel"].assign(np.full((6, 6), 7.0))
    assert model.get_layer("inner").layers[0].kernel.numpy().min() == 7.0
    held = {id(variable.value) for variable in views.values()}
    assert held == {id(variable) for variable in model.weights}


def test_a_custom_layer_goes_by_its_attributes():
    class Block(tf_keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.branches = [tf_keras.layers.Dense(2), tf_keras.layers.ReLU()]

        def build(self, shape):
            self.scale = self.add_weight(shape=(2, 2))

        def call(self, x):
            return self.branches[0](x) @ self.scale

    model = tf_keras.Sequential([tf_keras.Input((3,)), Block()])
    names = [each.name for each in naming.walk(legacy_mirror.reflect(model))]
    assert names == [
        "block/scale",
        "block/branches.0/kernel",
        "block/branches.0/bias",
    ]


@pytest.mark.filterwarnings("ignore:tfmot does not know")
@pytest.mark.parametrize("build", [sequential, functional, recurrent])
def test_names_survive_tfmots_wrappers(build):
    plain = list(weights.by_name(legacy_mirror.reflect(build(tf_keras))))
    pruned = lottery.prune(build(tf_keras), lottery.OneShot(0.5))
    assert list(weights.by_name(legacy_mirror.reflect(pruned))) == plain
    assert legacy_masks.mask_of(pruned) == pruned.mask
    assert set(pruned.mask) <= set(plain)


def data(build):
    rng = np.random.default_rng(1)
    shape = {"sequential": (8, 8, 3), "functional": (6,), "recurrent": (4, 6)}
    x = rng.random((40, *shape[build.__name__]), np.float32)
    return x, rng.integers(0, 3, 40)


def prune(model):
    """Without Bidirectional, which tfmot does not know."""
    choices = {"allocation": "layerwise", "layers": ["[!b]*"]}
    return lottery.prune(model, lottery.OneShot(0.7), **choices)


def played(build, kit):
    kit.utils.set_random_seed(3)
    pruned = prune(build(kit))
    loss = kit.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(kit.optimizers.Adam(1e-2), loss)
    pruned.fit(*data(build), epochs=2, batch_size=20, verbose=0)
    return pruned


@pytest.mark.parametrize("build", [sequential, functional, recurrent])
def test_a_ticket_of_tf_keras_restores_into_keras_3(build, tmp_path):
    pruned = played(build, tf_keras)
    size = pruned.mask.size
    assert pruned.mask.kept == size - round(size * 0.7)
    pruned.tickets[-1].save(tmp_path / "ticket")
    ticket = lottery.Ticket.load(tmp_path / "ticket")
    twin = ticket.restore(build(keras), "end")
    x, y = data(build)
    expected = pruned.predict(x, verbose=0)
    assert np.allclose(twin.predict(x, verbose=0), expected, atol=1e-5)
    with lottery.masked(ticket.restore(twin, "start"), ticket.mask):
        twin.compile("adam", "mse")
        twin.fit(x, np.zeros((40, 3)), verbose=0)
        zeros = weights.by_name(twin)
        for name, keep in ticket.mask.items():
            assert np.all(zeros[name].numpy()[~keep] == 0)


@pytest.mark.parametrize("build", [sequential, functional, recurrent])
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
def test_a_ticket_of_keras_3_restores_into_tf_keras(build, wrapped):
    found = played(build, keras)
    ticket = found.tickets[-1]
    model = build(tf_keras)
    if wrapped:
        model = prune(model)
    assert legacy.restore(ticket, model, "end") is model
    x, _ = data(build)
    expected = found.predict(x, verbose=0)
    assert np.allclose(model.predict(x, verbose=0), expected, atol=1e-5)
    if wrapped:
        assert model.mask == ticket.mask
        assert model.level == 1
    for name, value in ticket.weights("start").items():
        legacy.restore(ticket, model, "start")
        views = weights.by_name(legacy_mirror.reflect(model))
        assert np.array_equal(views[name].numpy(), value)


def test_embeddings_by_name_with_tfmots_wrapper():
    pruned = lottery.prune(
        embedding(tf_keras), lottery.OneShot(0.5), layers=["embedding"]
    )
    assert pruned.mask.sizes == {"embedding/embeddings": 28}


def test_depthwise_kernels_are_pruned_too():
    pruned = lottery.prune(sequential(tf_keras), lottery.OneShot(0.5))
    assert "depthwise_conv2d/kernel" in pruned.mask
    assert "separable_conv2d/depthwise_kernel" in pruned.mask


def test_a_mirror_computes_nothing():
    with pytest.raises(ValueError, match="calls the model on data"):
        legacy_mirror.reflect(functional(tf_keras))(np.ones((1, 6)))


_USE = """
import os, sys
before = dict(os.environ)
import tensorflow as tf
import keras, keras_lottery as lottery
keras_model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
lottery.prune(keras_model, lottery.OneShot(0.5))
assert "keras_lottery.tickets.legacy" not in sys.modules
import numpy as np, {kit} as legacy
model = legacy.Sequential([legacy.layers.Dense(2, input_shape=(4,))])
pruned = lottery.prune(model, lottery.OneShot(0.5))
pruned.compile("adam", "mse")
pruned.fit(np.ones((8, 4)), np.ones((8, 2)), epochs=1, verbose=0)
assert [t.mask.kept for t in pruned.tickets] == [8, 4]
assert isinstance(pruned, legacy.Model)
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert {check}
"""


def _python(code, **environment):
    kept = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**kept, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        timeout=120,
    )


def test_tf_keras_and_the_environment_stay_as_they_were():
    check = "tf.keras.Model is keras.Model"
    found = _python(_USE.format(kit="tf_keras", check=check))
    assert found.returncode == 0, found.stderr[-2000:]


def test_where_tf_keras_is_what_tf_keras_means():
    check = (
        "tf.keras.Model is legacy.Model and tf.keras.Model is not keras.Model"
    )
    code = _USE.format(kit="tensorflow.keras", check=check).replace(
        "import numpy as np, tensorflow.keras as legacy",
        "import numpy as np; legacy = tf.keras",
    )
    found = _python(code, TF_USE_LEGACY_KERAS="1")
    assert found.returncode == 0, found.stderr[-2000:]
