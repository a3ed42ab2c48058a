"""LeNet-300-100: two hidden layers, no convolutions."""

import keras

from keras_lottery.models import layers

# Per network: pattern of weight names -> fraction of what is left that a level
# removes. The first match wins; weights that fit none are not pruned.
PRUNED = {"lenet": {"output/*": 0.1, "*": 0.2}}


def lenet(
    input_shape=(28, 28, 1),
    classes=10,
    *,
    width=1.0,
    normalize=None,
    hidden=(300, 100),
):
    """Returns the fully connected network of Frankle & Carbin, untrained.

    Dense layers `fc1`, `fc2`, ... with ReLU and `output` with logits, all
    initialised Glorot normal.

    Args:
        input_shape: Shape of an image.
        classes: Number of classes.
        width: Multiplies the units of the hidden layers.
        normalize: None, or `(means, stds)` per channel for a first layer that
            normalises raw images.
        hidden: Units of the hidden layers.

    Returns:
        A built `keras.Sequential`.

    Raises:
        ValueError: A size that is not a whole number above 0, a `width` that
            is not above 0, or statistics that do not fit the channels.

    Example:

    >>> lenet().count_params() - (300 + 100 + 10)  # without biases
    266200

    Reference: Frankle & Carbin (2019), figure 2; LeCun et al. (1998).
    """
    stack = layers.start(input_shape, normalize)
    stack.append(keras.layers.Flatten(name="flatten"))
    for i, units in enumerate(hidden, start=1):
        stack.append(layers.dense(layers.scaled(units, width), f"fc{i}"))
    stack.append(layers.dense(classes, "output", activation=None))
    return keras.Sequential(stack, name="lenet")
