"""What the networks have in common: their first layers, widths and weights."""

import math
import numbers

import keras

from keras_lottery import checks


def start(input_shape, normalize=None):
    """Returns what a network begins with: its input, and its normalisation.

    Args:
        input_shape: Shape of an image, channels last.
        normalize: None, or `(means, stds)`, one number per channel each.

    Returns:
        List of `keras.Input` and, with `normalize`, of a `Rescaling` that
        computes `(x - mean) / std`: what is exported takes raw images.

    Raises:
        ValueError: Not a shape, or not one mean and std > 0 per channel.

    Example:

    >>> start((8, 8, 1), normalize=([0.5], [0.25]))[1].scale
    [4.0]
    """
    whole = isinstance(input_shape, (tuple, list)) and input_shape
    if not whole or not all(map(_is_size, input_shape)):
        raise ValueError(
            "`input_shape` must be a tuple of sizes, such as (28, 28, 1); got "
            f"{input_shape!r}."
        )
    image = keras.Input(tuple(input_shape), name="image")
    if normalize is None:
        return [image]
    means, stds = _moments(normalize, input_shape[-1])
    return [
        image,
        keras.layers.Rescaling(
            scale=[1 / std for std in stds],
            offset=[-mean / std for mean, std in zip(means, stds)],
            name="normalize",
        ),
    ]


def check_image(input_shape, name, pools=0):
    """Raises unless a network can take images of a shape.

    Args:
        input_shape: Shape of an image.
        name: Name of the network, for the error.
        pools: How many 2x2 poolings the network has.

    Raises:
        ValueError: Not (height, width, channels), or a pooling would leave
            nothing.

    Example:

    >>> check_image((8, 8, 1), "conv6", pools=3)
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"{name} takes images (height, width, channels), such as "
            f"(32, 32, 3); got input_shape={tuple(input_shape)}."
        )
    height, width, _ = input_shape
    least = 2**pools
    if min(height, width) < least:
        raise ValueError(
            f"{name} halves an image {pools} times: each side needs {least} "
            f"pixels or more, got {height}x{width}. Enlarge the images, or "
            "take a network with fewer poolings."
        )


def scaled(units, width):
    """Returns `width` times `units`, rounded, and at least 1.

    Raises:
        ValueError: `width` is not a finite number above 0.

    Example:

    >>> scaled(64, 0.25)
    16
    """
    checks.whole("units", units, 1)
    if not _is_number(width) or width <= 0:
        raise ValueError(
            f"`width` multiplies units and channels and must be > 0 and "
            f"finite; got {width!r}."
        )
    return max(1, round(units * width))


def dense(units, name, activation="relu"):
    """Returns a dense layer, initialised Glorot normal."""
    return keras.layers.Dense(
        checks.whole(f"units of {name}", units, 1),
        activation,
        kernel_initializer="glorot_normal",
        name=name,
    )


def convolution(filters, name, *, size=3, strides=1, followed_by_norm=False):
    """Returns a convolution that keeps the image's size, Glorot normal.

    With ReLU, or, where batch normalisation follows, bare: that has a bias of
    its own and the activation comes after it.
    """
    return keras.layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        activation=None if followed_by_norm else "relu",
        use_bias=not followed_by_norm,
        kernel_initializer="glorot_normal",
        name=name,
    )


def norm(name):
    """Returns a batch normalisation.

    Its statistics follow within tens of steps, where Keras's default takes
    hundreds: short runs and small sets are evaluated with them too.
    """
    return keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, name=name
    )


def _moments(normalize, channels):
    try:
        means, stds = ([float(x) for x in each] for each in normalize)
    except (TypeError, ValueError):
        means = stds = []
    whole = len(means) == len(stds) == channels
    if not whole or not all(map(_is_number, means + stds)) or min(stds) <= 0:
        raise ValueError(
            f"`normalize` must be (means, stds) with {channels} numbers each, "
            f"one per channel, and stds above 0; got {normalize!r}."
        )
    return means, stds


def _is_size(value):
    number = isinstance(value, int) and not isinstance(value, bool)
    return number and value >= 1


def _is_number(value):
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and math.isfinite(value)
