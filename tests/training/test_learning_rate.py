"""The schedule against a plain loop over all steps of the papers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.training.learning_rate import WarmupAndDrops

# FACTS 1.3: rate, warmup, drops, steps. A VGG epoch has 703 steps.
PROTOCOLS = {
    "ResNet-18 warmup": (0.03, 20_000, (20_000, 25_000), 30_000),
    "ResNet-18": (0.01, 0, (20_000, 25_000), 30_000),
    "VGG-19 warmup": (0.1, 10_000, (80 * 703, 120 * 703), 160 * 703),
    "VGG-19": (0.1, 0, (80 * 703, 120 * 703), 160 * 703),
}


def plain_loop(rate, warmup, drops, steps, factor=0.1):
    found = []
    for step in range(steps):
        if step in drops:
            rate = rate * factor
        found.append(rate * step / warmup if step < warmup else rate)
    return np.array(found)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_step_of_the_papers(protocol):
    rate, warmup, drops, steps = PROTOCOLS[protocol]
    found = WarmupAndDrops(rate, warmup, drops)(np.arange(steps))
    expected = plain_loop(rate, warmup, drops, steps)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=0)
    assert (float(found[0]) == 0) == bool(warmup)


def test_where_the_pieces_meet():
    rate = WarmupAndDrops(0.5, warmup=4, drops=[4, 6], factor=0.5)
    found = [float(rate(step)) for step in range(8)]
    assert found == [0, 0.125, 0.25, 0.375, 0.25, 0.25, 0.125, 0.125]


def test_a_drop_within_the_warmup():
    rate = WarmupAndDrops(0.5, warmup=8, drops=[4], factor=0.5)
    assert [float(rate(step)) for step in (3, 4, 8, 9)] == [
        0.5 * 3 / 8,
        0.25 * 4 / 8,
        0.25,
        0.25,
    ]


def test_without_warmup_and_drops_it_is_constant():
    rate = WarmupAndDrops(0.5)
    assert [float(rate(step)) for step in (0, 1, 10**9)] == [0.5] * 3


@pytest.mark.parametrize("jit", [False, True])
def test_in_a_graph(jit):
    rate = WarmupAndDrops(0.03, 20, (20, 25))
    graph = tf.function(rate, jit_compile=jit)
    expected = plain_loop(0.03, 20, (20, 25), 30)
    found = [float(graph(tf.constant(step, tf.int64))) for step in range(30)]
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=0)


def test_steps_are_whole_numbers():
    # In float32 the step before the drop would be the drop.
    rate = WarmupAndDrops(1.0, drops=[2**24 + 1])
    assert float(rate(2**24)) == 1
    assert float(rate(2**24 + 1)) == pytest.approx(0.1)


@pytest.mark.parametrize("jit", [False, True])
def test_fit_follows_it(jit):
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(
                1, use_bias=False, kernel_initializer="zeros", name="only"
            ),
        ]
    )
    # Inputs are 1 and the loss is the output: the gradient is 1.
    model.compile(
        keras.optimizers.SGD(WarmupAndDrops(0.5, 5, (8, 10))),
        lambda label, output: output,
        jit_compile=jit,
    )
    moved = []
    for _ in range(12):
        before = model.get_layer("only").kernel.numpy()[0, 0]
        model.fit(np.ones((2, 1)), np.ones((2, 1)), batch_size=2, verbose=0)
        moved.append(before - model.get_layer("only").kernel.numpy()[0, 0])
    expected = plain_loop(0.5, 5, (8, 10), 12)
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_it_round_trips_inside_an_optimizer():
    rate = WarmupAndDrops(0.03, 20, [20, 25], 0.5)
    assert WarmupAndDrops(**rate.get_config()).get_config() == {
        "rate": 0.03,
        "warmup": 20,
        "drops": [20, 25],
        "factor": 0.5,
    }
    config = keras.saving.serialize_keras_object(
        keras.optimizers.SGD(rate, momentum=0.9)
    )
    again = keras.saving.deserialize_keras_object(config)
    assert type(again._learning_rate) is WarmupAndDrops
    assert again._learning_rate.get_config() == rate.get_config()


@pytest.mark.parametrize(
    "bad", [0, -0.1, float("nan"), float("inf"), "1", True]
)
def test_a_rate_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match="`rate` must be above 0"):
        WarmupAndDrops(bad)


@pytest.mark.parametrize("bad", [0, 1, 10, -0.1, None])
def test_a_factor_out_of_range_is_refused(bad):
    with pytest.raises(
        ValueError, match="`factor` must be above 0 and below 1"
    ):
        WarmupAndDrops(0.1, factor=bad)


@pytest.mark.parametrize("bad", [-1, 1.5, None])
def test_a_warmup_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match="`warmup` must be an int >= 0"):
        WarmupAndDrops(0.1, bad)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ([5, 5], "must increase; got"),
        ([6, 5], "must increase; got"),
        ([0, 5], "must be an int >= 1, got 0"),
        ([1.5], "must be an int >= 1, got 1.5"),
        (5, "must be a list of steps"),
    ],
)
def test_drops_that_cannot_be_are_refused(bad, told):
    with pytest.raises(ValueError, match=f"`drops` {told}"):
        WarmupAndDrops(0.1, drops=bad)
