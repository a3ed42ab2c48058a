"""Masks in `strategy.run`, and the callback, on several replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.training import agreement

pytestmark = pytest.mark.thorough

ROWS, STEPS = 16, 5


def network():
    """Returns a network of 60 weights."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(6, activation="tanh", name="hidden"),
            keras.layers.Dense(2, name="output"),
        ]
    )


def data():
    """Returns x and y."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 8)).astype(np.float32)
    return x, rng.normal(size=(ROWS, 2)).astype(np.float32)


def adamw():
    """Returns an optimizer that looks at all gradients together."""
    return keras.optimizers.AdamW(0.02, weight_decay=0.1, global_clipnorm=0.05)


def copies(model):
    """Returns the kernels of every replica."""
    return [
        [each.numpy() for each in getattr(v.value, "values", [v.value])]
        for v in (layer.kernel for layer in model.layers)
    ]


def trained(devices, several, named):
    """Returns a model that a loop of its own has trained, and its mask."""
    strategy = devices.strategy(several) or tf.distribute.get_strategy()
    model = devices.build(several, network)
    mask = lottery.find_mask(model, 0.6)
    with strategy.scope():
        optimizer = adamw()
        optimizer.build(model.trainable_variables)

    def step(x, y):
        with tf.GradientTape() as tape:
            # Of the whole batch: replicas add their gradients.
            error = tf.reduce_sum((model(x, training=True) - y) ** 2)
            loss = error / (2 * ROWS)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        if not named:
            gradients = lottery.masked_gradients(gradients, model)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    @tf.function
    def run(x, y):
        strategy.run(step, args=(x, y))

    batches = tf.data.Dataset.from_tensors(data()).repeat(STEPS)
    if several > 1:
        batches = batches.unbatch().batch(ROWS)
        batches = strategy.experimental_distribute_dataset(batches)
    with lottery.masked(model, mask, optimizer if named else None):
        for batch in batches:
            run(*batch)
            for kernels, name in zip(copies(model), mask, strict=True):
                for kernel in kernels:
                    assert not kernel[~mask[name]].any()
                    np.testing.assert_array_equal(kernel, kernels[0])
    return model, mask


def test_a_loop_of_ones_own_is_that_of_one_device(devices):
    alone, mask = trained(devices, 1, named=True)
    together, same = trained(devices, 2, named=True)
    assert mask == same
    agreement.settle(together, None, {})
    for one, two in zip(alone.variables, together.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), 1e-5, 1e-6)


def test_an_optimizer_that_is_not_named_keeps_zeros_and_replicas_equal(devices):
    model, mask = trained(devices, 2, named=False)
    assert lottery.sparsity(model) == 0.6 == 1 - mask.kept / mask.size


def test_sparsify_under_a_strategy(devices):
    model = devices.build(2, network)
    mask = lottery.sparsify(model, 0.8)
    for kernels, name in zip(copies(model), mask, strict=True):
        assert len(kernels) == 2
        for kernel in kernels:
            assert np.count_nonzero(kernel) == np.count_nonzero(mask[name])


def test_the_callback_prunes_all_replicas(devices):
    found = {}
    for several in (1, 2):
        model = devices.build(several, network)
        with devices.scope(several):
            model.compile(keras.optimizers.Adam(0.02), "mse")
        schedule = lottery.IterativePruning(0.5, 2, steps_per_level=2)
        pruning = lottery.PruningCallback(schedule)
        history = model.fit(
            *data(), batch_size=8, epochs=3, shuffle=False, verbose=0,
            callbacks=[pruning],
        )  # fmt: skip
        assert history.history["sparsity"] == [0.0, 0.5, 0.75]
        for kernels, name in zip(copies(model), pruning.mask, strict=True):
            for kernel in kernels:
                assert not kernel[~pruning.mask[name]].any()
                np.testing.assert_array_equal(kernel, kernels[0])
        found[several] = pruning.mask
    assert found[1] == found[2]


def test_a_deep_copy_has_all_replicas(devices):
    import copy

    pruned = devices.pruned(
        2, network, lambda: keras.optimizers.Adam(0.02),
        compile_with={"loss": "mse", "metrics": []},
    )  # fmt: skip
    twin = copy.deepcopy(pruned)
    for model in (pruned, twin):
        model.fit(*data(), batch_size=8, epochs=2, verbose=0)
    assert [t.mask for t in twin.tickets] == [t.mask for t in pruned.tickets]
    assert len(copies(twin.inner)[0]) == 2
