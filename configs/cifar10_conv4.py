"""Conv-4 on CIFAR-10: Frankle & Carbin (2019), figure 5.

Convolutions of 64, 64, pool, 128, 128, pool, then dense layers of 256, 256 and
10. 25,000 steps of Adam 3e-4 with batch 60; a level removes 10 % of what is
left of each convolution, 20 % of each dense layer, 10 % of the output layer.
The paper's tickets are most accurate at 11.1 % of the weights.
Not run by us in full: it is for a GPU. tfds downloads CIFAR-10 once with
`--download`. Run: `keras-lottery run --config=cifar10_conv4`
"""

from keras_lottery.runs import configuration


def get_config(variant=""):
    """Returns the configuration; `smoke` takes seconds."""
    config = configuration.defaults()
    config.name = "cifar10_conv4"
    config.replicates = 5
    config.data.name = "cifar10"
    config.data.normalize = True
    config.model.name = "conv4"
    config.train.steps = 25_000
    config.train.learning_rate = 3e-4
    config.prune.rates = (("output/*", 0.1), ("conv*", 0.1))
    config.prune.levels = 20
    return configuration.vary(config, variant, VARIANTS)


def smoke(config):
    """An eighth of the width, 600 JPEG copies, 20 steps a level."""
    configuration.smoke(config)
    config.data.name = "cifar10_jpeg"
    config.model.width = 0.125


VARIANTS = {"smoke": smoke}
