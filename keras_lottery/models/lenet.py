"""LeNet-300-100: two hidden layers, no convolutions."""

import keras


def lenet(input_shape=(28, 28, 1), hidden=(300, 100), classes=10):
    """Returns the fully connected network of Frankle & Carbin, untrained.

    Dense layers `fc1`, `fc2`, ... with ReLU and `output` with logits, all
    initialised Glorot normal.

    Args:
        input_shape: Shape of an image.
        hidden: Units of the hidden layers.
        classes: Number of classes.

    Returns:
        A built `keras.Sequential`.

    Example:

    >>> lenet().count_params() - (300 + 100 + 10)  # without biases
    266200

    Reference: Frankle & Carbin (2019), figure 2; LeCun et al. (1998).
    """
    layers = [
        keras.Input(input_shape, name="image"),
        keras.layers.Flatten(name="flatten"),
    ]
    for i, units in enumerate(hidden, start=1):
        layers.append(_dense(units, "relu", f"fc{i}"))
    layers.append(_dense(classes, None, "output"))
    return keras.Sequential(layers, name="lenet")


def _dense(units, activation, name):
    return keras.layers.Dense(
        units, activation, kernel_initializer="glorot_normal", name=name
    )
