"""Residual networks: counts by the formula of their depth, and structure."""

import keras
import numpy as np
import pytest

from keras_lottery.models import networks
from keras_lottery.models.resnet import resnet
from keras_lottery.pruning import weights


def counts(model):
    """Weights of (3x3 convolutions, shortcuts, output)."""
    sums = {"conv": 0, "shortcut": 0, "output": 0}
    for name, variable in weights.prunable(model).items():
        family = next(key for key in sums if key in name)
        sums[family] += variable.shape.num_elements()
    return tuple(sums.values())


def by_formula(blocks, a=16, b=32, c=64, inputs=3, classes=10):
    convs = 9 * (inputs * a + a * b + b * c)
    convs += 9 * (2 * blocks * a * a + (2 * blocks - 1) * (b * b + c * c))
    return convs, a * b + b * c, c * classes


def test_weights_of_the_paper():
    assert counts(resnet()) == (267_696, 2_560, 640)


@pytest.mark.parametrize("blocks", [2, 3, 5, 7, 9])
def test_every_depth(blocks):
    name = f"resnet{6 * blocks + 2}"
    model = networks.get(name)()
    assert model.name == name
    assert counts(model) == by_formula(blocks)
    # What the name counts: all layers with weights but the shortcuts.
    layers = [each for each in weights.prunable(model) if "cut" not in each]
    assert len(layers) == 6 * blocks + 2


@pytest.mark.parametrize(
    ("width", "channels"),
    [(0.5, (8, 16, 32)), (2.0, (32, 64, 128)), (0.01, (1, 1, 1))],
)
def test_width(width, channels):
    model = resnet((8, 8, 1), 4, depth=14, width=width)
    assert counts(model) == by_formula(2, *channels, inputs=1, classes=4)


@pytest.mark.parametrize("side", [32, 28, 8, 1])
def test_stages_halve_the_image(side):
    model = resnet((side, side, 1), depth=14, width=0.25)
    sides = [
        model.get_layer(f"stage{stage}_block2_add").output.shape[1]
        for stage in (1, 2, 3)
    ]
    assert sides == [side, -(-side // 2), -(-side // 4)]


def test_shortcuts_are_there_only_where_the_shape_changes():
    names = [name for name in weights.prunable(resnet()) if "short" in name]
    assert names == [
        "stage2_block1_shortcut/kernel",
        "stage3_block1_shortcut/kernel",
    ]


def test_a_block_without_convolutions_passes_its_input_on():
    model = resnet((8, 8, 1), depth=14)
    for name in ("stage1_block2_conv1", "stage1_block2_conv2"):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.zeros(kernel.shape))
    ends = [
        model.get_layer(f"stage1_block{block}_relu2").output for block in (1, 2)
    ]
    images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    before, after = keras.Model(model.input, ends)(images)
    assert np.array(before).max() > 0
    assert (np.array(before) == np.array(after)).all()


@pytest.mark.parametrize("depth", [18, 15, 2, "20", None])
def test_another_depth_is_refused(depth):
    with pytest.raises(ValueError, match="`depth` must be|has 6n . 2 layers"):
        resnet(depth=depth)


def test_flat_inputs_are_refused():
    with pytest.raises(ValueError, match="resnet20 takes images"):
        resnet((64,))
