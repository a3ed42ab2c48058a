"""What a network is compiled with: optimizer, loss and metrics by name."""

import difflib
import functools
import math

import keras

from keras_lottery import choices
from keras_lottery.training import learning_rate

LOSSES = {
    "softmax_crossentropy": functools.partial(
        keras.losses.SparseCategoricalCrossentropy, from_logits=True
    ),
}
_LOSS_NAMES = (*LOSSES, "mse", "mae", "mape", "msle")
_NOT_NAMES = ("get", "serialize", "deserialize", "schedules", "legacy")


def optimizer(train):
    """Returns a new optimizer.

    Args:
        train: The section `train` of a configuration.

    Raises:
        ValueError: Keras knows no such optimizer, or not its arguments.
    """
    if not 0 < train.learning_rate < math.inf:
        raise ValueError(
            f"train.learning_rate={train.learning_rate} must be above 0 and "
            "finite."
        )
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
    return _from_keras(
        "train.optimizer", keras.optimizers, found, train.optimizer
    )


def loss(name):
    """Returns a new loss: ours, Keras's, or a `"module:function"`.

    Example:

    >>> loss("softmax_crossentropy").from_logits
    True
    """
    if name in LOSSES:
        return LOSSES[name]()
    if ":" in name:
        return choices.imported(name, "a loss (y_true, y_pred)")
    return _from_keras("train.loss", keras.losses, name, name, _LOSS_NAMES)


def metric(name):
    """Returns what `compile` takes: a name, or the function it stands for."""
    if ":" in name:
        return choices.imported(name, "a metric (y_true, y_pred)")
    _from_keras("train.metrics", keras.metrics, name, name, ("accuracy",))
    return name


def deciding(train, metrics):
    """Returns the name in the logs of the metric that decides.

    Args:
        train: The section `train` of a configuration.
        metrics: What `metric` returned for each of its metrics.

    Raises:
        ValueError: It is not measured.
    """
    logged = [m if isinstance(m, str) else m.__name__ for m in metrics]
    name = train.metric or (logged or ["loss"])[0]
    if name not in ("loss", *logged):
        raise ValueError(
            f"train.metric={name!r} is not measured. Expected one of loss, "
            f"{', '.join(logged)}: add it to train.metrics."
        )
    return name


def _from_keras(setting, family, identifier, name, others=()):
    """Returns what Keras calls so.

    Args:
        setting: `"train.loss"`.
        family: `keras.losses`.
        identifier: What its `get` takes.
        name: The name in it, for the error.
        others: Names that are ours, for the error.
    """
    try:
        found = family.get(identifier)
    except Exception as error:
        text = str(error)
        if "Could not interpret" in text:
            text = _nearest(name, {*others, *_names(family)})
        raise ValueError(
            f"{setting}={name!r} is not known to Keras: {text}"
        ) from error
    if found is None:
        raise ValueError(f"{setting}={name!r} is not known to Keras.")
    return found


def _nearest(name, known):
    close = difflib.get_close_matches(name, sorted(known), 3)
    listed = ", ".join(map(repr, close or sorted(known)))
    return f"expected {'perhaps ' if close else 'one of '}{listed}."


def _names(family):
    """Returns what a family of Keras answers to in lower case."""
    public = [n for n in vars(family) if n[0] != "_" and n not in _NOT_NAMES]
    lower = [n for n in public if n.islower()]
    return lower or [n.lower() for n in public]  # optimizers: classes only
