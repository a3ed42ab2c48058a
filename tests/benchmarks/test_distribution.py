"""Bytes that are sent, by hand; contenders that do what they are for."""

import importlib
import inspect
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lottery as lottery

pytestmark = pytest.mark.thorough

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
LENET = 784 * 300 + 300 * 100 + 100 * 10
SMALL = 6 * 5 + 5 * 3
BIASES = {"lenet": 300 + 100 + 10, "small": 5 + 3}


@pytest.fixture(scope="module")
def module():
    """Returns the function that imports a benchmark's module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module


@pytest.fixture(scope="module")
def counted(module):
    """Returns what two workers have counted."""
    names = ("lenet", "normalised, uneven tf.data")
    return module("distribution_bytes").counted(names)


def test_masks_add_no_byte_to_a_step(counted):
    case, size = counted["lenet"], 4 * (LENET + BIASES["lenet"])
    assert case["kept"] == [LENET, LENET // 5]
    assert case["traces"] == 1  # both levels are trained by it
    assert case["step"] == {
        "plain Keras": [size], "unmasked": [size], "masked": [size]
    }  # fmt: skip


def test_normalisation_adds_its_weights_and_uneven_batches_their_rows(counted):
    gamma_and_beta = 2 * 5
    gradients = 4 * (SMALL + BIASES["small"] + gamma_and_beta)
    # TensorFlow itself sends 8 to tell whether all workers have a batch.
    assert counted["normalised, uneven tf.data"]["step"] == {
        "plain Keras": [gradients + 8],
        "unmasked": [gradients + 8 + 4],
        "masked": [gradients + 8 + 4],
    }


def test_the_end_of_a_call_sends_metrics_and_its_seconds(counted):
    for case in counted.values():
        # Sum and count of the loss and of the accuracy.
        assert case["call"] == [4 * 2 * 2, 4]


def test_the_end_of_a_level_sends_checksums_and_masks(counted):
    weights, masks, optimizer = 6, 3, 2 * 6 + 2
    checksums = 8 * (weights + masks + optimizer)
    shape_of_them, packed = 4 * 3, 4 * LENET // 8
    assert counted["lenet"]["level"] == [
        ["gathered", checksums + shape_of_them],
        ["_of_first", packed],
    ]


def test_bytes_of_a_function_by_hand(module):
    def reduce(size, dtype=tf.float32):
        return tf.raw_ops.CollectiveReduceV2(
            input=tf.zeros(size, dtype),
            group_size=2,
            group_key=1,
            instance_key=1,
            ordering_token=[],
            merge_op="Add",
            final_op="Id",
        )

    @tf.function(autograph=False)
    def steps(count):
        def body(index):
            tf.cond(
                index > 1,
                lambda: tf.reduce_sum(reduce((2, 3))),
                lambda: tf.reduce_sum(reduce((2, 4))),
            )
            reduce(5, tf.float64)
            return [index + 1]

        tf.while_loop(lambda index: index < count, body, [0])
        return reduce(7, tf.float16)

    found = module("distribution_graphs").sent(
        steps.get_concrete_function(tf.constant(3))
    )
    assert found == (7 * 2, 2 * 4 * 4 + 5 * 8)


@pytest.mark.parametrize("streamed", [False, True])
def test_ours_trains_a_masked_network_round_by_round(
    module, monkeypatch, streamed
):
    fit, made, steps = module("distribution_fit"), [], 3
    monkeypatch.setitem(fit.STEPS, "lenet", steps)
    prune = lottery.prune
    monkeypatch.setattr(
        lottery, "prune", lambda *a, **k: made.append(prune(*a, **k)) or made[0]
    )
    train = fit.ours("lenet", 0, streamed)
    before = int(made[0].optimizer.iterations)
    train()
    train()
    assert int(made[0].optimizer.iterations) - before == 2 * steps
    assert made[0].level == 1
    kept = sum(
        np.count_nonzero(each) for each in made[0].inner.get_weights()[::2]
    )
    assert kept <= made[0].mask.kept == LENET // 5


def test_keras_trains_as_many_steps(module, monkeypatch):
    fit, made = module("distribution_fit"), []
    monkeypatch.setitem(fit.STEPS, "lenet", 4)
    compiled = keras.Model.compile

    def compile_noting(self, *arguments, **settings):
        made.append(self)
        compiled(self, *arguments, **settings)

    monkeypatch.setattr(keras.Model, "compile", compile_noting)
    train = fit.keras_fit("lenet", 0, True, steps_per_call=2)
    before = int(made[0].optimizer.iterations)
    train()
    assert int(made[0].optimizer.iterations) - before == 4
    assert made[0].steps_per_execution == 2


@pytest.mark.parametrize("devices", [0, 1, 2])
def test_every_contender_is_there_and_ours_is_judged(module, devices):
    distribution = module("distribution")
    named = distribution.contenders("conv2", devices)
    for what, arguments in named.values():
        script, function = what.split(":")
        given = inspect.signature(getattr(module(script), function))
        given.bind(**arguments)
    wall = {name: [1.0 + name.startswith("ours")] * 6 for name in named}
    found = distribution.judged("conv2", devices, wall)
    assert [(bar.measured, bar.verdict) for bar in found] == [
        (2.0, "MISSED")
    ] * 4
    fewer = dict(wall)
    fewer.pop("Keras `fit`, 50 steps a call, arrays")
    assert len(distribution.judged("conv2", devices, fewer)) == 3


def test_the_page_has_what_was_measured(module):
    distribution = module("distribution")
    page = FOLDER.parent / "docs" / "speed.md"
    if not (page.exists() and distribution.SECTION.exists()):
        pytest.skip("needs a checkout: pages and sections are not installed")
    text = page.read_text(encoding="utf-8")
    told = text.split("## Several devices")[1].split("\n## ")[0]
    rows = [line for line in told.splitlines() if line.startswith("|")]
    tables = distribution.page(distribution.SECTION.read_text())
    assert rows == "\n".join(tables).splitlines()
    # Each of the two networks has six rows, beside the head and its line.
    assert len(tables[0].splitlines()) == 2 + 2 * 6
