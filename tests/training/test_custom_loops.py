"""Masks in training loops of one's own, with a `GradientTape`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.errors import InexactMaskWarning

pytestmark = pytest.mark.thorough

ROWS, STEPS = 16, 6


def data():
    """Returns x and y."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 8)).astype(np.float32)
    return tf.constant(x), tf.constant(rng.normal(size=(ROWS, 2)), tf.float32)


def network():
    """Returns a network that was never compiled."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(6, activation="tanh", name="hidden"),
            keras.layers.Dense(2, name="output"),
        ]
    )


class KeptOnly(keras.Model):
    """The same network, but what it owns is the kept weights only."""

    def __init__(self, model, mask):
        super().__init__()
        self._places, self._shapes = {}, {}
        self.kept, self.biases = [], []
        for layer in model.layers:
            name = f"{layer.name}/kernel"
            kernel, bias = layer.get_weights()
            self._places[name] = np.argwhere(mask[name])
            self._shapes[name] = kernel.shape
            values = kernel[mask[name]]
            self.kept.append(
                keras.Variable(values, name=name.replace("/", "_"))
            )
            self.biases.append(keras.Variable(bias, name=f"{layer.name}_bias"))

    def kernels(self):
        """Returns whole kernels, zeros where nothing is kept."""
        return [
            tf.scatter_nd(places, kept.value, self._shapes[name])
            for (name, places), kept in zip(
                self._places.items(), self.kept, strict=True
            )
        ]

    def call(self, x):
        """Computes what the network does."""
        one, other = self.kernels()
        hidden = tf.tanh(x @ one + self.biases[0].value)
        return hidden @ other + self.biases[1].value


def stepping(model, optimizer, way="apply_gradients", clip=None, change=None):
    """Returns a training step of a loop of one's own."""

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        if change is not None:
            gradients = change(gradients)
        if clip is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, clip)
        if way == "apply_gradients":
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        else:
            optimizer.apply(gradients, variables)
        return loss

    return step


def leaks(model, mask):
    """Returns how many removed weights are not zero."""
    return sum(
        np.count_nonzero(
            layer.kernel.numpy()[~mask[f"{layer.name}/kernel"]]
        )
        for layer in model.layers
    )  # fmt: skip


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adamw": lambda: keras.optimizers.AdamW(0.02, weight_decay=0.1),
    "adamw, clipped": lambda: keras.optimizers.AdamW(
        0.02, weight_decay=0.1, global_clipnorm=0.05
    ),
    "lamb": lambda: keras.optimizers.Lamb(0.02),
    "ema": lambda: keras.optimizers.SGD(
        0.1, momentum=0.9, use_ema=True, ema_momentum=0.5,
        ema_overwrite_frequency=2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("in_graph", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_obvious_loop_trains_the_kept_weights_only(name, in_graph):
    if not in_graph and name not in ("sgd", "lamb"):
        pytest.skip("eager: two are enough")
    model, optimizer = network(), OPTIMIZERS[name]()
    mask = lottery.find_mask(model, 0.6)
    small = KeptOnly(model, mask)
    with lottery.masked(model, mask, optimizer):
        step = stepping(model, optimizer)
        step = tf.function(step) if in_graph else step
        for _ in range(STEPS):
            step(*data())
            assert leaks(model, mask) == 0
    theirs = stepping(small, OPTIMIZERS[name]())
    small_order = tf.function(theirs)
    for _ in range(STEPS):
        small_order(*data())
    for layer, kernel, bias in zip(
        model.layers, small.kernels(), small.biases, strict=True
    ):
        np.testing.assert_allclose(layer.kernel.numpy(), kernel, 2e-5, 2e-6)
        np.testing.assert_allclose(layer.bias.numpy(), bias, 2e-5, 2e-6)


@pytest.mark.parametrize("way", ["apply_gradients", "apply"])
def test_an_optimizer_that_is_not_named_leaves_zeros_too(way):
    model = network()
    mask = lottery.find_mask(model, 0.6)
    with lottery.masked(model, mask):
        optimizer = keras.optimizers.AdamW(0.02, weight_decay=0.1)
        step = tf.function(stepping(model, optimizer, way))
        for _ in range(STEPS):
            step(*data())
            assert leaks(model, mask) == 0


def test_clipping_by_hand_needs_masked_gradients():
    def trained(change):
        model = network()
        mask = lottery.find_mask(model, 0.6)
        small = KeptOnly(model, mask)
        with lottery.masked(model, mask):
            optimizer = keras.optimizers.SGD(0.5)
            masked = (
                (lambda g: lottery.masked_gradients(g, model))
                if change
                else None
            )
            step = stepping(model, optimizer, clip=0.05, change=masked)
            run = tf.function(step)
            for _ in range(STEPS):
                run(*data())
            assert leaks(model, mask) == 0
        run = tf.function(stepping(small, keras.optimizers.SGD(0.5), clip=0.05))
        for _ in range(STEPS):
            run(*data())
        return np.abs(model.layers[0].kernel - small.kernels()[0]).max()

    assert trained(True) < 1e-6
    assert trained(False) > 1e-3  # the norm is that of removed ones, too


def test_old_momentum_moves_nothing_once_the_optimizer_is_named():
    model, optimizer = network(), keras.optimizers.SGD(0.1, momentum=0.9)
    run = tf.function(stepping(model, optimizer))
    for _ in range(3):
        run(*data())
    mask = lottery.find_mask(model, 0.6)
    lottery.attach(model, mask, optimizer)
    for variable, slot in zip(
        model.trainable_variables, optimizer.momentums, strict=True
    ):
        removed = variable.numpy() == 0
        if len(variable.shape) == 2:
            assert removed.any()
            assert not slot.numpy()[removed].any()
            assert slot.numpy()[~removed].all()
    run = tf.function(stepping(model, optimizer))  # a new one: it knows
    for _ in range(3):
        run(*data())
        assert leaks(model, mask) == 0
    lottery.detach(model)
    assert "apply" not in vars(optimizer)


def test_a_function_that_was_traced_before_is_told_of():
    model, optimizer = network(), keras.optimizers.SGD(0.1)
    run = tf.function(stepping(model, optimizer))
    run(*data())
    mask = lottery.find_mask(model, 0.6)
    with pytest.warns(InexactMaskWarning, match="hidden/kernel .*traced"):
        with lottery.masked(model, mask, optimizer):
            run(*data())
    assert leaks(model, mask) == 0  # zeroed on the way out
    lottery.attach(model, mask, optimizer)
    run(*data())
    with pytest.warns(InexactMaskWarning, match="Attach first"):
        lottery.detach(model)


def test_find_tickets_tells_of_a_loop_that_knows_no_mask():
    model, optimizer = network(), keras.optimizers.SGD(0.1)
    run = tf.function(stepping(model, optimizer))
    run(*data())

    def train(model, first, last):
        for _ in range(first, last):
            run(*data())

    found = lottery.find_tickets(model, train, lottery.OneShot(0.5), steps=2)
    assert next(found).mask.sparsity == 0
    with pytest.warns(InexactMaskWarning, match="traced"):
        assert next(found).mask.kept == 30


def test_what_is_no_optimizer_of_keras_is_refused():
    model = network()
    mask = lottery.find_mask(model, 0.6)
    with pytest.raises(ValueError, match="`optimizer` takes Keras 3"):
        lottery.attach(model, mask, "adam")
    assert leaks(model, mask) > 0  # nothing was done
