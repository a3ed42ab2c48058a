"""VGG: counts by the sums of the layers' shapes."""

import pytest

from keras_lottery.models.vgg import vgg
from keras_lottery.pruning import weights

# Channels of each convolution, as table 1 of Simonyan & Zisserman lists them.
LISTED = {
    11: [64, 128, 256, 256, 512, 512, 512, 512],
    13: [64, 64, 128, 128, 256, 256, 512, 512, 512, 512],
    16: [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6,
    19: [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8,
}


def counts(model):
    return {
        name: variable.shape.num_elements()
        for name, variable in weights.prunable(model).items()
    }


def test_weights_of_the_paper():
    found = counts(vgg())
    assert found.pop("output/kernel") == 5_120
    assert len(found) == 16
    assert sum(found.values()) == 20_018_880


@pytest.mark.parametrize("depth", LISTED)
@pytest.mark.parametrize("width", [0.125, 0.5])
def test_every_depth(depth, width):
    model = vgg((16, 16, 1), 3, depth=depth, width=width)
    channels = [int(each * width) for each in LISTED[depth]]
    inputs = [1, *channels[:-1]]
    expected = {
        f"conv{i}/kernel": 9 * a * b
        for i, (a, b) in enumerate(zip(inputs, channels), start=1)
    }
    expected["output/kernel"] = channels[-1] * 3
    assert counts(model) == expected
    # Batch normalisation: gamma, beta and two statistics a channel.
    extra = 4 * sum(channels) + 3
    assert model.count_params() == sum(expected.values()) + extra


def test_four_pools_and_an_average():
    model = vgg((32, 32, 3), depth=11, width=0.1)
    assert model.get_layer("average").input.shape[1:3] == (2, 2)
    assert vgg((28, 28, 1), depth=11, width=0.1).built
    with pytest.raises(ValueError, match="vgg11 halves an image 4 times: each"):
        vgg((8, 8, 1), depth=11)


@pytest.mark.parametrize("depth", [12, "19", None])
def test_another_depth_is_refused(depth):
    with pytest.raises(ValueError, match="`depth` must be one of 11, 13, 16"):
        vgg(depth=depth)
