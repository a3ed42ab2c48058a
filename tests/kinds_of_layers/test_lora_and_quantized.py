"""Layers with low-rank adapters, and quantized ones: before and after."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.exporting.card import sizes
from keras_lottery.pruning import weights

pytestmark = pytest.mark.thorough

L = keras.layers
X = np.arange(40).reshape(8, 5) % 7
Y = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
ADAPTED = ("words", "conv", "mix", "out")
KERNELS = {"conv/kernel": 32, "mix/kernel": 24, "out/kernel": 144}
QUANTIZED = {"words/embeddings", "mix/kernel", "out/kernel"}


@pytest.fixture(autouse=True)
def only_this_export(monkeypatch):
    """The rows of other exporters cost more than what is tested here."""

    def skipped(name, *rest):
        del rest
        missing = {"not_measured": "not here"}
        return {name: missing, f"{name}_tar_gz": missing}

    monkeypatch.setattr(sizes, "_other_writer", skipped)


def build():
    """Every layer that Keras gives adapters, and quantizes but for `conv`."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32", name="x"),
            L.Embedding(7, 4, name="words"),
            L.Conv1D(4, 2, name="conv"),
            L.EinsumDense("abc,cd->abd", (4, 6), name="mix"),
            L.Flatten(),
            L.Dense(6, name="out"),
        ]
    )


def adapt(model):
    """Gives all layers adapters that do something."""
    for name in ADAPTED:
        model.get_layer(name).enable_lora(2)
    for name, variable in weights.by_name(model).items():
        if name.endswith("_b"):
            variable.assign(keras.random.normal(variable.shape, seed=1))
    return model


def fitted(model, **choices):
    pruned = lottery.prune(model, lottery.IterativePruning(0.5, 2), **choices)
    pruned.compile("adam", "mse")
    pruned.fit(X, Y, epochs=1, batch_size=4, verbose=0)
    return pruned


def check_served(model, base):
    """A compact export answers as the Keras model does."""
    inner = getattr(model, "inner", model)
    loaded = tf.saved_model.load(lottery.export(model, base))
    served = loaded.signatures["serving_default"]
    (found,) = served(x=tf.constant(X, tf.int32)).values()
    expected = inner.predict_on_batch(X)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


# --------------------------------------------------------------------- LoRA


def test_what_enable_lora_leaves_to_prune():
    model = adapt(build())
    left = weights.unprunable(model)
    bases = ["words/embeddings", *KERNELS]
    adapters = [
        f"{name}/lora_{role}_{side}"
        for name, role in zip(
            ADAPTED, ("embeddings", "kernel", "kernel", "kernel")
        )
        for side in "ab"
    ]
    assert {left.pop(name) for name in bases} == {"frozen by enable_lora"}
    assert {left.pop(name) for name in adapters} == {
        "LoRA adapter (prune it with layers=)"
    }
    assert left == {"conv/bias": "bias", "out/bias": "bias"}
    with pytest.raises(ValueError, match="no weight to prune") as raised:
        lottery.prune(model)
    assert "Prune before `enable_lora`" in str(raised.value)
    assert "quantize" not in str(raised.value)


def test_one_layer_with_an_adapter_does_not_stop_the_others():
    model = build()
    model.get_layer("out").enable_lora(2)
    assert list(weights.prunable(model)) == ["conv/kernel", "mix/kernel"]


def test_adapters_are_pruned_on_request(tmp_path):
    model = adapt(build())
    bases = {n: weights.by_name(model)[n].numpy() for n in KERNELS}
    # One of each pair starts at zero: a global budget would empty it.
    pruned = fitted(model, layers=["*"], allocation="layerwise")
    # (7+4) x 2, 2x4x2 + 2x4, (4+6) x 2, (24+6) x 2
    size = 22 + 24 + 20 + 60
    assert [t.mask.kept for t in pruned.tickets] == [size, 63, 32]
    assert all("/lora_" in name for name in pruned.mask)
    found = weights.by_name(model)
    for name, kept in pruned.mask.items():
        np.testing.assert_array_equal(found[name].numpy() != 0, kept)
    for name, base in bases.items():
        np.testing.assert_array_equal(found[name].numpy(), base)
    check_served(pruned, tmp_path / "served")


def test_adapters_that_are_added_after_pruning_leave_zeros_alone(tmp_path):
    pruned = fitted(build())
    model = adapt(pruned.strip())
    before = {n: weights.by_name(model)[n].numpy() for n in KERNELS}
    model.compile("adam", "mse")
    model.fit(X, Y, epochs=2, verbose=0)
    for name, value in before.items():
        mask = pruned.tickets[-1].mask[name]
        found = weights.by_name(model)[name].numpy()
        np.testing.assert_array_equal(found, value)
        np.testing.assert_array_equal(found != 0, mask)
    check_served(model, tmp_path / "served")
    # What the layer computes with is the sum: none of it is zero.
    assert np.count_nonzero(model.get_layer("out").kernel) == 144
    with pytest.raises(lottery.TicketError, match="lora_kernel_a: ticket none"):
        pruned.tickets[-1].restore(model)


def test_adapters_are_merged_by_weights_files(tmp_path):
    model = adapt(build())
    model.save_weights(tmp_path / "merged.weights.h5")
    plain = build()
    plain.load_weights(tmp_path / "merged.weights.h5")
    for name in KERNELS:
        layer = name.split("/")[0]
        np.testing.assert_allclose(
            weights.by_name(plain)[name].numpy(),
            model.get_layer(layer).kernel,
            rtol=1e-6,
            atol=1e-6,
        )
    assert list(weights.prunable(plain)) == list(KERNELS)
    np.testing.assert_allclose(
        plain.predict_on_batch(X), model.predict_on_batch(X), atol=1e-5
    )


def test_adapters_between_prune_and_fit_are_refused():
    pruned = lottery.prune(build(), lottery.IterativePruning(0.5, 2))
    pruned.compile("adam", "mse")
    pruned.inner.get_layer("mix").enable_lora(2)
    with pytest.raises(ValueError, match="mix/kernel"):
        pruned.fit(X, Y, verbose=0)


# ---------------------------------------------------------------- quantized


def multiplied(layer, size):
    """What a layer multiplies with, as it is applied to ones and zeros."""
    layer.bias.assign(np.zeros(layer.bias.shape))
    return np.asarray(layer(np.eye(size, dtype="float32")))


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantized_kernels_are_left_alone(mode):
    model = build()
    model.quantize(mode, filters="words|mix|out")
    assert list(weights.prunable(model)) == ["conv/kernel"]
    left = weights.unprunable(model)
    assert (
        {n for n, why in left.items() if why == f"quantized ({mode})"}
        == {
            name
            for name, variable in weights.by_name(model).items()
            if "int" in str(variable.dtype)
        }
        >= QUANTIZED
    )
    model.get_layer("conv").trainable = False
    with pytest.raises(ValueError, match="no weight to prune") as raised:
        lottery.prune(model)
    assert "Prune first, then `quantize`" in str(raised.value)
    assert "enable_lora" not in str(raised.value)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantizing_a_pruned_model_keeps_zeros_exactly(mode, tmp_path):
    pruned = fitted(build())
    model = pruned.strip()
    exact = multiplied(model.get_layer("out"), 24)
    model.quantize(mode, filters="words|mix|out")
    found = multiplied(model.get_layer("out"), 24)
    kept = pruned.tickets[-1].mask["out/kernel"]
    np.testing.assert_array_equal(found[~kept], 0)
    # A small weight may round to zero; none of the others is far off.
    step = np.abs(exact).max() / (127 if mode == "int8" else 7)
    assert np.count_nonzero(found) > 0
    assert np.abs(found - exact).max() <= step
    if mode == "int8":
        stored = np.asarray(model.get_layer("out")._kernel)
        assert stored.dtype == "int8"
        np.testing.assert_array_equal(stored[~kept], 0)
    check_served(model, tmp_path / "served")


def test_quantizing_between_prune_and_fit_is_refused():
    pruned = lottery.prune(build(), lottery.IterativePruning(0.5, 2))
    pruned.compile("adam", "mse")
    pruned.inner.quantize("int8", filters="mix")
    with pytest.raises(ValueError, match="mix/kernel"):
        pruned.fit(X, Y, verbose=0)


class Block(L.Layer):
    """What GPTQ and AWQ call a block: here one dense layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(8)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("mode", ["gptq", "awq"])
def test_calibrated_kernels_are_left_alone(mode, tmp_path):
    config = getattr(keras.quantizers, f"{mode.upper()}Config", None)
    known = inspect.signature(config or build).parameters
    if "quantization_layer_structure" not in known:
        pytest.skip(f"Keras {keras.__version__} does not calibrate so")
    inputs = keras.Input((5,), dtype="int32", name="x")
    embedding, block = L.Embedding(7, 8), Block(name="block")
    x = L.Flatten()(block(embedding(inputs)))
    model = keras.Model(inputs, L.Dense(6, name="out")(x))
    model.quantize(
        mode,
        config=config(
            dataset=X.astype("int32"),
            tokenizer=lambda text: text,
            num_samples=4,
            sequence_length=5,
            group_size=-1,
            quantization_layer_structure={
                "pre_block_layers": [embedding],
                "sequential_blocks": [block],
            },
        ),
    )
    left = weights.unprunable(model)
    assert left["block/dense/kernel"] == f"quantized ({mode})"
    # Outside the blocks Keras has not calibrated: floats go on being used.
    assert list(weights.prunable(model)) == ["out/kernel"]
    check_served(model, tmp_path / "served")


def test_quantizing_a_pruned_model_to_float8_keeps_zeros():
    pruned = fitted(build())
    model = pruned.strip()
    model.quantize("float8", filters="mix|out")
    found = multiplied(model.get_layer("out"), 24)
    kept = pruned.tickets[-1].mask["out/kernel"]
    np.testing.assert_array_equal(found[~kept], 0)
    assert np.count_nonzero(found) > 0


def test_float8_layers_are_pruned_as_usual(tmp_path):
    model = build()
    model.quantize("float8", filters="mix|out")
    assert list(weights.prunable(model)) == list(KERNELS)
    pruned = fitted(model)
    assert [t.mask.kept for t in pruned.tickets] == [200, 100, 50]
    found = weights.by_name(model)
    for name, kept in pruned.mask.items():
        np.testing.assert_array_equal(found[name].numpy() != 0, kept)
    check_served(pruned, tmp_path / "served")
    with pytest.raises(ValueError, match="shrink=False"):
        lottery.export(pruned, tmp_path / "shrunk", shrink=True)
