"""XLA trains as graph mode does, and compiles once."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.training import enforce
from keras_lottery.training import loop
from keras_lottery.training import programs
from keras_lottery.training import state
from keras_lottery.training.feeds import ArrayFeed
from keras_lottery.training.recipe import Recipe

pytestmark = pytest.mark.thorough

FEATURES, CLASSES, BATCH, STEPS = 6, 3, 10, 40
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(optimizer="adam", loss=LOSS, kind=keras.Sequential):
    keras.utils.set_random_seed(1)
    model = kind(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(8, activation="tanh", name="hidden"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(CLASSES, name="output"),
        ]
    )
    metrics = ["accuracy"] if kind is keras.Sequential else None
    model.compile(optimizer, loss, metrics=metrics)
    model.optimizer.build(model.trainable_variables)
    return model


def feed(rows=53, seed=3, shuffle=True, batch_size=BATCH, **more):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, FEATURES)).astype("f")
    y = rng.integers(0, CLASSES, rows)
    return ArrayFeed((x, y), batch_size, None, shuffle, seed, **more)


def values(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def assert_close(found, expected):
    for one, other in zip(values(found), values(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)


def assert_same_bits(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def run(model, given, mode, first=0, last=STEPS, sizes=None):
    """Trains; `sizes` of calls, over and over. Returns loop and logs."""
    steps = loop.of(model, mode)
    pace = steps._pace
    if sizes:
        steps._pace = lambda count, seconds: None
    while first < last:
        if sizes:
            steps._per_call = sizes[0]
            sizes = [*sizes[1:], sizes[0]]
        first, logs = steps.call(given, first, last)
    steps._pace = pace
    return steps, logs


def compiles(function):
    """How often XLA has compiled a function that calls one it compiles."""
    (inner,) = [
        cell.cell_contents
        for cell in function.python_function.__closure__
        if hasattr(cell.cell_contents, "experimental_get_tracing_count")
    ]
    return inner.experimental_get_tracing_count()


# Adam by fused kernels and RMSprop by Keras are covered here; rows that leave
# a smaller last batch, none, and less than one batch.
@pytest.mark.parametrize(
    ("optimizer", "rows", "shuffle"),
    [
        ("adam", 53, True),
        ("adam", 50, False),
        ("rmsprop", 53, False),
        ("sgd", 7, True),
        ("momentum", 50, True),
    ],
)
def test_xla_gives_the_numbers_of_graph_mode(optimizer, rows, shuffle):
    told = []
    models = []
    for mode in ("graph", "xla"):
        model = network(
            keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)
            if optimizer == "momentum"
            else optimizer
        )
        mask = lottery.find_mask(model, 0.5)
        given = feed(rows, shuffle=shuffle)
        with enforce.masked(model, mask):
            steps, logs = run(model, given, mode)
            assert steps.mode == mode
            held = enforce.attachment(model).mask
            for layer in ("hidden", "output"):
                kernel = model.get_layer(layer).kernel.numpy()
                removed = ~held[f"{layer}/kernel"]
                assert removed.any() and not np.count_nonzero(kernel[removed])
        told.append(logs)
        models.append(model)
    assert_close(*models)
    assert told[0] == pytest.approx(told[1], rel=1e-5)


def noisy(inputs, seed):
    """Whole numbers: XLA draws others where fractions are asked for."""
    drawn = tf.random.stateless_uniform(
        tf.shape(inputs), seed, -9, 9, tf.int32, alg="philox"
    )
    return inputs + tf.cast(drawn, inputs.dtype) / 9


def test_augmented_batches_are_those_of_graph_mode():
    models = [network("sgd"), network("sgd"), network("sgd")]
    run(models[0], feed(augment=noisy), "graph")
    run(models[1], feed(augment=noisy), "xla")
    run(models[2], feed(), "graph")
    assert_close(*models[:2])
    kernels = [m.get_layer("hidden").kernel.numpy() for m in models]
    assert not np.allclose(kernels[0], kernels[2], atol=1e-3)


@pytest.fixture(scope="module")
def compiled():
    """A network that is compiled once, and its first state."""
    model = network()
    loop.of(model, "xla").call(feed(), 0, 1)
    again = network()
    fresh = state.snapshot(again, again.optimizer)
    return model, lambda: state.restore(fresh, model, model.optimizer)


def test_how_steps_are_cut_into_calls_changes_no_bit(compiled):
    model, restart = compiled
    restart()
    model.reset_metrics()
    _, logs = run(model, feed(), "xla", sizes=[STEPS])
    expected = values(model)
    for sizes in ([1], [7], [3, 11]):
        restart()
        model.reset_metrics()
        assert run(model, feed(), "xla", sizes=sizes)[1] == logs
        assert_same_bits(values(model), expected)


@pytest.mark.parametrize("between", [1, 5, 6, 17])
def test_it_goes_on_from_any_step(compiled, between):
    model, restart = compiled
    restart()
    run(model, feed(), "xla", sizes=[STEPS])
    expected = values(model)
    restart()
    run(model, feed(), "xla", last=between)
    run(model, feed(), "xla", first=between)
    model_metrics = values(model)
    assert_same_bits(model_metrics, expected)


def test_one_trace_and_one_compile_serve_seeds_masks_and_levels():
    model = network()
    fresh = state.snapshot(model, model.optimizer)
    with enforce.masked(model, lottery.find_mask(model, 0.5)):
        steps, _ = run(model, feed(seed=1), "xla")
        (function,) = steps._programs.values()
        sizes = []
        for seed, sparsity in ((2, 0.5), (3, 0.8), (4, 0.9)):
            state.restore(fresh, model, model.optimizer)
            enforce.attachment(model).set(lottery.find_mask(model, sparsity))
            given = feed(seed=seed)
            assert (
                run(model, given, "xla", first=seed, sizes=[9, 1])[0] is steps
            )
            sizes.append(np.count_nonzero(model.get_layer("hidden").kernel))
        assert sizes[0] > sizes[1] > sizes[2] > 0
        assert list(steps._programs.values()) == [function]
        assert function.experimental_get_tracing_count() == 1
        assert compiles(function) == 1


def by_python(y_true, y_pred):
    """A loss that XLA cannot compile."""
    one = tf.ensure_shape(tf.py_function(lambda: 1.0, [], tf.float32), [])
    return LOSS(y_true, y_pred) * one


def by_text(y_true, y_pred):
    """Another one."""
    number = tf.strings.to_number(tf.strings.as_string(tf.shape(y_true)[0]))
    return LOSS(y_true, y_pred) + 0.0 * number


@pytest.mark.parametrize("loss", [by_python, by_text])
def test_what_xla_cannot_compile_trains_in_graph_mode(loss, caplog):
    caplog.set_level(logging.INFO, "keras_lottery")
    found, expected = network("adam", loss), network("adam", loss)
    steps, logs = run(found, feed(), "xla")
    assert steps.mode == "graph"
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("XLA cannot compile this training: ")
    assert "\n" not in line
    graph, told = run(expected, feed(), "graph")
    assert int(found.optimizer.iterations) == STEPS
    assert_same_bits(values(found), values(expected))
    assert logs == told
    run(found, feed(seed=4), "xla")  # and it is not tried again
    assert len(caplog.records) == 1


class Own(keras.Sequential):
    """Counts the steps that it trains."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"mine": loss}


def test_a_step_of_ones_own_is_not_trained_once_more_under_xla():
    found, expected = network(kind=Own), network(kind=Own)
    _, logs = run(found, feed(), "xla")
    _, told = run(expected, feed(), "graph")
    assert int(expected.optimizer.iterations) == STEPS
    assert int(found.optimizer.iterations) == STEPS
    assert_close(found, expected)
    assert logs == pytest.approx(told, rel=1e-5)


def test_the_losses_of_several_outputs_are_those_of_graph_mode():
    def two():
        keras.utils.set_random_seed(1)
        x = keras.Input((FEATURES,))
        outputs = [keras.layers.Dense(CLASSES, name=name)(x) for name in "ab"]
        model = keras.Model(x, outputs)
        model.compile("sgd", [LOSS, LOSS])
        model.optimizer.build(model.trainable_variables)
        return model

    x, y = feed().tensors
    given = ArrayFeed((x, (y, y)), BATCH, None, False, 0)
    logs = [run(two(), given, mode)[1] for mode in ("graph", "xla")]
    assert set(logs[0]) == {"loss", "a_loss", "b_loss"}
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


@pytest.mark.parametrize(
    ("batch_size", "most"),
    [(1, 2000), (60, 2000), (131, 2000), (132, 1985), (2**18, 1), (2**20, 1)],
)
def test_capacity(batch_size, most):
    assert programs.capacity(Recipe(10**7, batch_size, True, None)) == most


def test_capacity_bounds_calls(monkeypatch):
    monkeypatch.setattr(programs, "MOST_STEPS", 4)
    model, expected = network("sgd"), network("sgd")
    steps = loop.of(model, "xla")
    steps._per_call = 100
    reached = []
    steps.run(feed(), 0, 10, lambda step, logs: reached.append(step))
    assert reached == [4, 8, 10]
    run(expected, feed(), "graph", last=10)
    assert_close(model, expected)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("rows", "batch_size"), [(23, 5), (20, 5), (3, 5), (5, 5), (1, 4), (7, 1)]
)
def test_row_numbers_of_many_steps(rows, batch_size, shuffle):
    recipe = Recipe(rows, batch_size, shuffle, None)
    seed = tf.constant(2**31 - 5, tf.int64)
    draw = tf.function(recipe.numbers_of_many)
    for first, count in ((0, 12), (3, 9), (0, 0), (1000, 2)):
        found = draw(
            seed, tf.constant(first, tf.int64), tf.constant(count, tf.int64)
        )
        assert found.shape == (count, batch_size)
        assert found.dtype == tf.int64
        assert np.isin(found, range(rows)).all()  # what pads, too
        for index, numbers in enumerate(found.numpy()):
            step = tf.constant(first + index, tf.int64)
            expected = recipe.numbers(seed, step).numpy()
            is_last = (first + index + 1) % recipe.per_pass == 0
            size = recipe.last if is_last else batch_size
            assert len(expected) == size
            np.testing.assert_array_equal(numbers[:size], expected)
