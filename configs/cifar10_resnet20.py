"""ResNet-20 on CIFAR-10: Frankle & Carbin (2019), figure 8.

They call it ResNet-18. 30,000 steps of SGD with momentum 0.9 and batch 128,
the learning rate 0.1 divided by ten at 20,000 and 25,000, weight decay 1e-4,
flips and crops; 20 % of the 3x3 convolutions a level, over all layers
together. At 0.1 the paper finds no winning tickets; `:warmup` (0.03, reached
over 20,000 steps) and `:low` (0.01) are where it does.
Not run by us in full: it is for a GPU. tfds downloads CIFAR-10 once with
`--download`. Run: `keras-lottery run --config=cifar10_resnet20:warmup`
"""

from keras_lottery.runs import configuration


def get_config(variant=""):
    """Returns the configuration; `smoke` takes seconds."""
    config = configuration.defaults()
    config.name = "cifar10_resnet20"
    config.eval_every = 500
    config.data.name = "cifar10"
    config.data.augment = "flip_and_crop"
    config.data.normalize = True
    config.model.name = "resnet20"
    config.train.steps = 30_000
    config.train.batch_size = 128
    config.train.optimizer = "sgd"
    config.train.arguments.momentum = 0.9
    config.train.learning_rate = 0.1
    config.train.drops = (20_000, 25_000)
    config.train.weight_decay = 1e-4
    config.prune.rate = 0.0
    config.prune.rates = (("*conv*", 0.2),)
    config.prune.allocation = "global"
    config.prune.levels = 20
    return configuration.vary(config, variant, VARIANTS)


def smoke(config):
    """An eighth of the width, 600 JPEG copies, 20 steps a level."""
    configuration.smoke(config)
    config.data.name = "cifar10_jpeg"
    config.model.width = 0.125
    config.train.drops = (10, 15)


def warmup(config):
    """The learning rates at which the paper finds winning tickets."""
    config.train.learning_rate = 0.03
    config.train.warmup = 20_000


def low(config):
    """The low learning rate of the paper."""
    config.train.learning_rate = 0.01


VARIANTS = {"smoke": smoke, "warmup": warmup, "low": low}
