"""The axes of growth.py: each gives a call to be timed for every size.

Networks, data and traces are made beforehand, except in "levels in memory",
where they belong to what a user waits for.
"""

import tempfile

import growth_bare
import keras
import numpy as np

import keras_lottery as lottery
from keras_lottery.models import networks
from keras_lottery.runs import configuration
from keras_lottery.runs import play
from keras_lottery.runs.directory import RunDirectory
from keras_lottery.runs.experiment import Experiment
from keras_lottery.training import enforce
from keras_lottery.training import loop
from keras_lottery.training import measure
from keras_lottery.training.array_feed import ArrayFeed

LEVELS, REPLICATES = (2, 4, 8, 16), (1, 2, 4, 8)
WIDTHS = (0.42, 1.1, 3.0, 6.7, 15.0)  # 0.1 to 10 million weights
ROWS = (1_000, 4_000, 16_000, 64_000)
BATCH, PASSES, STEPS = 60, 2, 20
STEP = "weights, step"
SUMS = "weights, bare products and Adam"
UNJUDGED = ("weights, bare products", SUMS)


def runs(sizes, setting, **others):
    """Returns dict from size to a call that plays a run with a directory.

    Args:
        sizes: Values of a setting of the configuration.
        setting: Its dotted path.
        **others: `levels` of the prunings, where they are not the setting.
    """
    experiments = {}
    for size in sizes:
        config = configuration.load("digits")
        config.train.steps, config.eval_every = 120, 60
        config.controls.names, config.replicates = (), 1
        config.prune.levels = others.get("levels", 1)
        config.update_from_flattened_dict({setting: size})
        experiments[size] = one = Experiment(config)
        first = experiments[sizes[0]]
        # One network for all, so that nothing but the first run traces it.
        one.data, one.model, one.fresh = first.data, first.model, first.fresh
    return {
        size: lambda one=one: _play(one) for size, one in experiments.items()
    }


def _play(experiment):
    with tempfile.TemporaryDirectory() as workdir:
        directory = RunDirectory.of(experiment.config, workdir)
        directory.create(experiment.config)
        play.play(experiment, directory)


def levels_in_memory(sizes):
    """Returns dict from levels to a call that prunes a new model by `fit`."""
    digits = lottery.load_digits()

    def call(levels):
        model = networks.get("lenet")((8, 8, 1), 10)
        pruned = lottery.prune(model, lottery.IterativePruning(0.2, levels))
        compiled(pruned).fit(
            *digits.train,
            batch_size=BATCH,
            epochs=10,
            validation_data=digits.validation,
            verbose=0,
        )

    return {levels: lambda levels=levels: call(levels) for levels in sizes}


def compiled(model):
    model.compile(
        keras.optimizers.Adam(1.2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.optimizer.build(model.trainable_variables)
    return model


def widened(widths):
    """Returns dict from number of weights to a compiled LeNet."""
    built = networks.get("lenet")
    models = [built((28, 28, 1), 10, width=width) for width in widths]
    return {
        lottery.find_mask(model, 0.0).size: compiled(model) for model in models
    }


def images(rows):
    generator = np.random.default_rng(0)
    x = generator.random((rows, 28, 28, 1), np.float32)
    return x, generator.integers(0, 10, rows)


def step(widths):
    """Returns dict from weights to a call that trains some masked steps."""
    feed, calls = ArrayFeed(images(6_000), BATCH, None, True, 0), {}
    for size, model in widened(widths).items():
        enforce.attach(model, lottery.find_mask(model, 0.8))
        calls[size] = lambda model=model: loop.of(model).run(feed, 0, STEPS)
    return calls


def bare(widths, sums):
    """Returns dict from weights to a call that does a step's sums alone."""
    calls = {}
    for width in widths:
        units = growth_bare.sizes(width)
        size = sum(one * next_ for one, next_ in zip(units, units[1:]))
        calls[size] = sums(width, BATCH, STEPS)
    return calls


def prune(widths):
    """Returns dict from weights to a call that makes the next mask."""
    calls = {}
    for size, model in widened(widths).items():
        mask = lottery.find_mask(model, 0.2)
        calls[size] = lambda model=model, mask=mask: lottery.find_mask(
            model, 0.36, mask=mask
        )
    return calls


def level(widths):
    """Returns dict from weights to a call that plays 2 levels untrained."""
    schedule = lottery.IterativePruning(0.2, levels=2)

    def call(model):
        nothing = lambda model, first_step, last_step: None  # noqa: E731
        list(lottery.find_tickets(model, nothing, schedule, steps=1))

    return {
        size: lambda model=model: call(model)
        for size, model in widened(widths).items()
    }


def training_rows(sizes):
    """Returns dict from rows to a call that trains two passes over them."""
    model = compiled(networks.get("lenet")((28, 28, 1), 10))

    def call(data):
        feed = ArrayFeed(data, BATCH, None, True, 0)
        loop.of(model).run(feed, 0, PASSES * feed.per_epoch)

    return {
        rows: lambda data=images(rows): call(data)  # noqa: B008
        for rows in sizes
    }


def evaluated_rows(sizes):
    """Returns dict from rows to a call that evaluates them once."""
    model = compiled(networks.get("lenet")((28, 28, 1), 10))
    return {rows: measure.measure_on(model, images(rows)) for rows in sizes}


AXES = {
    "levels": lambda: runs(LEVELS, "prune.levels"),
    "levels in memory": lambda: levels_in_memory(LEVELS),
    "replicates": lambda: runs(REPLICATES, "replicates", levels=3),
    STEP: lambda: step(WIDTHS),
    "weights, bare products": lambda: bare(WIDTHS, growth_bare.products),
    SUMS: lambda: bare(WIDTHS, growth_bare.products_and_adam),
    "weights, prune": lambda: prune(WIDTHS),
    "weights, level": lambda: level(WIDTHS),
    "rows trained": lambda: training_rows(ROWS),
    "rows evaluated": lambda: evaluated_rows(ROWS),
}
