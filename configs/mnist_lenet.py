"""LeNet-300-100 on MNIST: Frankle & Carbin (2019), figures 1, 3 and 4.

50,000 steps of Adam 1.2e-3 with batch 60; each level removes 20 % of what is
left of each layer, of the output layer 10 %. The claims: tickets with 21.1 %
of the weights reach their validation minimum earlier than the dense network,
and their reinitialisations do not. `:short` trains a tenth of the steps with
two replicates: 826 s for 8 levels on 2 shared cores.
Run: `keras-lottery run --config=mnist_lenet:short`
"""

from keras_lottery.runs import configuration


def get_config(variant=""):
    """Returns the configuration; `smoke` takes seconds, `short` minutes."""
    config = configuration.defaults()
    config.name = "mnist_lenet"
    config.replicates = 5
    config.data.name = "mnist"
    config.model.arguments.hidden = (300, 100)
    config.train.steps = 50_000
    config.prune.rates = (("output/*", 0.1),)
    config.prune.levels = 20
    return configuration.vary(config, variant, VARIANTS)


def smoke(config):
    """600 images, every kind of arm, 20 steps a level."""
    configuration.smoke(config)
    config.model.arguments.hidden = (30, 10)


def short(config):
    """A tenth of the steps, two replicates."""
    config.replicates = 2
    config.train.steps = 5_000
    config.prune.levels = 15


VARIANTS = {"smoke": smoke, "short": short}
