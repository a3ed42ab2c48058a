"""An experiment: what a configuration says, checked and made into objects."""

import functools

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery import choices
from keras_lottery import directions
from keras_lottery import seeds
from keras_lottery.data import augmentation
from keras_lottery.data import data_set
from keras_lottery.data import sources
from keras_lottery.models import networks
from keras_lottery.pruning import allocation
from keras_lottery.pruning import criteria
from keras_lottery.runs import configuration
from keras_lottery.runs import schedule
from keras_lottery.tickets import rewind
from keras_lottery.training import decay
from keras_lottery.training import learning_rate
from keras_lottery.training import strategies

LOSSES = {
    "softmax_crossentropy": functools.partial(
        keras.losses.SparseCategoricalCrossentropy, from_logits=True
    ),
}
_COUNTS = {  # setting: its least value
    "seed": 0,
    "replicates": 1,
    "eval_every": 1,
    "data.validation": 1,
    "data.rows": 0,
    "train.steps": 1,
    "train.batch_size": 1,
    "train.warmup": 0,
    "prune.levels": 1,
    "rewind.step": 0,
    "controls.repeats": 1,
}


class Experiment:
    """A lottery with replicates and controls, ready to be played.

    Everything that can be wrong in a configuration is checked before data are
    read or a network is built.

    Args:
        config: The tree of `configuration.defaults`, filled in.
        data_dir: Where tfds keeps its sets, or None for its own default.
        download: Whether a set that is not there may be downloaded.

    Raises:
        ValueError: A setting that cannot be right.
    """

    def __init__(self, config, *, data_dir=None, download=False):
        configuration.check(config)
        self.config = config
        self._data_dir, self._download = data_dir, download
        for path, least in _COUNTS.items():
            checks.whole(path, _setting(config, path), least)
        _check_steps(config)
        self.metrics = [_metric(name) for name in config.train.metrics]
        self.metric = _deciding(config.train, self.metrics)
        self.mode = config.train.mode or directions.mode_of(self.metric)
        self.schedule = schedule.of(config.prune)
        self.network = networks.get(
            choices.chosen(config.model.name, "a function that builds a model")
        )
        self.criterion = choices.chosen(config.prune.criterion, "a criterion")
        self.allocation = choices.chosen(
            config.prune.allocation, "an allocation"
        )
        criteria.get(self.criterion, config.seed)
        allocation.get(self.allocation)
        rewind.get(config.rewind.name)
        self.augment = augmentation.get(config.data.augment)
        strategies.get(config.distribute.strategy)
        self.optimizer()
        self.loss()

    @property
    def name(self):
        """What the run is called."""
        return self.config.name

    @property
    def levels(self):
        """Number of prunings."""
        return self.config.prune.levels

    @property
    def steps(self):
        """Training steps of a whole level."""
        return self.config.train.steps

    @functools.cached_property
    def data(self):
        """The `DataSet`."""
        wanted = self.config.data
        return sources.load(
            choices.chosen(wanted.name, "a function that returns a DataSet"),
            validation=wanted.validation,
            rows=wanted.rows or None,
            data_dir=self._data_dir,
            download=self._download,
            **wanted.arguments.to_dict(),
        )

    @functools.cached_property
    def model(self):
        """The network, compiled, in the scope of the strategy."""
        with self.scope():
            return self._build()

    def scope(self):
        """Returns a context: the scope of the distribution strategy."""
        return strategies.scope(self._strategy)

    @functools.cached_property
    def _strategy(self):
        return strategies.get(self.config.distribute.strategy)()

    def _build(self):
        seed = seeds.stream(self.config.seed, "init")
        keras.utils.set_random_seed(seed)
        model = self.network(**self._network_arguments())
        if not isinstance(model, keras.Model) or not model.built:
            raise ValueError(
                f"{self.config.model.name!r} must return a built keras.Model, "
                f"got {type(model).__name__}."
            )
        decay.decay(model, self.config.train.weight_decay)
        model.compile(
            self.optimizer(),
            self.loss(),
            metrics=self.metrics,
            steps_per_execution=self.config.eval_every,
        )
        return model

    def optimizer(self):
        """Returns a new optimizer."""
        train = self.config.train
        rate = learning_rate.WarmupAndDrops(
            train.learning_rate,
            warmup=train.warmup,
            drops=train.drops,
            factor=train.drop_factor,
        )
        constant = not train.warmup and not train.drops
        settings = {
            "learning_rate": train.learning_rate if constant else rate,
            **train.arguments.to_dict(),
        }
        if ":" in train.optimizer:
            make = choices.imported(train.optimizer, "an optimizer's maker")
            return make(**settings)
        found = {"class_name": train.optimizer, "config": settings}
        return _from_keras("train.optimizer", keras.optimizers.get, found)

    def loss(self):
        """Returns a new loss."""
        name = self.config.train.loss
        if name in LOSSES:
            return LOSSES[name]()
        if ":" in name:
            return choices.imported(name, "a loss (y_true, y_pred)")
        return _from_keras("train.loss", keras.losses.get, name)

    def _network_arguments(self):
        wanted, x = self.config.model, self.data.train[0]
        statistics = None
        if self.config.data.normalize:
            statistics = data_set.channel_statistics(self.data)
        known = {
            "input_shape": np.shape(x)[1:],
            "classes": data_set.classes(self.data),
            "width": wanted.width,
            "normalize": statistics,
        }
        return {
            **choices.accepted(self.network, **known),
            **wanted.arguments.to_dict(),
        }


def _check_steps(config):
    every, steps, k = config.eval_every, config.train.steps, config.rewind.step
    for name, value in (("train.steps", steps), ("rewind.step", k)):
        if value % every:
            raise ValueError(
                f"{name}={value} must be a multiple of eval_every={every}."
            )
    if k >= steps:
        raise ValueError(f"rewind.step={k} must be below train.steps={steps}.")
    known = ("", "max", "min")
    if config.train.mode not in known:
        raise ValueError(
            f"train.mode must be one of {known}, got {config.train.mode!r}."
        )


def _metric(name):
    """Returns what `compile` takes: a name, or the function it stands for."""
    if ":" in name:
        return choices.imported(name, "a metric (y_true, y_pred)")
    _from_keras("train.metrics", keras.metrics.get, name)
    return name


def _deciding(train, metrics):
    """Returns the name in the logs of the metric that decides."""
    logged = [m if isinstance(m, str) else m.__name__ for m in metrics]
    name = train.metric or (logged or ["loss"])[0]
    if name not in ("loss", *logged):
        raise ValueError(
            f"train.metric={name!r} is not measured. Expected one of loss, "
            f"{', '.join(logged)}: add it to train.metrics."
        )
    return name


def _from_keras(setting, get, identifier):
    try:
        found = get(identifier)
    except Exception as error:
        raise ValueError(
            f"{setting}={identifier!r} is not known to Keras: {error}"
        ) from error
    if found is None:
        raise ValueError(f"{setting}={identifier!r} is not known to Keras.")
    return found


def _setting(config, path):
    for part in path.split("."):
        config = config[part]
    return config
