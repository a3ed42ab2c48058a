"""The networks by name, and how the papers prune them.

A network is a function `(input_shape, classes, *, width=1.0, normalize=None)
-> keras.Model`, built, not compiled, with logits as its output.
"""

from keras_lottery import choices
from keras_lottery.models import conv
from keras_lottery.models import lenet
from keras_lottery.models import resnet
from keras_lottery.models import vgg

NETWORKS = {
    "lenet": lenet.lenet,
    "conv2": conv.conv2,
    "conv4": conv.conv4,
    "conv6": conv.conv6,
    "resnet14": resnet.resnet14,
    "resnet20": resnet.resnet20,
    "resnet32": resnet.resnet32,
    "resnet44": resnet.resnet44,
    "resnet56": resnet.resnet56,
    "vgg11": vgg.vgg11,
    "vgg19": vgg.vgg19,
}

# Frankle & Carbin (2019), figure 2; the other depths of a family follow suit.
PRUNED = {**lenet.PRUNED, **conv.PRUNED, **resnet.PRUNED, **vgg.PRUNED}

# How the budget of a pattern spreads over its layers (the same figure).
ALLOCATION = {
    name: "global" if name.startswith(("resnet", "vgg")) else "layerwise"
    for name in NETWORKS
}

_LINES = {
    "lenet": "2 hidden layers of 300 and 100 units, no convolutions",
    "conv2": "2 convolutions, 2 hidden layers of 256 units",
    "conv4": "4 convolutions, 2 hidden layers of 256 units",
    "conv6": "6 convolutions, 2 hidden layers of 256 units",
    "resnet14": "residual network of 14 layers",
    "resnet20": "residual network of 20 layers (ResNet-18 in the paper)",
    "resnet32": "residual network of 32 layers",
    "resnet44": "residual network of 44 layers",
    "resnet56": "residual network of 56 layers",
    "vgg11": "8 convolutions with batch normalisation, 1 dense layer",
    "vgg19": "16 convolutions with batch normalisation, 1 dense layer",
}


def get(identifier):
    """Returns the network called `identifier`, or a callable as it is.

    Raises:
        ValueError: No such network; the message lists them.

    Example:

    >>> get("conv2")((28, 28, 1), 10, width=0.5).output_shape
    (None, 10)
    """
    return choices.resolve(
        "network",
        identifier,
        NETWORKS,
        "a function (input_shape, classes, *, width, normalize) -> model",
    )


def describe(name):
    """Returns one line about a network, for a listing.

    Args:
        name: A key of `NETWORKS`.

    Raises:
        ValueError: No such network.

    Example:

    >>> describe("vgg11")
    'vgg11: 8 convolutions with batch normalisation, 1 dense layer; prunes 20 %
    of conv* per level, global'
    """
    if name not in _LINES:
        get(str(name))
    rates = ", ".join(
        f"{rate:.0%} of {pattern}".replace("%", " %")
        for pattern, rate in PRUNED[name].items()
    )
    return (
        f"{name}: {_LINES[name]}; prunes {rates} per level, {ALLOCATION[name]}"
    )
