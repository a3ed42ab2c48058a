"""Layers that are no row of the table: loaded, stateful, one's own."""

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.pruning import weights

pytestmark = pytest.mark.thorough

L = keras.layers
GENERATOR = np.random.default_rng(0)


def play(model, x, **choices):
    """Two levels on random targets; proves counts and zeros."""
    schedule = lottery.IterativePruning(0.5, 2)
    pruned = lottery.prune(model, schedule, **choices)
    pruned.compile("sgd", "mse")
    y = GENERATOR.normal(size=(len(x), *model.output_shape[1:]))
    pruned.fit(x, y, batch_size=4, verbose=0)
    size = pruned.mask.size
    assert [t.mask.kept for t in pruned.tickets] == [
        size - round(size * sparsity) for sparsity in (0, 0.5, 0.75)
    ]
    found = weights.by_name(model)
    for name, kept in pruned.mask.items():
        np.testing.assert_array_equal(found[name].numpy() != 0, kept)
    return pruned


def test_the_kernels_of_a_loaded_saved_model(tmp_path):
    source = keras.Sequential(
        [keras.Input((4,)), L.Dense(6, activation="tanh"), L.Dense(3)]
    )
    source.export(tmp_path / "source", verbose=False)
    layer = L.TFSMLayer(str(tmp_path / "source"))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2, name="head")(layer(inputs)))
    names = list(weights.prunable(model))
    assert names[-1] == "head/kernel"
    assert [n.startswith("tfsm_layer/") for n in names] == [True, True, False]
    assert all("kernel" in name for name in names)

    x = GENERATOR.normal(size=(8, 4)).astype("float32")
    before = model.predict_on_batch(x)
    pruned = play(model, x)
    # The graph that was loaded computes with what was pruned.
    assert np.abs(model.predict_on_batch(x) - before).max() > 1e-3
    with pytest.raises(ValueError, match="TFSMLayer.*Build its network"):
        lottery.export(pruned, tmp_path / "served")


def test_stateful_recurrent_layers_train(tmp_path):
    inputs = keras.Input(batch_shape=(4, 5, 3))
    x = L.LSTM(3, stateful=True)(inputs)
    model = keras.Model(inputs, L.Dense(2)(x))
    assert list(weights.prunable(model)) == [
        "lstm/cell/kernel",
        "lstm/cell/recurrent_kernel",
        "dense/kernel",
    ]
    pruned = play(model, GENERATOR.normal(size=(8, 5, 3)))
    with pytest.raises(
        ValueError, match="'lstm.*' carries one.*stateful=False"
    ):
        lottery.export(pruned, tmp_path / "served")


class Mixing(L.Layer):
    """Matrices called anything, and layers in a list and a dict."""

    def build(self, shape):
        width = shape[-1]
        self.anything = self.add_weight(shape=(width, width), name="anything")
        self.query = self.add_weight(shape=(2, width, width), name="q")
        self.position_embedding = self.add_weight(
            shape=shape[1:], name="position_embedding"
        )
        self.relative_bias = self.add_weight(shape=shape[1:], name="rel_bias")
        self.scales = self.add_weight(shape=(width,), name="scales")
        self.counts = self.add_weight(
            shape=(2, 2), name="counts", trainable=False
        )
        self.inside = [L.Dense(width), {"last": L.Dense(width)}]
        for layer in (self.inside[0], self.inside[1]["last"]):
            layer.build(shape)

    def call(self, inputs):
        x = inputs @ self.anything * self.scales
        x += keras.ops.einsum("btd,hde->bte", inputs, self.query)
        x += self.position_embedding + self.relative_bias
        return self.inside[1]["last"](self.inside[0](x))


class Scaled(L.Wrapper):
    """A wrapper that holds on to the kernel of what it wraps."""

    def build(self, shape):
        super().build(shape)
        self.of_the_layer = self.layer.kernel
        self.factor = self.add_weight(shape=(), initializer="ones", name="by")

    def call(self, inputs):
        return self.layer(inputs) * self.factor


def test_layers_of_ones_own():
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, Scaled(L.Dense(2))(Mixing()(inputs)))
    assert sorted(weights.prunable(model)) == [
        "mixing/anything",
        "mixing/inside.0/kernel",
        "mixing/inside.1.last/kernel",
        "mixing/q",
        "scaled/layer/kernel",
    ]
    assert weights.unprunable(model) == {
        "mixing/position_embedding": "embedding (prune it with layers=)",
        "mixing/rel_bias": "bias",
        "mixing/scales": "rank 1",
        "mixing/counts": "not trained",
        "mixing/inside.0/bias": "bias",
        "mixing/inside.1.last/bias": "bias",
        "scaled/by": "rank 0",
        "scaled/layer/bias": "bias",
    }
    play(model, GENERATOR.normal(size=(8, 5, 4)))


def test_the_position_embedding_of_ones_own_layer_on_request():
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, Mixing()(inputs))
    pruned = play(
        model,
        GENERATOR.normal(size=(8, 5, 4)),
        layers=["mixing"],
        allocation="layerwise",
    )
    assert "mixing/position_embedding" in pruned.mask
    assert "mixing/rel_bias" not in pruned.mask
