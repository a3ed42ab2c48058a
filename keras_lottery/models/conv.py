"""Conv-2, Conv-4 and Conv-6: small variants of VGG, dense for the most part."""

import functools

import keras

from keras_lottery import checks
from keras_lottery.models import layers

# Per network: pattern of weight names -> fraction of what is left that a level
# removes. The first match wins; weights that fit none are not pruned.
PRUNED = {
    "conv2": {"output/*": 0.1, "conv*": 0.1, "fc*": 0.2},
    "conv4": {"output/*": 0.1, "conv*": 0.1, "fc*": 0.2},
    "conv6": {"output/*": 0.1, "conv*": 0.15, "fc*": 0.2},
}


def conv(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    width=1.0,
    normalize=None,
    depth=2,
    hidden=(256, 256),
):
    """Returns Conv-`depth` of Frankle & Carbin, untrained.

    Pairs of 3x3 convolutions `conv1`, `conv2`, ... of 64, 128, 256 channels,
    each pair followed by a 2x2 max pool; dense layers `fc1`, `fc2` and
    `output` with logits. ReLU, initialised Glorot normal.

    Args:
        input_shape: (height, width, channels) of an image.
        classes: Number of classes.
        width: Multiplies the channels and the units of the hidden layers.
        normalize: None, or `(means, stds)` per channel for a first layer that
            normalises raw images.
        depth: Number of convolutions, even.
        hidden: Units of the hidden dense layers.

    Returns:
        A built `keras.Sequential`.

    Raises:
        ValueError: An odd `depth`, images too small for the pools, or what
            `lenet` refuses.

    Example:

    >>> biases = 2 * 64 + 2 * 128 + 2 * 256 + 10
    >>> conv(depth=4).count_params() - biases
    2425024

    Reference: Frankle & Carbin (2019), figure 2.
    """
    pairs, odd = divmod(checks.whole("depth", depth, 2), 2)
    if odd:
        raise ValueError(
            f"`depth` counts convolutions, two per pool, and must be even; "
            f"got {depth}."
        )
    stack = layers.start(input_shape, normalize)
    layers.check_image(input_shape, f"conv{depth}", pools=pairs)
    for pair in range(pairs):
        channels = layers.scaled(64 * 2**pair, width)
        for i in (1, 2):
            stack.append(layers.convolution(channels, f"conv{2 * pair + i}"))
        pool = keras.layers.MaxPooling2D(2, name=f"pool{pair + 1}")
        stack.append(pool)
    stack.append(keras.layers.Flatten(name="flatten"))
    for i, units in enumerate(hidden, start=1):
        stack.append(layers.dense(layers.scaled(units, width), f"fc{i}"))
    stack.append(layers.dense(classes, "output", activation=None))
    return keras.Sequential(stack, name=f"conv{depth}")


conv2 = functools.partial(conv, depth=2)
conv4 = functools.partial(conv, depth=4)
conv6 = functools.partial(conv, depth=6)
