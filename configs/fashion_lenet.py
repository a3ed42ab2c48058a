"""LeNet-300-100 on Fashion-MNIST: tickets against two controls, on a laptop.

The protocol of `mnist_lenet` with 4,000 steps. What it found is the first
picture of the README, and its table is results/fashion_lenet.
Run: `keras-lottery run --config=fashion_lenet`
"""

from keras_lottery.runs import configuration


def get_config(variant=""):
    """Returns the configuration; `smoke` takes seconds."""
    config = configuration.defaults()
    config.name = "fashion_lenet"
    config.data.name = "fashion_mnist"
    config.model.arguments.hidden = (300, 100)
    config.train.steps = 4_000
    config.prune.rates = (("output/*", 0.1),)
    config.prune.levels = 15
    return configuration.vary(config, variant, VARIANTS)


def smoke(config):
    """600 images, every kind of arm, 20 steps a level."""
    configuration.smoke(config)
    config.model.arguments.hidden = (30, 10)


VARIANTS = {"smoke": smoke}
