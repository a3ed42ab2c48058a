"""`sparsify`, `sparsity` and `nonzero_mask`: what takes no `fit`."""

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.training import enforce

pytestmark = pytest.mark.thorough


def network(seed=0):
    """Returns a network of 8 x 20 + 20 x 2 = 200 weights and 22 biases."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(20, activation="tanh", name="hidden"),
            keras.layers.Dense(2, name="output"),
        ]
    )


def by_hand(model, fraction):
    """Returns what global magnitude leaves of the kernels, by sorting."""
    kernels = [layer.kernel.numpy() for layer in model.layers]
    flat = np.concatenate([np.abs(kernel).ravel() for kernel in kernels])
    least = np.argsort(flat, kind="stable")[: round(flat.size * fraction)]
    flat = np.concatenate([kernel.ravel() for kernel in kernels])
    flat[least] = 0
    parts = np.split(flat, [kernels[0].size])
    return [part.reshape(k.shape) for part, k in zip(parts, kernels)]


@pytest.mark.parametrize("fraction", [0.0, 0.335, 0.8, 0.97])
def test_the_smallest_go_and_the_others_stay(fraction):
    model = network()
    expected = by_hand(model, fraction)
    mask = lottery.sparsify(model, fraction)
    assert mask.kept == 200 - round(200 * fraction)
    assert lottery.sparsity(model) == fraction
    assert lottery.nonzero_mask(model) == mask
    for layer, kernel in zip(model.layers, expected, strict=True):
        np.testing.assert_array_equal(layer.kernel.numpy(), kernel)


def test_a_second_time_it_goes_on_and_revives_nothing():
    model = network()
    first = lottery.sparsify(model, 0.5, criterion="random")
    second = lottery.sparsify(
        model, 0.8, criterion="random", seed=7, mask=first
    )
    assert second.issubset(first) and second.kept == 40
    assert lottery.sparsity(model) == 0.8


def test_layers_and_fractions_by_layer():
    model = network()
    lottery.sparsify(model, 0.5, layers=["hidden"])
    assert lottery.sparsity(model.layers[0]) == 0.5
    assert lottery.sparsity(model.layers[1]) == 0.0
    assert lottery.sparsity(model, ["hidden"]) == 0.5
    assert lottery.sparsity(model) == 0.4
    model = network()
    mask = lottery.sparsify(model, {"output/*": 0.25, "*": 0.9})
    assert mask.kept_by_name == {"hidden/kernel": 16, "output/kernel": 30}


def test_a_criterion_that_needs_data():
    def gradient(model, start, data):
        x, y = data
        scores = np.abs(x.T @ y).sum()
        named = {"hidden/kernel": model.layers[0].kernel,
                 "output/kernel": model.layers[1].kernel}  # fmt: skip
        return {n: scores * np.abs(v.numpy()) for n, v in named.items()}

    model, data = network(), (np.ones((2, 8)), np.ones((2, 2)))
    expected = by_hand(model, 0.5)
    lottery.sparsify(model, 0.5, criterion=gradient, data=data)
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), expected[0])


def test_a_mask_that_is_attached_is_narrowed_and_holds():
    model = network()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    first = lottery.find_mask(model, 0.5)
    x, y = np.ones((8, 8), np.float32), np.ones((8, 2), np.float32)
    with lottery.masked(model, first):
        model.fit(x, y, verbose=0)
        second = lottery.sparsify(model, 0.8)
        assert enforce.attachment(model).mask == second
        model.fit(x, y, verbose=0)
        assert lottery.sparsity(model) == 0.8
        with pytest.raises(ValueError, match="leave `layers` out"):
            lottery.sparsify(model, 0.9, layers=["hidden"])
    assert second.issubset(first)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_other_dtypes(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy(before)
    dtype = model.layers[0].kernel.dtype
    mask = lottery.sparsify(model, 0.9)
    assert mask.kept == 20 and lottery.sparsity(model) == 0.9
    assert model.layers[0].kernel.dtype == dtype


def test_after_an_error_the_model_is_as_it_was():
    model = network()
    before = model.get_weights()

    def broken(scores, mask, keep):
        raise RuntimeError("broken")

    for text, more in {
        r"must lie in \[0, 1\)": {"sparsity": 1.5},
        "broken": {"allocation": broken},
        "Unknown criterion": {"criterion": "magnitud"},
        "fits no layer": {"layers": ["hiden"]},
    }.items():
        with pytest.raises((ValueError, RuntimeError), match=text):
            lottery.sparsify(model, **{"sparsity": 0.5, **more})
    for array, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, then)


def test_a_pruned_model_is_told_what_to_do_instead():
    pruned = lottery.prune(network(), lottery.OneShot(0.5))
    with pytest.raises(ValueError, match=r"model\.strip\(\)"):
        lottery.sparsify(pruned, 0.5)


def test_the_sparsity_of_a_pruned_model_is_that_of_its_mask():
    model = network()
    pruned = lottery.prune(model, lottery.OneShot(0.5), layers=["hidden"])
    pruned.adopt_mask(lottery.find_mask(model, 0.75, layers=["hidden"]), 1)
    assert lottery.sparsity(pruned) == pruned.mask.sparsity == 0.75
    assert lottery.nonzero_mask(pruned) == pruned.mask
    assert lottery.sparsity(pruned.strip()) == 0.6  # of all kernels


def test_what_is_zero_without_being_masked_counts():
    model = network()
    model.layers[1].set_weights([np.zeros((20, 2)), np.zeros(2)])
    assert lottery.sparsity(model) == 0.2
    pruned = lottery.prune(model, lottery.OneShot(0.5))
    assert pruned.mask.sparsity == 0 and lottery.sparsity(pruned) == 0.2


def test_legacy_models_plain_and_wrapped():
    tf_keras = pytest.importorskip("tf_keras", reason="needs tf_keras")
    from keras_lottery import tfmot_bridge

    model = tf_keras.Sequential(
        [tf_keras.layers.Dense(4), tf_keras.layers.Dense(2)]
    )
    model.build((None, 4))
    model.layers[0].set_weights([np.eye(4), np.zeros(4)])
    assert lottery.sparsity(model) == 12 / 24
    wrapped = tfmot_bridge.tfmot.sparsity.keras.prune_low_magnitude(model)
    assert lottery.sparsity(wrapped) == 12 / 24
    assert lottery.nonzero_mask(model).kept == 12


def test_what_is_frozen_counts():
    model = network()
    lottery.sparsify(model, 0.5)
    for frozen in (model.layers[0], model):
        frozen.trainable = False
        assert lottery.sparsity(model) == 0.5
    model.trainable = True
    model.layers[0].trainable = False
    assert list(lottery.nonzero_mask(model)) == ["output/kernel"]
    with pytest.raises(ValueError, match="frozen"):
        lottery.sparsity(model, layers=["hidden"])


def test_a_frozen_layer_of_ones_own_counts_its_matrices():
    class Own(keras.layers.Layer):
        """Has a matrix, an offset and an embedding."""

        def build(self, shape):
            """Makes them, half zero."""
            self.w = self.add_weight((4, 2), "zeros", name="w")
            self.bias = self.add_weight((4, 2), "zeros", name="bias")
            self.embeds = self.add_weight((4, 2), "zeros", name="embeds")

        def call(self, x):
            """Uses one."""
            return x @ self.w

    model = keras.Sequential([keras.Input((4,)), Own()])
    model.layers[0].w.assign(np.eye(4, 2))
    for trainable in (True, False):
        model.trainable = trainable
        assert lottery.sparsity(model) == 0.75


def test_kernels_under_adapters_and_of_eight_bits_count():
    model = network()
    lottery.sparsify(model, 0.5)
    model.layers[0].enable_lora(2)
    assert lottery.sparsity(model) == 0.5
    model = network()
    lottery.sparsify(model, 0.5)
    for layer in model.layers:
        layer.quantize("int8")
    stored = [layer._kernel.numpy() for layer in model.layers]
    zeros = sum(np.count_nonzero(array == 0) for array in stored)
    assert 100 <= zeros < 200 and lottery.sparsity(model) == zeros / 200
    model = network()
    model.layers[0].quantize("int4")
    with pytest.raises(ValueError, match="'hidden/kernel' is packed.*int4"):
        lottery.sparsity(model)


def test_nothing_to_prune_and_not_built_are_errors():
    with pytest.raises(ValueError, match="not built"):
        lottery.sparsity(keras.Sequential([keras.layers.Dense(2)]))
    bare = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    with pytest.raises(ValueError):
        lottery.sparsity(bare)
