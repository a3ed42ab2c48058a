"""An experiment: what a configuration says, checked and made into objects."""

import functools
import inspect
import math

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
from keras_lottery.runs import compiling
from keras_lottery.runs import configuration
from keras_lottery.runs import schedule
from keras_lottery.tickets import controls
from keras_lottery.tickets import rewind
from keras_lottery.training import decay
from keras_lottery.training import state
from keras_lottery.training import strategies
from keras_lottery.training import workers
from keras_lottery.training.compiling import MODES

STRATEGY = "a function () -> tf.distribute.Strategy"
CONTROL = "a control (ticket, model, seed) -> Ticket"
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
    "checkpoint.steps": 0,
}


class Experiment:
    """A lottery with replicates and controls, ready to be played.

    Everything that can be wrong in a configuration is checked before data are
    read or a network is built.

    Args:
        config: The tree of `configuration.defaults`, filled in.
        data_dir: Where tfds keeps its sets, or None for its own default.
        download: Whether a set that is not there may be downloaded.

    Attributes:
        config: As given.
        strategy: The `tf.distribute.Strategy` that it is played under, or None.

    Raises:
        ValueError: A setting that cannot be right.
    """

    def __init__(self, config, *, data_dir=None, download=False):
        configuration.check(config)
        self.config = config
        self._data_dir, self._download = data_dir, download
        _check_numbers(config)
        _check_steps(config)
        # Workers have to be connected before TensorFlow does anything.
        self.strategy = _strategy(config.distribute)
        train = config.train
        self.metrics = [compiling.metric(name) for name in train.metrics]
        self.metric = compiling.deciding(train, self.metrics)
        self.mode = directions.mode_of(self.metric, train.mode or None)
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
        _check_rewind(config.rewind)
        for name in config.controls.names:
            controls.get(choices.chosen(name, CONTROL))
        self.augment = augmentation.get(config.data.augment)
        _check_compile(train.compile)
        _check_eval_test(config.eval_test)
        compiling.optimizer(train)
        compiling.loss(train.loss)

    @property
    def is_chief(self):
        """Whether this process writes files; others train with it."""
        return workers.is_chief(self.strategy)

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
        arguments = wanted.arguments.to_dict()
        name = choices.chosen(wanted.name, "a function that returns a DataSet")
        if callable(name):  # its arguments may be called as those of `load`
            name, arguments = functools.partial(name, **arguments), {}
        return sources.load(
            name,
            validation=wanted.validation,
            rows=wanted.rows or None,
            data_dir=self._data_dir,
            download=self._download,
            **arguments,
        )

    @functools.cached_property
    def model(self):
        """The network, compiled, in the scope of the strategy."""
        with self.scope():
            return self._build()

    @functools.cached_property
    def fresh(self):
        """`Snapshot` of the network before its first training.

        The object may be played again, with a network that has trained.
        """
        return state.snapshot(self.model, self.model.optimizer)

    def scope(self):
        """Returns a context: the scope of the distribution strategy."""
        return strategies.scope(self.strategy)

    def _build(self):
        train = self.config.train
        keras.utils.set_random_seed(seeds.stream(self.config.seed, "init"))
        wanted = self.network_arguments()
        _check_accepted(self.config.model.name, self.network, wanted)
        model = self.network(**wanted)
        if not isinstance(model, keras.Model) or not model.built:
            raise ValueError(
                f"{self.config.model.name!r} must return a built keras.Model, "
                f"got {type(model).__name__}."
            )
        _check_fit(model, compiling.loss(train.loss), self.data)
        decay.decay(model, train.weight_decay)
        model.compile(
            compiling.optimizer(train),
            compiling.loss(train.loss),
            metrics=self.metrics,
        )
        return model

    def network_arguments(self):
        """Returns what the function that builds the network is called with."""
        wanted = self.config.model
        statistics = None
        if self.config.data.normalize:
            statistics = data_set.channel_statistics(self.data)
        known = {
            "input_shape": np.shape(self.data.train[0])[1:],
            "classes": data_set.classes(self.data),
            "width": wanted.width,
            "normalize": statistics,
        }
        return {
            **choices.accepted(self.network, **known),
            **wanted.arguments.to_dict(),
        }


def _strategy(wanted):
    """Returns the strategy that a configuration asks for, or None."""
    make = strategies.get(choices.chosen(wanted.strategy, STRATEGY))
    return make(**choices.accepted(make, timeout=wanted.timeout))


def _check_numbers(config):
    for path, least in _COUNTS.items():
        checks.whole(path, configuration.flat(config)[path], least)
    seconds = config.checkpoint.seconds
    if not 0 <= seconds < math.inf:
        raise ValueError(
            f"checkpoint.seconds={seconds} must be finite and >= 0."
        )
    tolerance = config.export.tolerance
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"export.tolerance={tolerance} must be >= 0.")


def _check_compile(wanted):
    known = ("auto", *MODES, "measure")
    if wanted not in known:
        raise ValueError(
            f"train.compile={wanted!r} is not known. Expected one of "
            f"{', '.join(map(repr, known))}: 'auto' follows a fixed table, and "
            "'measure' times both on this machine."
        )


def _check_eval_test(wanted):
    if wanted not in ("minimum", "always"):
        raise ValueError(
            f"eval_test={wanted!r} is not known. Expected 'minimum' (the test "
            "set is read at minima of the validation loss) or 'always'."
        )


def _check_rewind(wanted):
    chosen = rewind.get(wanted.name)
    if wanted.step and not chosen.starts_at_step:
        raise ValueError(
            f"rewind.name={wanted.name!r} goes back to no step, so rewind.step="
            f"{wanted.step} means nothing. Leave it at 0, or use 'weights' or "
            "'learning_rate'."
        )


def _check_steps(config):
    every, steps, k = config.eval_every, config.train.steps, config.rewind.step
    for name, value in (("train.steps", steps), ("rewind.step", k)):
        if value % every:
            raise ValueError(
                f"{name}={value} must be a multiple of eval_every={every}."
            )
    if k >= steps:
        raise ValueError(f"rewind.step={k} must be below train.steps={steps}.")
    train = config.train
    late = [drop for drop in train.drops if drop >= steps]
    if late or train.warmup > steps:
        raise ValueError(
            f"train.drops={train.drops} and train.warmup={train.warmup} must "
            f"lie within train.steps={steps}."
        )


def _check_fit(model, loss, data):
    """Raises where network, loss and data cannot go together."""
    x, y = (part[:2] for part in data.train)
    try:
        keras.losses.get(loss)(y, model(x, training=False))
    except Exception as error:
        raise ValueError(
            f"The network, the loss and the data do not fit together: inputs "
            f"{x.shape[1:]}, targets {y.shape[1:]} ({y.dtype}), outputs "
            f"{model.output_shape[1:]}. {type(error).__name__}: {error}"
        ) from error


def _check_accepted(name, network, wanted):
    """Raises before the call: a TypeError from inside is the network's own."""
    signature = inspect.signature(network)
    try:
        signature.bind(**wanted)
    except TypeError as error:
        raise ValueError(
            f"The network {name!r} cannot be built with "
            f"{', '.join(sorted(wanted))}: {error}. It takes {signature}. Set "
            "or clear model.arguments (--config.model.arguments={})."
        ) from error
