"""Every Keras optimizer, in every mode, under a mask.

The reference is a network that owns nothing but the kept weights: 1-D values
scattered into the kernel. (Removing whole units would be a blind test: the
gradients of a dead unit are zero without any mask.) The last table shows that
this one is not blind.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.pruning.mask import Mask
from keras_lottery.training.enforce import attach
from keras_lottery.training.enforce import detach
from keras_lottery.training.enforce import is_attached

STEPS = 40
BATCH = 16
DENSITY = 0.3

# Name: (class, arguments). A version of Keras may lack some classes.
TABLE = {
    "SGD": ("SGD", {"learning_rate": 0.1}),
    "SGD momentum": ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    "SGD nesterov": (
        "SGD",
        {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
    ),
    "RMSprop": ("RMSprop", {"learning_rate": 0.01}),
    "RMSprop centered": (
        "RMSprop",
        {"learning_rate": 0.005, "centered": True, "momentum": 0.5},
    ),
    "Adam": ("Adam", {"learning_rate": 0.02}),
    "Adam amsgrad": ("Adam", {"learning_rate": 0.02, "amsgrad": True}),
    "AdamW": ("AdamW", {"learning_rate": 0.02}),
    "Adamax": ("Adamax", {"learning_rate": 0.02}),
    "Nadam": ("Nadam", {"learning_rate": 0.02}),
    "Adagrad": ("Adagrad", {"learning_rate": 0.1}),
    "Adadelta": ("Adadelta", {"learning_rate": 10.0}),
    "Adafactor": ("Adafactor", {"learning_rate": 0.05}),
    "Ftrl": ("Ftrl", {"learning_rate": 0.1}),
    "Lion": ("Lion", {"learning_rate": 0.005}),
    "Lamb": ("Lamb", {"learning_rate": 0.02}),
    "Muon": ("Muon", {"learning_rate": 0.02}),
    "ScheduleFreeAdamW": ("ScheduleFreeAdamW", {"learning_rate": 0.02}),
    "LossScaleOptimizer": ("LossScaleOptimizer", {"learning_rate": 0.02}),
    "MultiOptimizer": ("MultiOptimizer", {"learning_rate": 0.02}),
}
OPTIMIZERS = {
    name: row
    for name, row in TABLE.items()
    if hasattr(keras.optimizers, row[0])
}
# These two look at whole matrices, pruned entries included.
NOT_A_SUBNETWORK = ("Adafactor", "Muon")
EXACT = [name for name in OPTIMIZERS if name not in NOT_A_SUBNETWORK]
WHOLE = [name for name in OPTIMIZERS if name in NOT_A_SUBNETWORK]

EMA = {"use_ema": True, "ema_momentum": 0.9}
MODES = {
    "plain": {},
    "clipnorm": {"clipnorm": 0.02},
    "global_clipnorm": {"global_clipnorm": 0.05},
    "clipvalue": {"clipvalue": 0.003},
    "weight_decay": {"weight_decay": 0.05},
    "ema": EMA,
    "ema overwritten": {**EMA, "ema_overwrite_frequency": 5},
    "accumulation": {"gradient_accumulation_steps": 3},
    "clip, accumulation": {
        "global_clipnorm": 0.05,
        "gradient_accumulation_steps": 3,
    },
    "schedule": {"schedule": True},
    "all of them": {
        "schedule": True,
        "clipnorm": 0.02,
        "weight_decay": 0.05,
        "gradient_accumulation_steps": 2,
        **EMA,
        "ema_overwrite_frequency": 6,
    },
}
QUICK = [
    (name, mode)
    for name in OPTIMIZERS
    for mode in MODES
    if mode == "all of them" or name == "Adam"
]


def cells(names):
    """Every optimizer with every mode; most are left out of quick runs."""
    return [
        pytest.param(
            name,
            mode,
            marks=[] if (name, mode) in QUICK else pytest.mark.thorough,
            id=f"{name}-{mode}",
        )
        for name in names
        for mode in MODES
    ]


def optimizer_of(name, mode):
    """Returns a new optimizer of the table in a mode."""
    kind, arguments = OPTIMIZERS[name]
    arguments = {**arguments, **MODES[mode]}
    if arguments.pop("schedule", False):
        rate = arguments["learning_rate"]
        arguments["learning_rate"] = (
            keras.optimizers.schedules.ExponentialDecay(rate, 10, 0.7)
        )
    if kind == "LossScaleOptimizer":
        return keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(**arguments),
            initial_scale=256.0,
            dynamic_growth_steps=7,
        )
    if kind == "MultiOptimizer":
        biases = keras.optimizers.SGD(**arguments)
        others = keras.optimizers.Adam(**arguments)
        return keras.optimizers.MultiOptimizer(
            lambda variable: biases if variable.name == "bias" else others
        )
    return getattr(keras.optimizers, kind)(**arguments)


class Scattered(keras.layers.Layer):
    """A dense layer that owns only the kept entries of its kernel."""

    def __init__(self, kept, activation, **kwargs):
        super().__init__(**kwargs)
        self.shape, self.indices = kept.shape, np.argwhere(kept)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        """Creates as many values as the mask keeps."""
        self.values = self.add_weight(shape=(len(self.indices),), name="values")
        self.bias = self.add_weight(shape=self.shape[1:], name="bias")

    def call(self, inputs):
        """Multiplies with the scattered kernel."""
        kernel = tf.scatter_nd(
            self.indices, tf.convert_to_tensor(self.values), self.shape
        )
        return self.activation(tf.matmul(inputs, kernel) + self.bias)


class Network:
    """A model with its gradients at any step, traced once for all cells."""

    def __init__(self, model, x, y):
        self.model, self.variables = model, model.trainable_variables

        @tf.function
        def gradients(step):
            rows = (step * BATCH + tf.range(BATCH)) % len(x)
            with tf.GradientTape() as tape:
                error = model(tf.gather(x, rows)) - tf.gather(y, rows)
                loss = tf.reduce_mean(tf.square(error))
            return tape.gradient(loss, self.variables)

        self.gradients = gradients

    def set(self, values):
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    @property
    def values(self):
        return [variable.numpy() for variable in self.variables]

    def train(self, optimizer, first, last, after_step=lambda: None):
        for step in range(first, last):
            grads = self.gradients(tf.constant(step))
            scale = optimizer.scale_loss(1.0)
            optimizer.apply([scale * g for g in grads], self.variables)
            after_step()


def dense_model():
    return keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(16, "tanh", name="hidden"),
            keras.layers.Dense(4, name="output"),
        ]
    )


def scattered_model(mask):
    return keras.Sequential(
        [
            keras.Input((20,)),
            Scattered(mask["hidden/kernel"], "tanh", name="hidden"),
            Scattered(mask["output/kernel"], None, name="output"),
        ]
    )


def random_mask(seed, density=DENSITY):
    rng = np.random.default_rng(seed)
    shapes = {"hidden/kernel": (20, 16), "output/kernel": (16, 4)}
    return Mask({n: rng.random(s) < density for n, s in shapes.items()})


class Stage:
    """The dense network, the reference, a twin, their start and the data."""

    def __init__(self):
        rng = np.random.default_rng(7)
        self.x = rng.normal(size=(96, 20)).astype("float32")
        self.y = rng.normal(size=(96, 4)).astype("float32")
        self.mask = random_mask(3)
        self.dense = Network(dense_model(), self.x, self.y)
        self.reference = Network(scattered_model(self.mask), self.x, self.y)
        self.twin = Network(dense_model(), self.x, self.y)
        self.start = [
            rng.normal(size=v.shape, scale=0.3).astype("float32")
            for v in self.dense.variables
        ]

    def reset(self):
        if is_attached(self.dense.model):
            detach(self.dense.model)
        self.dense.set(self.start)
        self.reference.set(self.kept(self.start))
        self.twin.set(self.masked(self.start))

    def kept(self, values, mask=None):
        """Returns what a network owns that owns the kept weights only."""
        one, two = (mask or self.mask).values()
        return [values[0][one], values[1], values[2][two], values[3]]

    def masked(self, values):
        one, two = self.mask.values()
        return [values[0] * one, values[1], values[2] * two, values[3]]

    def hold(self, optimizer):
        self.dense.model.compile(optimizer, "mse")
        attach(self.dense.model, self.mask)
        assert "apply" in vars(optimizer)

    def let_go_of_gradients(self, optimizer):
        del optimizer.apply
        assert inspect.ismethod(optimizer.apply)


@pytest.fixture(scope="module")
def all_stages():
    return Stage()


@pytest.fixture
def stage(all_stages):
    all_stages.reset()
    yield all_stages
    all_stages.reset()


def averages_by_variable(optimizer, variables):
    """Returns {index of variable: its moving average}, found by name."""
    by_name = {v.name: v for v in optimizer.variables}
    wanted = {
        index: f"{variable.path.replace('/', '_')}_average"
        for index, variable in enumerate(variables)
    }
    return {i: by_name[n] for i, n in wanted.items() if n in by_name}


class Zeros:
    """Counts non-zeros among pruned weights and averages at every step."""

    def __init__(self, network, optimizer, mask, with_averages):
        self.network, self.optimizer = network, optimizer
        self.mask, self.with_averages = mask, with_averages
        self.weights, self.averages = [], []

    def __call__(self):
        self.weights.append(self.count(self.network.values))
        if self.with_averages:
            found = averages_by_variable(self.optimizer, self.network.variables)
            assert len(found) == 4
            self.averages.append(
                self.count([found[i].numpy() for i in range(4)])
            )

    def count(self, values):
        one, two = self.mask.values()
        return int(
            np.count_nonzero(values[0][~one])
            + np.count_nonzero(values[2][~two])
        )

    def check(self, steps):
        assert self.weights == [0] * steps
        assert self.averages == ([0] * steps if self.with_averages else [])


def difference(values, expected):
    """Returns the largest difference relative to the largest parameter."""
    largest = max(np.abs(e).max() for e in expected)
    return max(
        np.abs(v - e).max() / largest
        for v, e in zip(values, expected, strict=True)
    )


def has_averages(mode):
    return MODES[mode].get("use_ema", False)


def averages_of(network, optimizer):
    found = averages_by_variable(optimizer, network.variables)
    return [found[i].numpy() for i in range(4)]


def train_both(stage, name, mode):
    """Trains under the mask and the reference; returns their differences."""
    optimizer, other = optimizer_of(name, mode), optimizer_of(name, mode)
    stage.hold(optimizer)
    zeros = Zeros(stage.dense, optimizer, stage.mask, has_averages(mode))
    stage.dense.train(optimizer, 0, STEPS, zeros)
    zeros.check(STEPS)
    stage.reference.train(other, 0, STEPS)
    found = [difference(stage.kept(stage.dense.values), stage.reference.values)]
    if has_averages(mode):
        stage.dense.model.optimizer.finalize_variable_values(
            stage.dense.variables
        )
        other.finalize_variable_values(stage.reference.variables)
        assert zeros.count(stage.dense.values) == 0
        found.append(
            difference(stage.kept(stage.dense.values), stage.reference.values)
        )
    moved = difference(stage.reference.values, stage.kept(stage.start))
    return max(found), moved


def test_the_table_has_every_optimizer_of_this_keras():
    present = {
        name
        for name, value in vars(keras.optimizers).items()
        if inspect.isclass(value)
        and issubclass(value, keras.optimizers.Optimizer)
        and value is not keras.optimizers.Optimizer
    }
    assert present == {kind for kind, _ in OPTIMIZERS.values()}


@pytest.mark.parametrize(("name", "mode"), cells(EXACT))
def test_trains_as_a_network_that_owns_the_kept_weights_only(stage, name, mode):
    found, moved = train_both(stage, name, mode)
    assert moved > 1e-3
    assert found <= 1e-6
