"""What is read of Keras's optimizers, on the Keras at hand."""

import keras
import numpy as np
import pytest

from keras_lottery.training import keras_private

# Slots shaped like the weight, with the value they have when built.
SLOTS = {
    "SGD": {},
    "SGD momentum": {"momentums": 0.0},
    "RMSprop": {"_velocities": 0.0},
    "RMSprop centered": {
        "_velocities": 0.0, "_momentums": 0.0, "_average_gradients": 0.0,
    },
    "Adam": {"_momentums": 0.0, "_velocities": 0.0},
    "Adam amsgrad": {
        "_momentums": 0.0, "_velocities": 0.0, "_velocity_hats": 0.0,
    },
    "AdamW": {"_momentums": 0.0, "_velocities": 0.0},
    "Adamax": {"_m": 0.0, "_u": 0.0},
    "Nadam": {"_momentums": 0.0, "_velocities": 0.0},
    "Adagrad": {"_accumulators": 0.1},
    "Adagrad at 0.7": {"_accumulators": 0.7},
    "Adadelta": {"_accumulated_grads": 0.0, "_accumulated_delta_vars": 0.0},
    "Adafactor": {"_v": 0.0},
    "Ftrl": {"_accumulators": 0.1, "_linears": 0.0},
    "Lion": {"_momentums": 0.0},
    "Lamb": {"_momentums": 0.0, "_velocities": 0.0},
    "Muon": {"momentums": 0.0},
    "ScheduleFreeAdamW": {"_momentums": 0.0, "_velocities": 0.0},
}  # fmt: skip
ARGUMENTS = {
    "SGD momentum": {"momentum": 0.9},
    "RMSprop centered": {"centered": True, "momentum": 0.5},
    "Adam amsgrad": {"amsgrad": True},
    "Adagrad at 0.7": {"initial_accumulator_value": 0.7},
}
PRESENT = [name for name in SLOTS if hasattr(keras.optimizers, name.split()[0])]


def optimizer_of(name, **arguments):
    kind = getattr(keras.optimizers, name.split()[0])
    return kind(**ARGUMENTS.get(name, {}), **arguments)


def two_weights():
    return [
        keras.Variable(np.ones((3, 2)), name="kernel"),
        keras.Variable(np.ones(2), name="bias"),
    ]


def built(optimizer):
    variables = two_weights()
    optimizer.build(variables)
    return optimizer, variables


@pytest.mark.parametrize("name", PRESENT)
def test_slots_and_what_they_hold_when_built(name):
    optimizer, (kernel, _) = built(optimizer_of(name))
    found = {
        where: slot
        for where, _, variable, slot in keras_private.slots(optimizer)
        if variable is kernel
    }
    assert set(found) == set(SLOTS[name])
    assert all(tuple(slot.shape) == (3, 2) for slot in found.values())
    values = keras_private.built_values(optimizer)
    for where, value in SLOTS[name].items():
        assert values[where, 0] == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize("name", PRESENT)
def test_every_slot_of_the_optimizer_is_found(name):
    optimizer, (kernel, bias) = built(
        optimizer_of(name, use_ema=True, gradient_accumulation_steps=2)
    )
    found = {id(slot) for *_, slot in keras_private.slots(optimizer)}
    for variable in optimizer.variables:
        if tuple(variable.shape) in [(3, 2), (2,)]:
            factored = name == "Adafactor" and variable.name == "kernel"
            assert (id(variable) in found) != factored
    assert id(kernel) not in found
    assert id(bias) not in found


def test_slots_say_whose_they_are():
    optimizer, (kernel, bias) = built(keras.optimizers.Adam())
    found = list(keras_private.slots(optimizer))
    assert [(w, i) for w, i, _, _ in found] == [
        ("_momentums", 0), ("_momentums", 1),
        ("_velocities", 0), ("_velocities", 1),
    ]  # fmt: skip
    assert all(
        variable is (kernel, bias)[index] for _, index, variable, _ in found
    )


def test_an_optimizer_that_is_not_built_has_no_slots():
    assert list(keras_private.slots(keras.optimizers.Adam())) == []


def test_built_values_change_nothing():
    optimizer, _ = built(keras.optimizers.Adagrad())
    before = [v.numpy().copy() for v in optimizer.variables]
    count = len(optimizer.variables)
    keras_private.built_values(optimizer)
    assert len(optimizer.variables) == count
    for variable, value in zip(optimizer.variables, before, strict=True):
        assert (variable.numpy() == value).all()


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """As users write them: no `get_config`, not registered."""

    def __call__(self, step):
        return 0.1


@pytest.mark.parametrize(
    "rate", [OwnSchedule(), lambda: 0.1], ids=["schedule", "function"]
)
def test_built_values_with_a_learning_rate_that_does_not_serialize(rate):
    optimizer, _ = built(keras.optimizers.Adagrad(rate))
    values = keras_private.built_values(optimizer)
    assert values["_accumulators", 0] == pytest.approx(0.1)
    assert keras_private.learning_rate(optimizer) is rate


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "Muon"), reason="this Keras has no Muon"
)
@pytest.mark.parametrize("exclude", [["last"], []])
def test_built_values_where_the_path_decides_on_slots(exclude):
    """Muon trains layers in `exclude_layers`, and embeddings, as Adam."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, name="embedding_projection"),
            keras.layers.Dense(2, name="last"),
        ]
    )
    optimizer = keras.optimizers.Muon(exclude_layers=exclude)
    optimizer.build(model.trainable_variables)
    values = keras_private.built_values(optimizer)
    slots = {
        (where, index) for where, index, _, _ in keras_private.slots(optimizer)
    }
    assert ("adam_velocities", 0) in slots
    assert (("adam_velocities", 2) in slots) == bool(exclude)
    assert {key: values[key] for key in slots} == dict.fromkeys(slots, 0.0)


def test_leaves():
    adam, sgd = keras.optimizers.Adam(), keras.optimizers.SGD()
    assert keras_private.leaves(adam) == [adam]
    scaled = keras.optimizers.LossScaleOptimizer(adam)
    assert keras_private.leaves(scaled) == [adam]
    built(scaled)
    assert keras_private.leaves(scaled) == [adam]
    if hasattr(keras.optimizers, "MultiOptimizer"):
        several = keras.optimizers.MultiOptimizer(
            lambda variable: sgd if variable.name == "bias" else adam
        )
        built(several)
        assert {id(leaf) for leaf in keras_private.leaves(several)} == {
            id(adam),
            id(sgd),
        }


def test_averages():
    optimizer, variables = built(keras.optimizers.SGD(use_ema=True))
    pairs = keras_private.averages(optimizer)
    assert [variable for variable, _ in pairs] == variables
    assert [tuple(a.shape) for _, a in pairs] == [(3, 2), (2,)]
    assert keras_private.averages(built(keras.optimizers.SGD())[0]) == []


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "OptimizerMap"),
    reason="this Keras has no OptimizerMap",
)
def test_averages_of_an_optimizer_that_got_no_variable():
    unused = keras.optimizers.SGD(use_ema=True)
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            unused, {".*": keras.optimizers.Adam(use_ema=True)}
        )
    )
    built(several)
    pairs = [
        pair
        for leaf in keras_private.leaves(several)
        for pair in keras_private.averages(leaf)
    ]
    assert len(pairs) == 2


def test_key_and_trained_by():
    optimizer, (kernel, bias) = built(keras.optimizers.SGD())
    keys = [keras_private.key(optimizer, v) for v in (kernel, bias)]
    assert len(set(keys)) == 2
    assert keras_private.key(optimizer, kernel.value) == keys[0]
    trained = keras_private.trained_by(optimizer)
    assert trained[0] is kernel
    assert trained[1] is bias
    trained.clear()
    assert len(keras_private.trained_by(optimizer)) == 2


def names_of(clock):
    return sorted(v.name.split("/")[-1] for v in clock)


def test_clock_variables():
    adam, _ = built(keras.optimizers.Adam())
    clock = keras_private.clock_variables(adam)
    assert names_of(clock) == ["iteration", "learning_rate"]
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    scheduled, _ = built(keras.optimizers.SGD(schedule))
    clock = keras_private.clock_variables(scheduled)
    assert names_of(clock) == ["iteration"]


def test_the_clock_of_nadam_has_its_product_of_momenta():
    nadam, variables = built(keras.optimizers.Nadam())
    nadam.apply([np.ones((3, 2), "float32"), np.ones(2, "float32")])
    clock = [float(v) for v in keras_private.clock_variables(nadam)]
    assert len(clock) == 3
    assert any(0.4 < value < 0.5 for value in clock)  # 0.9 * (1 - 0.5 * 0.96)


def test_the_loss_scale_is_no_clock():
    scaled, _ = built(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    )
    clock = keras_private.clock_variables(scaled)
    assert names_of(clock) == ["iteration", "learning_rate"]


def test_slots_of_a_scalar_weight_are_no_clock():
    """A layer's single gain has momenta without any dimension, too."""
    optimizer = keras.optimizers.Adam()
    optimizer.build([keras.Variable(1.0, name="gain")])
    clock = keras_private.clock_variables(optimizer)
    assert names_of(clock) == ["iteration", "learning_rate"]


def test_the_learning_rate_can_be_replaced():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    optimizer, (kernel, _) = built(keras.optimizers.SGD(schedule))
    assert keras_private.learning_rate(optimizer) is schedule
    keras_private.set_learning_rate(optimizer, 0.5)
    optimizer.apply([np.ones((3, 2), "float32"), np.zeros(2, "float32")])
    assert (kernel.numpy() == 0.5).all()
    keras_private.set_learning_rate(optimizer, schedule)
    assert keras_private.learning_rate(optimizer) is schedule


def test_the_arguments_of_compile():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    optimizer = keras.optimizers.SGD()
    model.compile(optimizer, "mse", metrics=["mae"], jit_compile=False)
    found = keras_private.compile_arguments(model)
    assert found["optimizer"] is optimizer
    assert found["loss"] == "mse"
    assert found["metrics"] == ["mae"]
    assert found["jit_compile"] is False
    found.clear()
    assert keras_private.compile_arguments(model)["loss"] == "mse"
