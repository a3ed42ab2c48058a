"""Contenders train the same networks, and do all of the work they are for."""

import importlib
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from keras_lottery.models import networks
from keras_lottery.pruning import weights

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
NAMES = ("lenet", "conv2", "resnet20")


@pytest.fixture
def module(monkeypatch):
    """Returns the function that imports a benchmark's module."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="the extra `bench` has it")


def _sizes(network, shape):
    model = networks.get(network)(shape, 10)
    return sorted(
        int(np.prod(each.shape)) for each in weights.prunable(model).values()
    )


@pytest.mark.parametrize("network", NAMES)
def test_pytorch_trains_the_same_network(module, torch, network):
    shape = module("step_tasks").TASKS[network].shape
    model = module("step_torch_networks").NETWORKS[network](shape)
    found = [each.numel() for each in model.parameters() if each.ndim > 1]
    assert sorted(found) == _sizes(network, shape)
    height, width, channels = shape
    assert model(torch.zeros(2, channels, height, width)).shape == (2, 10)


@pytest.mark.parametrize("network", NAMES)
def test_tfmot_trains_the_same_network(module, network):
    shape = module("step_tasks").TASKS[network].shape
    model = module("step_tfmot").NETWORKS[network](shape)
    found = [
        int(np.prod(each.shape))
        for each in model.trainable_weights
        if len(each.shape) > 1
    ]
    assert sorted(found) == _sizes(network, shape)
    assert model(np.zeros((2, *shape), np.float32)).shape == (2, 10)


def test_masks_of_pytorch_keep_a_fifth(module, torch):
    found = module("step_torch_networks")
    for mask in found.masks(found.lenet((28, 28, 1))).values():
        assert int(mask.sum()) == mask.numel() - round(0.8 * mask.numel())


def test_gradients_by_hand_are_those_of_autograd(module, torch):
    contenders = module("step_torch")
    model = module("step_torch_networks").lenet((28, 28, 1))
    images, labels = torch.rand(7, 784), torch.arange(7)
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    values = [each.detach() for each in model.parameters()]
    found = [torch.full_like(each, 9.0) for each in values]
    contenders._backward(values, images, labels, found)
    for ours, parameter in zip(found, model.parameters(), strict=True):
        np.testing.assert_allclose(ours, parameter.grad, rtol=1e-4, atol=1e-7)


def test_bare_products_are_the_gradients_of_a_linear_network(module):
    bare = module("step_bare")
    generator = np.random.default_rng(0)
    images = tf.constant(generator.normal(size=(5, 8)), tf.float32)
    kernels = [
        tf.constant(generator.normal(size=shape), tf.float32)
        for shape in ((8, 6), (6, 4), (4, 3))
    ]
    with tf.GradientTape() as tape:
        tape.watch(kernels)
        outputs = images
        for kernel in kernels:
            outputs = outputs @ kernel
        loss = tf.reduce_sum(outputs**2) / 2
    expected = tape.gradient(loss, kernels)
    found = bare._gradients(images, kernels)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize("network", NAMES)
def test_bare_sums_have_the_shapes_of_the_network(module, network):
    bare = module("step_bare")
    shape = module("step_tasks").TASKS[network].shape
    model = networks.get(network)(shape, 10)
    layers = [each for each in model.layers if hasattr(each, "kernel")]
    for number, layer in enumerate(layers):
        sums = bare.Layer(layer, batch=2, is_first=number == 0)
        assert sums.forward().shape == (2, *layer.output.shape[1:])
        kernel, *given = (each.shape for each in sums.backward())
        assert kernel == layer.kernel.shape
        inputs = (2, *layer.input.shape[1:])
        assert given == ([inputs] if number else [])
