"""Graph mode or XLA: the rows of the table, and what measuring leaves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery
from keras_lottery.training import compiling
from keras_lottery.training import dense_networks
from keras_lottery.training import loop
from keras_lottery.training.feeds import ArrayFeed

pytestmark = pytest.mark.thorough

LONG = compiling.LONG


def dense(**compiled):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dropout(0.4, seed=4),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )
    return ready(model, **compiled)


def ready(model, **compiled):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    arguments = {"loss": loss, "metrics": ["accuracy"], **compiled}
    # True: what Keras makes of "auto" depends on the machine's devices.
    model.compile("adam", **{"jit_compile": True, **arguments})
    model.optimizer.build(model.trainable_variables)
    return model


def of(inputs, *layers, **compiled):
    return ready(keras.Sequential([inputs, *layers]), **compiled)


class Own(keras.Sequential):
    """Has a step of its own."""

    def train_step(self, data):
        return super().train_step(data)


IMAGES = keras.Input((8, 8, 1))
FLAT, OUT = keras.layers.Flatten, keras.layers.Dense
NETWORKS = {
    "dense": dense,
    "normed": lambda: of(
        keras.Input((6,)),
        keras.layers.LayerNormalization(),
        keras.layers.PReLU(),
        OUT(3),
    ),
    "nested": lambda: of(keras.Input((6,)), dense(), OUT(3)),
    "images": lambda: of(IMAGES, FLAT(), OUT(3)),
    "convolutions": lambda: of(
        IMAGES, keras.layers.Conv2D(2, 3), FLAT(), OUT(3)
    ),
    "nested convolutions": lambda: of(
        IMAGES,
        keras.Sequential([IMAGES, keras.layers.Conv2D(2, 3), FLAT()]),
        OUT(3),
    ),
    "depthwise": lambda: of(
        IMAGES, keras.layers.DepthwiseConv2D(3), FLAT(), OUT(3)
    ),
    "embedding": lambda: of(
        keras.Input((4,)), keras.layers.Embedding(9, 2), FLAT(), OUT(3)
    ),
    "recurrent": lambda: of(keras.Input((4, 2)), keras.layers.LSTM(3), OUT(3)),
    "attention": lambda: of(
        keras.Input((4, 2)),
        keras.layers.Bidirectional(keras.layers.GRU(2)),
        OUT(3),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table(name, monkeypatch):
    model = NETWORKS[name]()
    is_dense = name in ("dense", "normed", "nested", "images")
    assert dense_networks.is_dense(model) == is_dense
    for kind in ("CPU", "GPU", "TPU"):
        monkeypatch.setattr(compiling, "device_kind", lambda kind=kind: kind)
        expected = "xla" if is_dense and kind == "CPU" else "graph"
        assert compiling.mode(model, LONG) == expected
        assert compiling.mode(model, LONG - 1) == "graph"


def test_by_default_a_model_follows_the_table(monkeypatch):
    """Keras's "auto" is no refusal, though False on a machine of CPUs."""
    monkeypatch.setattr(compiling, "device_kind", lambda: "CPU")
    assert compiling.mode(dense(jit_compile="auto"), LONG) == "xla"


@pytest.mark.parametrize("units", [600, 1200])
def test_large_networks_run_in_graph_mode_pruned_or_not(units, monkeypatch):
    """Weights: 0.6 and 1.2 million. A mask is no weight."""
    monkeypatch.setattr(compiling, "device_kind", lambda: "CPU")
    plain, inner = (
        of(keras.Input((1000,)), OUT(units), OUT(1)) for _ in range(2)
    )
    pruned = ready(lottery.prune(inner, lottery.OneShot(0.5)))
    expected = "xla" if units == 600 else "graph"
    assert compiling.mode(plain, LONG) == expected
    assert compiling.mode(pruned, LONG) == expected


def test_a_pruned_model_is_as_the_model_in_it():
    schedule = lottery.OneShot(0.5)
    for name, expected in (("dense", "xla"), ("convolutions", "graph")):
        pruned = ready(lottery.prune(NETWORKS[name](), schedule))
        assert dense_networks.is_dense(pruned) == (expected == "xla")
        if compiling.device_kind() == "CPU":
            assert compiling.mode(pruned, LONG) == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: dense(run_eagerly=True, jit_compile=False),
        lambda: ready(Own([keras.Input((6,)), OUT(3)])),
        lambda: ready(
            lottery.prune(
                Own([keras.Input((6,)), OUT(3)]), lottery.OneShot(0.5)
            )
        ),
    ],
    ids=["eager", "own step", "own step, pruned"],
)
def test_what_is_never_compiled_by_xla(make, monkeypatch):
    monkeypatch.setattr(compiling, "TABLE", {("CPU", True): "xla"})
    monkeypatch.setattr(compiling, "device_kind", lambda: "CPU")
    assert compiling.mode(make(), 10**6) == "graph"


def test_a_strategy_runs_in_graph_mode():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    outside = dense()
    with strategy.scope():
        inside = dense()
        assert compiling.mode(outside, LONG) == "graph"
        assert compiling.mode(inside, LONG) == "graph"
    assert compiling.mode(inside, LONG) == "graph"


def feed():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(53, 6)).astype("f")
    return ArrayFeed((x, rng.integers(0, 3, 53)), 10, None, True, 3)


def everything(model):
    """Weights, slots, seeds, learning rates; not the states of metrics."""
    counted = {id(v) for metric in model.metrics for v in metric.variables}
    held = [*model.variables, *model.optimizer.variables]
    return {v.path: v.numpy() for v in held if id(v) not in counted}


class Clock:
    """Time that passes in calls of the slow mode only."""

    def __init__(self, monkeypatch, slow):
        self.now, self.counts = 0.0, {"graph": 0, "xla": 0}
        real = loop.StepLoop.call

        def call(steps, given, first, last):
            reached, logs = real(steps, given, first, last)
            self.counts[steps.mode] += 1
            self.now += (reached - first) * (1.0 if steps.mode == slow else 0.1)
            return reached, logs

        monkeypatch.setattr(loop.StepLoop, "call", call)
        monkeypatch.setattr(compiling.time, "perf_counter", lambda: self.now)


@pytest.mark.parametrize(
    ("slow", "expected"), [("graph", "xla"), ("xla", "graph")]
)
def test_measuring_chooses_the_faster_and_leaves_no_trace(
    slow, expected, monkeypatch
):
    model = dense()
    loop.StepLoop(model).run(feed(), 0, 7)  # slots that are not zero
    before = everything(model)
    assert any("seed_generator" in path for path in before)
    clock = Clock(monkeypatch, slow)
    assert compiling.measured(model, feed(), rounds=3) == expected
    assert min(clock.counts.values()) >= 4  # warmed up, and 3 turns
    after = everything(model)
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value, err_msg=path)
    monkeypatch.undo()
    # What comes after is what would have come without.
    other = dense()
    loop.StepLoop(other).run(feed(), 0, 7)
    for each in (model, other):
        loop.StepLoop(each).run(feed(), 7, 20)
    for one, expected in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one, expected)


def test_measuring_a_fresh_model_leaves_it_fresh():
    model = dense()
    before = everything(model)
    assert compiling.measured(model, feed(), rounds=1) in compiling.MODES
    after = everything(model)
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value, err_msg=path)


def test_what_xla_cannot_compile_is_measured_as_graph_mode():
    def by_text(y_true, y_pred):
        text = tf.strings.as_string(tf.shape(y_true)[0])
        return tf.reduce_mean(y_pred**2) + 0.0 * tf.strings.to_number(text)

    model = dense(loss=by_text)
    assert compiling.measured(model, feed(), rounds=1) == "graph"


def test_a_mode_that_is_asked_for_comes_before_the_table():
    pruned = lottery.prune(dense(), lottery.OneShot(0.5))
    pruned.compile("adam", "mse")
    for asked in compiling.MODES:
        pruned.step_mode = asked
        assert compiling.mode(pruned, 1) == asked
        assert compiling.mode(pruned, LONG) == asked
    pruned.step_mode = "jit"
    with pytest.raises(ValueError, match="step_mode='jit'.*'graph', 'xla'"):
        compiling.mode(pruned, LONG)
