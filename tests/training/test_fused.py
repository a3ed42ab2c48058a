"""Fused updates change what Keras's own `apply` changes, by as much.

Two optimizers of one configuration: Keras's `apply` moves the first, the fused
update the second. Keras is what the numbers are compared with.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.training import fused
from keras_lottery.training import keras_private

pytestmark = pytest.mark.thorough

OPTIMIZERS = {
    "sgd": lambda **more: keras.optimizers.SGD(**_rate(0.05, more)),
    "momentum": lambda **more: keras.optimizers.SGD(
        **_rate(0.05, more), momentum=0.9
    ),
    "nesterov": lambda **more: keras.optimizers.SGD(
        **_rate(0.05, more), momentum=0.9, nesterov=True
    ),
    "adam": lambda **more: keras.optimizers.Adam(**_rate(0.01, more)),
    "adamw": lambda **more: keras.optimizers.AdamW(**_rate(0.01, more)),
}
SCHEDULES = keras.optimizers.schedules
SETTINGS = {
    "plain": dict,
    "clipnorm": lambda: {"clipnorm": 0.5},
    "global_clipnorm": lambda: {"global_clipnorm": 0.5},
    "clipvalue": lambda: {"clipvalue": 0.2},
    "weight_decay": lambda: {"weight_decay": 0.1},
    "exclude": lambda: {"weight_decay": 0.1},
    "exponential": lambda: {
        "learning_rate": SCHEDULES.ExponentialDecay(0.05, 3, 0.8)
    },
    "cosine": lambda: {"learning_rate": SCHEDULES.CosineDecay(0.05, 20)},
    "piecewise": lambda: {
        "learning_rate": SCHEDULES.PiecewiseConstantDecay(
            [2, 4], [0.1, 0.0, 1.0]
        )
    },
    "assigned": dict,
    "function": lambda: {"learning_rate": lambda: 0.03},
    "loss_scale": lambda: {"loss_scale_factor": 8.0},
    "all": lambda: {
        "learning_rate": SCHEDULES.CosineDecay(0.05, 20),
        "weight_decay": 0.1,
        "global_clipnorm": 0.5,
    },
}
MODES = ["eager", "graph", "xla"]
STEPS = 5
SHAPES = [(6, 5), (5,), (3, 3, 2, 4), ()]


def _rate(default, more):
    return {"learning_rate": default, **more}


def _variables(seed=0):
    draw = np.random.default_rng(seed)
    names = ["kernel", "bias", "convolution", "scale"]
    return [
        keras.Variable(draw.normal(size=shape), dtype="float32", name=name)
        for shape, name in zip(SHAPES, names, strict=True)
    ]


def _gradients(count, seed=1):
    draw = np.random.default_rng(seed)
    return [
        tf.constant(draw.normal(size=(count, *shape)), tf.float32)
        for shape in SHAPES
    ]


def _built(name, variables, setting="plain", **more):
    optimizer = OPTIMIZERS[name](**{**SETTINGS[setting](), **more})
    if setting == "exclude":
        optimizer.exclude_from_weight_decay(
            var_list=[variables[0]], var_names=["bias"]
        )
    optimizer.build(variables)
    return optimizer


def _loop(apply, mode):
    """Returns a function that applies a stack of gradients, row by row."""
    if mode == "eager":

        def run(stacks):
            for row in range(len(stacks[0])):
                apply([stack[row] for stack in stacks])

        return run

    @tf.function(jit_compile=mode == "xla")
    def run(stacks):
        for row in tf.range(tf.shape(stacks[0])[0]):
            apply([stack[row] for stack in stacks])

    return run


def _keras(optimizer, variables):
    return lambda gradients: optimizer.apply(gradients, variables)


def _state(optimizer):
    held = [*keras_private.trained_by(optimizer), *optimizer.variables]
    return [variable.numpy() for variable in held]


def _copy(source, target):
    """Makes the second optimizer, and its weights, equal to the first."""
    for name in ("trained_by", "variables"):
        read = getattr(keras_private, name)
        for one, other in zip(read(source), read(target), strict=True):
            other.assign(one)


def _beta_error(optimizer):
    """Returns what the kernel's float32 `1 - beta` costs, relatively."""
    if not isinstance(optimizer, keras.optimizers.Adam):
        return 0.0
    betas = [optimizer.beta_1, optimizer.beta_2]
    off = [(1 - float(np.float32(b))) / (1 - b) - 1 for b in betas]
    return max(abs(each) for each in off)


def _assert_same_step(before, expected, got, relative, of_the_step):
    """Compares entry by entry, with what the entries were and moved by."""
    for old, one, other in zip(before, expected, got, strict=True):
        assert one.dtype == other.dtype
        size = np.maximum(np.abs(one), np.abs(old)).astype(np.float64)
        moved = np.abs(one.astype(np.float64) - old)
        off = np.abs(one.astype(np.float64) - other)
        assert (off <= relative * size + of_the_step * moved).all()


def _thorough(name, setting, mode):
    traced = {"graph": list(OPTIMIZERS), "xla": ["nesterov", "adamw"]}
    quick = mode == "eager" or (setting == "all" and name in traced[mode])
    marks = [] if quick else [pytest.mark.thorough]
    return pytest.param(name, setting, mode, marks=marks)


@pytest.mark.parametrize(
    ("name", "setting", "mode"),
    [
        _thorough(name, setting, mode)
        for name in OPTIMIZERS
        for setting in SETTINGS
        for mode in MODES
    ],
)
def test_every_step_from_an_equal_state_is_keras_own(name, setting, mode):
    # The kernel's float32 `1 - beta` is in the second moment; of the step half
    # of it, where the moment is not of one training from its start.
    ours, theirs = _variables(), _variables()
    expected = _built(name, theirs, setting)
    optimizer = _built(name, ours, setting)
    run = _loop(fused.update(optimizer), mode)
    run_keras = _loop(_keras(expected, theirs), mode)
    stacks = _gradients(STEPS)
    for step in range(STEPS):
        if setting == "assigned":
            expected.learning_rate = 0.2 / (step + 1)
        _copy(expected, optimizer)
        before = _state(expected)
        row = [stack[step : step + 1] for stack in stacks]
        run_keras(row)
        run(row)
        _assert_same_step(
            before,
            _state(expected),
            _state(optimizer),
            relative=1e-6,
            of_the_step=_beta_error(optimizer),
        )
        assert int(optimizer.iterations) == step + 1


def _tanh_network():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="tanh"),
            keras.layers.Dense(12, activation="tanh"),
            keras.layers.Dense(3),
        ]
    )


def _trained(name, setting, mode, is_fused, steps=100):
    """Returns (first weights, the optimizer after `steps` steps)."""
    model = _tanh_network()
    variables = model.trainable_variables
    first = [v.numpy() for v in variables]
    optimizer = _built(name, variables, setting)
    apply = _keras(optimizer, variables)
    if is_fused:
        apply = fused.update(optimizer)
    draw = np.random.default_rng(5)
    inputs = tf.constant(draw.normal(size=(32, 8)), tf.float32)
    targets = tf.constant(draw.normal(size=(32, 3)), tf.float32)

    def step(_):
        with tf.GradientTape() as tape:
            error = model(inputs, training=True) - targets
            loss = tf.reduce_mean(tf.square(error))
        apply(tape.gradient(loss, [v.value for v in variables]))

    _loop(step, mode)([tf.zeros(steps)])
    return first, optimizer


@pytest.mark.parametrize(
    "mode",
    [
        "graph",
        pytest.param("eager", marks=pytest.mark.thorough),
        pytest.param("xla", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize("setting", ["plain", "all"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps_train_the_same_network(name, setting, mode):
    first, expected = _trained(name, setting, mode, is_fused=False)
    _, optimizer = _trained(name, setting, mode, is_fused=True)
    assert int(optimizer.iterations) == int(expected.iterations) == 100
    weights = keras_private.trained_by(expected)
    held = keras_private.trained_by(optimizer)
    for start, one, other in zip(first, weights, held, strict=True):
        one, other = one.numpy(), other.numpy()
        assert np.linalg.norm(one - start) > 0.05 * np.linalg.norm(one)
        off = np.linalg.norm(one - other) / np.linalg.norm(one)
        assert off <= 1e-5
    slots = zip(
        keras_private.slots(expected),
        keras_private.slots(optimizer),
        strict=True,
    )
    for (*_, one), (*_, other) in slots:
        one, other = one.numpy(), other.numpy()
        assert np.linalg.norm(one - other) <= 3e-5 * np.linalg.norm(one)


@pytest.mark.parametrize(
    "mode",
    ["eager", "graph", pytest.param("xla", marks=pytest.mark.thorough)],
)
@pytest.mark.parametrize("setting", ["plain", "all"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_stay_exactly_zero(name, setting, mode):
    variables = _variables()
    kept = [np.random.default_rng(7).random(v.shape) < 0.5 for v in variables]
    for variable, mask in zip(variables, kept, strict=True):
        variable.assign(np.where(mask, variable, 0.0))
    optimizer = _built(name, variables, setting)
    stacks = [
        tf.where(mask, stack, 0.0)
        for stack, mask in zip(_gradients(30), kept, strict=True)
    ]
    _loop(fused.update(optimizer), mode)(stacks)
    held = [(v, kept[i]) for i, v in enumerate(variables)]
    held += [(s, kept[i]) for _, i, _, s in keras_private.slots(optimizer)]
    for variable, mask in held:
        assert np.count_nonzero(variable.numpy()[~mask]) == 0
        assert np.count_nonzero(variable.numpy()) == np.count_nonzero(mask)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_saved_optimizers_continue_as_if_never_saved(name, tmp_path):
    stacks = _gradients(12)
    first = [stack[:7] for stack in stacks]
    rest = [stack[7:] for stack in stacks]
    variables = _variables()
    optimizer = _built(name, variables, "all")
    run = _loop(fused.update(optimizer), "graph")
    run(first)
    store = {}
    optimizer.save_own_variables(store)
    weights = [variable.numpy() for variable in variables]
    run(rest)
    others = _variables(seed=9)
    loaded = type(optimizer).from_config(optimizer.get_config())
    loaded.build(others)
    loaded.load_own_variables(store)
    for variable, weight in zip(others, weights, strict=True):
        variable.assign(weight)
    _loop(fused.update(loaded), "graph")(rest)
    for one, other in zip(_state(optimizer), _state(loaded), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_keras_continues_what_fused_steps_began(name):
    stacks = _gradients(12)
    ours, theirs = _variables(), _variables()
    optimizer, expected = _built(name, ours), _built(name, theirs)
    _loop(fused.update(optimizer), "graph")([s[:7] for s in stacks])
    _loop(_keras(optimizer, ours), "graph")([s[7:] for s in stacks])
    _loop(_keras(expected, theirs), "graph")(stacks)
    for one, other in zip(_state(expected), _state(optimizer), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("constraints", [False, True])
def test_constraints_are_applied_only_where_asked(constraints):
    weight = keras.Variable([-3.0, 1.0])
    weight.constraint = keras.constraints.NonNeg()
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build([weight])
    fused.update(optimizer, constraints=constraints)([tf.constant([1.0, 0.5])])
    expected = [0.0, 0.5] if constraints else [-4.0, 0.5]
    assert weight.numpy().tolist() == expected


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_missing_gradients_leave_their_variable_alone_as_in_keras(name):
    ours, theirs = _variables(), _variables()
    optimizer = _built(name, ours, weight_decay=0.1, global_clipnorm=0.5)
    expected = _built(name, theirs, weight_decay=0.1, global_clipnorm=0.5)
    gradients = [stack[0] for stack in _gradients(1)]
    gradients[1] = None
    bias = ours[1].numpy()
    with pytest.warns(UserWarning, match="Gradients do not exist.*bias"):
        fused.update(optimizer)(gradients)
    with pytest.warns(UserWarning, match="Gradients do not exist.*bias"):
        expected.apply(gradients, theirs)
    for one, other in zip(_state(expected), _state(optimizer), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=1e-7)
    assert np.array_equal(ours[1].numpy(), bias)


def test_a_replaced_apply_is_not_called():
    weight = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build([weight])
    optimizer.apply = None
    fused.update(optimizer)([tf.constant([0.25])])
    assert weight.numpy().tolist() == [0.75]


class OwnAdam(keras.optimizers.Adam):
    """A subclass may do anything."""


UNSERVED = {
    "amsgrad": (keras.optimizers.Adam(amsgrad=True), "Adam has amsgrad=True"),
    "ema": (keras.optimizers.SGD(use_ema=True), "SGD has use_ema=True"),
    "accumulation": (
        keras.optimizers.AdamW(gradient_accumulation_steps=2),
        "AdamW has gradient_accumulation_steps=2",
    ),
    "loss scale": (
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        "LossScaleOptimizer is none of SGD, Adam, AdamW",
    ),
    "subclass": (OwnAdam(), "OwnAdam is none of SGD, Adam, AdamW"),
    "other": (keras.optimizers.Nadam(), "Nadam is none of SGD, Adam, AdamW"),
    "beta_2": (
        keras.optimizers.Adam(beta_2=0.9999),
        "Adam has beta_1=0.9, beta_2=0.9999, which float32 kernels change by "
        "8.3e-05",
    ),
    "beta_1": (
        keras.optimizers.Adam(beta_1=1.0),
        "Adam has beta_1=1.0, which is no number in [0, 1)",
    ),
    "epsilon": (
        keras.optimizers.Adam(epsilon=1e-50),
        "Adam has epsilon=1e-50, which is not above 0 in float32",
    ),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_what_is_not_served_says_why(name):
    optimizer, told = UNSERVED[name]
    if not optimizer.built:
        optimizer.build(_variables())
    assert fused.reason(optimizer) == told
    assert fused.update(optimizer) is None


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"),
    reason="this Keras has no MultiOptimizer",
)
def test_several_optimizers_are_not_served():
    several = keras.optimizers.MultiOptimizer(
        [keras.optimizers.SGD(), keras.optimizers.Adam()]
    )
    assert fused.update(several) is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_variables_of_other_types_are_not_served(dtype):
    weight = keras.Variable([1.0], dtype=dtype, name="weight")
    optimizer = keras.optimizers.SGD()
    optimizer.build([weight])
    assert fused.reason(optimizer) == (f"SGD trains 'weight', which is {dtype}")


def test_variables_that_gradients_overwrite_are_not_served():
    weight = keras.Variable([1.0], name="scale")
    weight.overwrite_with_gradient = True
    optimizer = keras.optimizers.SGD()
    optimizer.build([weight])
    assert fused.reason(optimizer) == (
        "SGD trains 'scale', which its gradient overwrites"
    )


def test_methods_replaced_by_others_are_not_served():
    optimizer = _built("adam", _variables())
    optimizer.update_step = print
    assert fused.reason(optimizer) == "Adam has a `update_step` of its own"


@pytest.mark.parametrize(
    "kind, devices",
    [
        (tf.distribute.OneDeviceStrategy, "CPU:0"),
        (tf.distribute.MirroredStrategy, ["CPU:0"]),
    ],
)
def test_variables_of_a_strategy_are_served_on_replicas(kind, devices):
    strategy = kind(devices)
    with strategy.scope():
        weight = keras.Variable([1.0], name="weight")
        optimizer = keras.optimizers.SGD(1.0, weight_decay=0.5)
        optimizer.build([weight])
    apply = tf.function(fused.update(optimizer))
    strategy.run(apply, args=([tf.constant([0.25])],))
    assert weight.numpy().tolist() == [0.25]
    assert int(optimizer.iterations.numpy()) == 1


def test_gradients_by_rows_are_refused_before_anything_changes():
    weight = keras.Variable([[1.0], [2.0]])
    optimizer = keras.optimizers.SGD(weight_decay=0.1)
    optimizer.build([weight])
    rows = tf.IndexedSlices(tf.ones((1, 1)), tf.constant([1]))
    told = "SGD gets gradients by rows (tf.IndexedSlices)"
    assert fused.reason(optimizer) is None
    assert fused.reason(optimizer, [rows]) == told
    with pytest.raises(ValueError, match=r"gets gradients by rows.*apply"):
        fused.update(optimizer)([rows])
    assert weight.numpy().tolist() == [[1.0], [2.0]]
    assert int(optimizer.iterations) == 0


def test_another_number_of_gradients_is_refused():
    apply = fused.update(_built("adam", _variables()))
    with pytest.raises(ValueError, match="Expected 4 gradients.*got 1"):
        apply([tf.zeros((6, 5))])


def test_an_optimizer_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="is not built.*optimizer.build"):
        fused.update(keras.optimizers.Adam())


def test_betas_served_change_no_update_by_more_than_is_said():
    for beta in (0.0, 0.5, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999):
        weights = _variables()
        optimizer = _built("adam", weights, beta_2=beta)
        assert fused.reason(optimizer) is None
        exact = np.longdouble(1) - np.longdouble(beta)
        kernel = np.float32(1) - np.float32(beta)
        assert abs(kernel / exact - 1) / 2 < 1e-5
