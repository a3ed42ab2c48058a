"""Residual networks for CIFAR: 6n + 2 layers in three stages."""

import functools

import keras

from keras_lottery import checks
from keras_lottery.models import layers

# Of what is left, a level removes 20 % of the 3x3 convolutions; neither the
# 1x1 convolutions of the shortcuts nor the output layer fit the pattern.
PRUNED = {f"resnet{n}": {"*conv*": 0.2} for n in (14, 20, 32, 44, 56)}


def resnet(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    width=1.0,
    normalize=None,
    depth=20,
):
    """Returns a residual network of `depth` layers, untrained.

    A 3x3 convolution `conv1`, then stages of 16, 32 and 64 channels with n
    blocks each. A block is two 3x3 convolutions (`stage2_block1_conv1`) and a
    shortcut: the identity, or, where the shape changes, a 1x1 convolution
    (`stage2_block1_shortcut`). Batch normalisation after every convolution,
    ReLU, global average pool, `output` with logits. Initialised Glorot normal.

    Depth 20 is what Frankle & Carbin call ResNet-18.

    Args:
        input_shape: (height, width, channels) of an image.
        classes: Number of classes.
        width: Multiplies the channels.
        normalize: None, or `(means, stds)` per channel for a first layer that
            normalises raw images.
        depth: Number of layers, 6n + 2.

    Returns:
        A built `keras.Model`.

    Raises:
        ValueError: A `depth` that is not 6n + 2, or what `lenet` refuses.

    Example:

    >>> resnet(depth=14, width=0.5).get_layer("stage3_block2_conv2").filters
    32

    Reference: He et al. (2016), section 4.2; Frankle & Carbin (2019), figure 2.
    """
    blocks, rest = divmod(checks.whole("depth", depth, 8) - 2, 6)
    if rest:
        raise ValueError(
            f"A residual network has 6n + 2 layers: 14, 20, 32, 44, 56, ...; "
            f"got depth={depth}."
        )
    image, *normalization = layers.start(input_shape, normalize)
    layers.check_image(input_shape, f"resnet{depth}")
    x = image
    for layer in normalization:
        x = layer(x)
    x = _convolved(x, layers.scaled(16, width), "", "1")
    x = keras.layers.ReLU(name="relu1")(x)
    for stage in (1, 2, 3):
        channels = layers.scaled(16 * 2 ** (stage - 1), width)
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _block(x, channels, strides, f"stage{stage}_block{block}_")
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    outputs = layers.dense(classes, "output", activation=None)(x)
    return keras.Model(image, outputs, name=f"resnet{depth}")


def _block(x, channels, strides, prefix):
    inside = _convolved(x, channels, prefix, "1", strides)
    inside = keras.layers.ReLU(name=f"{prefix}relu1")(inside)
    inside = _convolved(inside, channels, prefix, "2")
    if strides > 1 or x.shape[-1] != channels:
        shortcut = layers.convolution(
            channels,
            f"{prefix}shortcut",
            size=1,
            strides=strides,
            followed_by_norm=True,
        )
        x = layers.norm(f"{prefix}shortcut_norm")(shortcut(x))
    x = keras.layers.Add(name=f"{prefix}add")([inside, x])
    return keras.layers.ReLU(name=f"{prefix}relu2")(x)


def _convolved(x, channels, prefix, number, strides=1):
    convolution = layers.convolution(
        channels,
        f"{prefix}conv{number}",
        strides=strides,
        followed_by_norm=True,
    )
    return layers.norm(f"{prefix}norm{number}")(convolution(x))


resnet14 = functools.partial(resnet, depth=14)
resnet20 = functools.partial(resnet, depth=20)
resnet32 = functools.partial(resnet, depth=32)
resnet44 = functools.partial(resnet, depth=44)
resnet56 = functools.partial(resnet, depth=56)
