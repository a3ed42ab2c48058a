"""VGG-19 on CIFAR-10: Frankle & Carbin (2019), figure 7.

112,480 steps (160 passes) of SGD with momentum 0.9 and batch 64, the learning
rate 0.1 divided by ten after 80 and 120 passes, weight decay 1e-4, flips and
crops; 20 % of the convolutions a level, over all layers together. At 0.1 the
paper finds no winning tickets; `:warmup` (0.1, reached over 10,000 steps) and
`:low` (0.01) are where it does.
Not run by us in full: it is for a GPU. tfds downloads CIFAR-10 once with
`--download`. Run: `keras-lottery run --config=cifar10_vgg19:warmup`
"""

from keras_lottery.runs import configuration


def get_config(variant=""):
    """Returns the configuration; `smoke` takes seconds."""
    config = configuration.defaults()
    config.name = "cifar10_vgg19"
    config.eval_every = 703  # one pass over 45,000 images
    config.data.name = "cifar10"
    config.data.augment = "flip_and_crop"
    config.data.normalize = True
    config.model.name = "vgg19"
    config.train.steps = 112_480
    config.train.batch_size = 64
    config.train.optimizer = "sgd"
    config.train.arguments.momentum = 0.9
    config.train.learning_rate = 0.1
    config.train.drops = (56_240, 84_360)
    config.train.weight_decay = 1e-4
    config.prune.rate = 0.0
    config.prune.rates = (("conv*", 0.2),)
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
    config.train.warmup = 10_000


def low(config):
    """The low learning rate of the paper."""
    config.train.learning_rate = 0.01


VARIANTS = {"smoke": smoke, "warmup": warmup, "low": low}
