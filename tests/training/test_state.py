"""Snapshots hold everything that decides how a training goes on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.training import keras_private
from keras_lottery.training import state

OPTIMIZERS = {
    "SGD momentum": ("SGD", {"momentum": 0.9}),
    "RMSprop": ("RMSprop", {"centered": True, "momentum": 0.5}),
    "Adam": ("Adam", {"amsgrad": True}),
    "Adam averaged": (
        "Adam",
        {
            "use_ema": True,
            "ema_overwrite_frequency": 4,
            "gradient_accumulation_steps": 2,
        },
    ),
    "AdamW": ("AdamW", {}),
    "Adamax": ("Adamax", {}),
    "Nadam": ("Nadam", {}),
    "Adagrad": ("Adagrad", {}),
    "Adadelta": ("Adadelta", {}),
    "Adafactor": ("Adafactor", {}),
    "Ftrl": ("Ftrl", {}),
    "Lion": ("Lion", {}),
    "Lamb": ("Lamb", {}),
    "Muon": ("Muon", {}),
    "ScheduleFreeAdamW": ("ScheduleFreeAdamW", {}),
}
PRESENT = [n for n, (kind, _) in OPTIMIZERS.items()
           if hasattr(keras.optimizers, kind)]  # fmt: skip


def optimizer_of(name, rate=0.01):
    kind, arguments = OPTIMIZERS[name]
    return getattr(keras.optimizers, kind)(rate, **arguments)


def small_model():
    """With statistics and a seed generator of its own."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.5, seed=1, name="drop"),
            keras.layers.Dense(2, name="output"),
        ]
    )


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture
def fresh(model):
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def train(model, optimizer, steps):
    x = tf.constant(np.random.default_rng(1).normal(size=(8, 4)), tf.float32)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - 1.0))
        grads = tape.gradient(loss, model.trainable_variables)
        scaled = optimizer.scale_loss(1.0)
        optimizer.apply([scaled * g for g in grads], model.trainable_variables)


def values(model, optimizer):
    held = [*model.variables, *optimizer.variables]
    return [np.array(v.numpy(), copy=True) for v in held]


def assert_same(one, two):
    assert len(one) == len(two)
    assert all((a == b).all() for a, b in zip(one, two))


@pytest.mark.parametrize(
    "name",
    [
        n if n in ("Adam averaged", "Nadam", "ScheduleFreeAdamW")
        else pytest.param(n, marks=pytest.mark.thorough)
        for n in PRESENT
    ],
)  # fmt: skip
@pytest.mark.parametrize("wrapped", [False, True], ids=["", "scaled"])
def test_training_goes_on_as_it_did(fresh, name, wrapped):
    """Bit for bit, from the start and from inside a training."""
    optimizer = optimizer_of(name)
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=8.0, dynamic_growth_steps=2
        )
    at_start = state.snapshot(fresh, optimizer)
    train(fresh, optimizer, 3)
    inside = state.snapshot(fresh, optimizer)
    train(fresh, optimizer, 3)
    end = values(fresh, optimizer)

    state.restore(inside, fresh, optimizer)
    train(fresh, optimizer, 3)
    assert_same(values(fresh, optimizer), end)

    state.restore(at_start, fresh, optimizer)
    train(fresh, optimizer, 6)
    assert_same(values(fresh, optimizer), end)


def test_a_snapshot_holds_every_variable_once(fresh):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    taken = state.snapshot(fresh, optimizer)
    assert set(taken.model) == {
        "hidden/kernel", "hidden/bias", "norm/gamma", "norm/beta",
        "norm/moving_mean", "norm/moving_variance", "drop/seed",
        "output/kernel", "output/bias",
    }  # fmt: skip
    # Two scalars of the scaling, two of Adam, and its 6 pairs of slots; the
    # wrapper has an iteration and a learning rate of its own.
    assert len(taken.optimizer) == len({id(v) for v in optimizer.variables})
    assert len(taken.optimizer) == 6 + 2 * 6


def test_a_snapshot_is_a_copy(fresh):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    taken = state.snapshot(fresh, optimizer)
    before = {name: value.copy() for name, value in taken.model.items()}
    slots = [value.copy() for value in taken.optimizer]
    train(fresh, optimizer, 2)
    assert_same(list(taken.model.values()), list(before.values()))
    assert_same(taken.optimizer, slots)
    state.restore(taken, fresh, optimizer)
    train(fresh, optimizer, 2)
    assert_same(list(taken.model.values()), list(before.values()))
    assert_same(taken.optimizer, slots)


def test_seeds_and_statistics_are_put_back(fresh):
    optimizer = keras.optimizers.SGD(0.1)
    taken = state.snapshot(fresh, optimizer)
    train(fresh, optimizer, 1)
    changed = {
        name
        for name, value in state.snapshot(fresh).model.items()
        if (value != taken.model[name]).any()
    }
    assert {"drop/seed", "norm/moving_mean", "hidden/kernel"} <= changed
    state.restore_model(taken.model, fresh)
    for name, value in state.snapshot(fresh).model.items():
        assert (value == taken.model[name]).all()


def test_an_unbuilt_optimizer_is_built_first(fresh):
    optimizer = keras.optimizers.Adagrad()
    taken = state.snapshot(fresh, optimizer)
    assert optimizer.built
    assert len(taken.optimizer) == 2 + 6
    train(fresh, optimizer, 1)
    state.restore(taken, fresh, optimizer)
    slots = [v.numpy() for v in optimizer.variables if len(v.shape)]
    assert len(slots) == 6
    assert all((slot == np.float32(0.1)).all() for slot in slots)


def test_without_an_optimizer(fresh):
    taken = state.snapshot(fresh)
    assert taken.optimizer is None
    optimizer = keras.optimizers.SGD(0.1)
    train(fresh, optimizer, 2)
    state.restore(taken, fresh, optimizer)
    assert (state.snapshot(fresh).model["norm/gamma"]
            == taken.model["norm/gamma"]).all()  # fmt: skip
    assert int(optimizer.iterations) == 2


def test_another_optimizer_is_refused(fresh):
    taken = state.snapshot(fresh, keras.optimizers.Adam())
    other = keras.optimizers.SGD()
    other.build(fresh.trainable_variables)
    with pytest.raises(ValueError, match="The optimizer has 2 variables, the"):
        state.restore(taken, fresh, other)


def test_another_model_is_refused(fresh):
    taken = state.snapshot(fresh)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError):
        state.restore(taken, other)


def test_only_some_weights_can_be_put_back(fresh):
    before = state.snapshot(fresh).model
    state.restore_model({"hidden/bias": np.full(5, 3.0)}, fresh)
    after = state.snapshot(fresh).model
    assert (after["hidden/bias"] == 3.0).all()
    assert (after["hidden/kernel"] == before["hidden/kernel"]).all()


def test_the_clock_alone_can_be_put_back(fresh):
    optimizer = keras.optimizers.Nadam(0.01)
    taken = state.snapshot(fresh, optimizer)
    train(fresh, optimizer, 3)
    optimizer.learning_rate = 0.5
    trained = state.snapshot(fresh, optimizer)
    clock = keras_private.clock_variables(optimizer)
    state.restore_clock(taken, optimizer, clock)
    now = state.snapshot(fresh, optimizer)
    assert int(optimizer.iterations) == 0
    assert float(optimizer.learning_rate) == np.float32(0.01)
    pairs = list(zip(now.optimizer, trained.optimizer, taken.optimizer))
    for value, after, before in pairs:
        assert (value == (after if value.shape else before)).all()
    for name, value in now.model.items():
        assert (value == trained.model[name]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["hidden/kernel", "norm/moving_mean"])
def test_the_first_weight_that_is_not_finite(fresh, bad, name):
    assert state.first_not_finite(fresh) is None
    taken = state.snapshot(fresh)
    value = taken.model[name].copy()
    value.ravel()[-1] = bad
    state.restore_model({name: value}, fresh)
    try:
        assert state.first_not_finite(fresh) == name
    finally:
        state.restore(taken, fresh)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_are_looked_at_too(dtype):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(2, dtype=dtype, name="dense")]
    )
    assert state.first_not_finite(model) is None
    model.layers[0].bias.assign([0.0, np.nan])
    assert state.first_not_finite(model) == "dense/bias"


@pytest.mark.parametrize("scheduled", [False, True], ids=["", "schedule"])
def test_the_first_state_has_fresh_slots(fresh, scheduled):
    rate = 0.01
    if scheduled:
        rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    optimizer = keras.optimizers.Adagrad(rate)
    expected = state.snapshot(fresh, optimizer)
    train(fresh, optimizer, 3)
    trained = state.snapshot(fresh, optimizer)
    taken = state.first(fresh, optimizer)
    assert_same(taken.optimizer, expected.optimizer)
    for name, value in taken.model.items():
        assert (value == trained.model[name]).all()
    assert_same(state.snapshot(fresh, optimizer).optimizer, trained.optimizer)
    assert keras_private.learning_rate(optimizer) is rate or not scheduled
    assert state.first(fresh).optimizer is None


class TestFirstNotFinite:
    """Weights, statistics and slots; what is no float cannot be infinite."""

    def test_nothing(self, fresh):
        optimizer = keras.optimizers.Adam()
        train(fresh, optimizer, 2)
        assert state.first_not_finite(fresh) is None
        assert state.first_not_finite(fresh, optimizer) is None
        unbuilt = keras.optimizers.Adam()
        assert state.first_not_finite(fresh, unbuilt) is None
        assert not unbuilt.built

    @pytest.mark.parametrize("wrapped", [False, True], ids=["", "scaled"])
    def test_every_slot(self, fresh, wrapped):
        """By name; of the optimizer that a LossScaleOptimizer wraps, too."""
        inner = optimizer = keras.optimizers.Adam(amsgrad=True)
        if wrapped:
            optimizer = keras.optimizers.LossScaleOptimizer(inner)
        optimizer.build(fresh.trainable_variables)
        slots = [v for v in inner.variables if len(v.shape)]
        assert len(slots) == 3 * len(fresh.trainable_variables)
        for slot in slots:
            before = slot.numpy()
            wrong = before.copy()
            wrong.flat[-1] = np.inf
            slot.assign(wrong)
            found = state.first_not_finite(fresh, optimizer)
            assert found == f"the optimizer's {slot.path}"
            assert state.first_not_finite(fresh) is None
            slot.assign(before)

    def test_the_scale_itself_is_no_slot(self, fresh):
        """Keras may double it beyond float32: it halves it again."""
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
        optimizer.build(fresh.trainable_variables)
        optimizer.dynamic_scale.assign(np.inf)
        assert state.first_not_finite(fresh, optimizer) is None

    def test_large_doubles(self):
        """1e300 is infinite only as a float32."""
        layer = keras.layers.Dense(1, dtype="float64", name="wide")
        model = keras.Sequential([keras.Input((1,)), layer])
        layer.kernel.assign([[1e300]])
        assert state.first_not_finite(model) is None
        layer.kernel.assign([[np.nan]])
        assert state.first_not_finite(model) == "wide/kernel"
