"""VGG networks for CIFAR: convolutions, one average pool, one dense layer."""

import functools

import keras

from keras_lottery.models import layers

# Of what is left, a level removes 20 % of the convolutions; the output layer
# does not fit the pattern and is not pruned.
PRUNED = {"vgg11": {"conv*": 0.2}, "vgg19": {"conv*": 0.2}}

CHANNELS = (64, 128, 256, 512, 512)
# Per depth, convolutions of each stage. The name counts three dense layers,
# as in the original; here there is one.
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def vgg(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    width=1.0,
    normalize=None,
    depth=19,
):
    """Returns a VGG network with batch normalisation, untrained.

    3x3 convolutions `conv1`, `conv2`, ... in stages of 64, 128, 256, 512 and
    512 channels with 2x2 max pools between the stages, global average pool,
    `output` with logits. Batch normalisation after every convolution, ReLU,
    initialised Glorot normal.

    Args:
        input_shape: (height, width, channels) of an image.
        classes: Number of classes.
        width: Multiplies the channels.
        normalize: None, or `(means, stds)` per channel for a first layer that
            normalises raw images.
        depth: 11, 13, 16 or 19.

    Returns:
        A built `keras.Sequential`.

    Raises:
        ValueError: Another `depth`, images below 16x16, or what `lenet`
            refuses.

    Example:

    >>> model = vgg(depth=11, width=0.25)
    >>> model.get_layer("conv8").filters
    128

    Reference: Simonyan & Zisserman (2015), table 1; Frankle & Carbin (2019),
    figure 2.
    """
    if depth not in CONVOLUTIONS:
        known = ", ".join(map(str, CONVOLUTIONS))
        raise ValueError(f"`depth` must be one of {known}; got {depth!r}.")
    stages = CONVOLUTIONS[depth]
    stack = layers.start(input_shape, normalize)
    layers.check_image(input_shape, f"vgg{depth}", pools=len(stages) - 1)
    number = 0
    for stage, count in enumerate(stages):
        if stage:
            pool = keras.layers.MaxPooling2D(2, name=f"pool{stage}")
            stack.append(pool)
        channels = layers.scaled(CHANNELS[stage], width)
        for _ in range(count):
            number += 1
            stack += _convolved(channels, number)
    stack.append(keras.layers.GlobalAveragePooling2D(name="average"))
    stack.append(layers.dense(classes, "output", activation=None))
    return keras.Sequential(stack, name=f"vgg{depth}")


def _convolved(channels, number):
    return [
        layers.convolution(channels, f"conv{number}", followed_by_norm=True),
        layers.norm(f"norm{number}"),
        keras.layers.ReLU(name=f"relu{number}"),
    ]


vgg11 = functools.partial(vgg, depth=11)
vgg19 = functools.partial(vgg, depth=19)
