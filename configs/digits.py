"""LeNet on UCI's handwritten digits: winning tickets in about a minute.

1,797 real 8x8 images that ship with the package; nothing is downloaded. The
learning rate is high so that 600 steps go past the dense network's validation
minimum. Run: `keras-lottery run`
"""

from keras_lottery.runs import configuration


def get_config(variant=""):
    """Returns the configuration; `smoke` takes seconds."""
    config = configuration.defaults()
    config.name = "digits"
    config.eval_every = 30
    config.model.arguments.hidden = (300, 100)
    config.train.steps = 600
    config.train.learning_rate = 5e-3
    config.prune.rates = (("output/*", 0.1),)
    config.prune.levels = 8
    return configuration.vary(config, variant, VARIANTS)


def smoke(config):
    """Every kind of arm, 20 steps a level."""
    configuration.smoke(config)
    config.model.arguments.hidden = (30, 10)


VARIANTS = {"smoke": smoke}
