"""What all networks share: first layers, widths, errors, serialisation."""

import keras
import numpy as np
import pytest

from keras_lottery.models import layers
from keras_lottery.models import networks
from keras_lottery.pruning import weights


@pytest.fixture(params=["lenet", "conv4", "resnet14", "vgg11"])
def name(request):
    """One of each family; depths are counted in the family's own file."""
    return request.param


def small(name, **arguments):
    return networks.get(name)((16, 16, 2), 7, width=0.1, **arguments)


def test_logits_of_a_built_model_that_is_not_compiled(name):
    model = small(name)
    assert model.built and not model.compiled
    assert model.output_shape == (None, 7)
    assert model.layers[-1].name == "output"
    assert model.layers[-1].activation is keras.activations.linear


def test_no_layer_has_a_number_that_keras_gave_it(name):
    names = {layer.name for layer in small(name).layers}
    assert names == {layer.name for layer in small(name).layers}
    assert not [each for each in names if "/" in each]


def test_kernels_are_glorot_normal_and_norms_have_the_bias(name):
    model = small(name)
    kernels = weights.prunable(model)
    normed = any("norm" in layer.name for layer in model.layers)
    for layer in model.layers:
        if f"{layer.name}/kernel" in kernels:
            found = layer.kernel_initializer
            assert isinstance(found, keras.initializers.GlorotNormal)
            conv = isinstance(layer, keras.layers.Conv2D)
            assert layer.use_bias == (not (conv and normed))


def test_hidden_layers_are_relu(name):
    model = small(name)
    relus = sum(isinstance(each, keras.layers.ReLU) for each in model.layers)
    relus += sum(
        getattr(each, "activation", None) is keras.activations.relu
        for each in model.layers
    )
    # A shortcut joins before an activation that is counted already.
    bare = sum("shortcut" in each for each in weights.prunable(model))
    assert relus == len(weights.prunable(model)) - 1 - bare


def test_normalisation_computes_x_minus_mean_over_std(name):
    images = np.random.default_rng(0).random((3, 16, 16, 2), np.float32)
    means, stds = np.float32([0.5, 0.25]), np.float32([0.25, 2.0])
    model = small(name, normalize=(means, stds))
    first = model.layers[0]
    if isinstance(first, keras.layers.InputLayer):
        first = model.layers[1]
    assert first.name == "normalize"
    np.testing.assert_allclose(
        first(images), (images - means) / stds, rtol=1e-5, atol=1e-6
    )
    plain = small(name)
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(
        model(images), plain((images - means) / stds), rtol=1e-3, atol=1e-5
    )
    assert weights.prunable(plain).keys() == weights.prunable(model).keys()


def test_a_model_serialises_with_its_normalisation(name):
    images = np.random.default_rng(0).random((3, 16, 16, 2), np.float32)
    model = small(name, normalize=([0.5, 0.25], (0.25, 2)))
    config = keras.saving.serialize_keras_object(model)
    again = keras.saving.deserialize_keras_object(config)
    again.set_weights(model.get_weights())
    assert (np.array(model(images)) == np.array(again(images))).all()
    assert [each.name for each in again.layers] == [
        each.name for each in model.layers
    ]


@pytest.mark.parametrize(
    "normalize",
    [
        0.5,
        ([0.5], [1.0]),
        ([0.5, 0.5], [1.0]),
        ([0.5, 0.5], [1.0, 0.0]),
        ([0.5, float("nan")], [1.0, 1.0]),
        ([0.5, 0.5], [1.0, 1.0], [1.0, 1.0]),
        "ab",
    ],
)
def test_statistics_that_do_not_fit_are_refused(normalize):
    with pytest.raises(ValueError, match=r"with 2 numbers each, one per chan"):
        layers.start((8, 8, 2), normalize)


@pytest.mark.parametrize("shape", [28, (), (0, 8, 1), (None, 8, 1), "28", None])
def test_a_shape_that_is_none_is_refused(name, shape):
    with pytest.raises(ValueError, match=r"`input_shape` must be a tuple of"):
        networks.get(name)(shape)


@pytest.mark.parametrize("width", [0, -1.0, float("inf"), "1", None, True])
def test_a_width_out_of_range_is_refused(name, width):
    with pytest.raises(ValueError, match="`width` multiplies"):
        networks.get(name)((16, 16, 1), width=width)


@pytest.mark.parametrize("classes", [0, 2.5, (300, 100), None])
def test_a_number_of_classes_out_of_range_is_refused(name, classes):
    with pytest.raises(ValueError, match="units of output` must be an int >="):
        networks.get(name)((16, 16, 1), classes, width=0.05)


def test_a_width_scales_rounds_and_leaves_at_least_one():
    found = [layers.scaled(64, w) for w in (1, 0.5, 0.02, 1e-9, 1.25, 0.49)]
    assert found == [64, 32, 1, 1, 80, 31]


def test_an_image_too_small_for_the_pools():
    assert layers.check_image((8, 9, 1), "conv6", pools=3) is None
    with pytest.raises(ValueError, match="conv6 .* 3 times: .* 8 .* got 9x7"):
        layers.check_image((9, 7, 1), "conv6", pools=3)
    with pytest.raises(ValueError, match=r"conv6 takes images .*\(64,\)"):
        layers.check_image((64,), "conv6", pools=3)
