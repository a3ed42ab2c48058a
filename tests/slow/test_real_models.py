"""Real networks, exported and served through the C API: `make test-slow`."""

import importlib
import os
import pathlib

import keras
import numpy as np
import pytest

import keras_lottery as lottery
from keras_lottery.data import sources
from keras_lottery.exporting.verifying import verification
from keras_lottery.models import networks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SERVED = ("compact", "compact-serving")


@pytest.fixture(scope="module")
def benchmark():
    """The script that makes the tables in results/exports, as a module."""
    folder = pathlib.Path(__file__).parents[2] / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("export_ticket")


@pytest.fixture(scope="module")
def fashion():
    """A ticket with 6.4 % of its weights, its network, and 1,000 images."""
    if "TFDS_DATA_DIR" not in os.environ:
        pytest.skip("needs Fashion-MNIST prepared by tfds: set TFDS_DATA_DIR")
    data = sources.load("fashion_mnist")
    keras.utils.set_random_seed(0)
    model = networks.get("lenet")((28, 28, 1), 10)
    pruned = lottery.prune(model, lottery.IterativePruning(0.6, levels=3))
    pruned.compile(
        keras.optimizers.Adam(1.2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    pruned.fit(
        *data.train,
        epochs=1,
        batch_size=60,
        validation_data=data.validation,
        verbose=0,
    )
    ticket = pruned.tickets[-1]
    images, labels = (part[:1000] for part in data.test)
    return ticket, ticket.restore(model, "end"), images, labels


@pytest.mark.parametrize("format", SERVED)
def test_a_ticket_is_served_bit_for_bit(benchmark, fashion, format, tmp_path):
    ticket, model, images, labels = fashion
    size = 28 * 28 * 300 + 300 * 100 + 100 * 10
    assert ticket.mask.kept == size - round(size * (1 - 0.4**3))
    path = lottery.export(
        ticket, tmp_path, format=format, samples=(images, labels)
    )
    assert verification.differences(path)[0] == []
    answers = benchmark.asked(path, format, images)
    expected = benchmark.answers_of_keras(model, images)
    assert answers.tobytes() == expected.tobytes()
    right = np.count_nonzero(answers.argmax(1) == labels)
    assert right == np.count_nonzero(expected.argmax(1) == labels)
    assert right > 800  # trained: guesses are right 100 times


@pytest.fixture(scope="module")
def mobilenet(benchmark, tmp_path_factory):
    """MobileNetV2, its mask, 1,000 answers, and a row for each choice."""
    model, mask = benchmark.mobilenet()
    images = benchmark.noise(1000)
    exports = benchmark.exported(
        model, benchmark.OF_MOBILENET, tmp_path_factory.mktemp("mobilenet")
    )
    expected = benchmark.answers_of_keras(model, images)
    found = {
        choice: benchmark.row(choice, path, expected, images)
        for choice, path in exports.items()
    }
    return model, mask, expected, found


def test_mobilenet_is_pruned_to_the_weight(mobilenet):
    model, mask, _, _ = mobilenet
    kernels = [v.numpy() for v in model.weights if len(v.shape) > 1]
    size = sum(kernel.size for kernel in kernels)
    kept = sum(map(np.count_nonzero, kernels))
    assert (mask.size, mask.kept) == (size, size - round(size * 0.8))
    assert kept == mask.kept


def test_answers_of_mobilenet_are_not_trivial(mobilenet):
    _, _, answers, _ = mobilenet
    assert np.isfinite(answers).all()
    # Each image has its own answer, and they are far apart.
    assert (answers.std(0) > 0.01 * np.abs(answers).max()).mean() > 0.5


def test_mobilenet_is_served_as_keras_answers(benchmark, mobilenet):
    *_, found = mobilenet
    relative = {choice: row["relative"] for choice, row in found.items()}
    assert {row["samples"] for row in found.values()} == {1000}
    assert max(relative.values()) <= 1e-5, relative
    # Unshrunk: the same weights. How operations are fused is TensorFlow's.
    for format in ("dense", *SERVED):
        assert relative[benchmark.Choice(format)] <= 1e-6, relative


def test_mobilenet_gets_smaller(benchmark, mobilenet):
    *_, found = mobilenet
    bytes_of = {choice: row["bytes"] for choice, row in found.items()}
    dense = bytes_of[benchmark.Choice("dense")]
    for format in SERVED:
        row = found[benchmark.Choice(format)]
        assert 3 * row["bytes"] < dense, bytes_of
        assert 6 * row["bytes"] < row["keras_bytes"], bytes_of
    compact = benchmark.Choice("compact")
    assert bytes_of[compact._replace(shrink=True)] < bytes_of[compact]
