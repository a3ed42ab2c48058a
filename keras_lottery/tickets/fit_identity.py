"""What a folder of checkpoints is of: all that decides what `fit` finds.

First weights are not part of it, nor seeds that draw them: a script builds its
model anew, and then goes on with the weights of the folder.
"""

import json
import re
import zlib

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.pruning import schedules
from keras_lottery.pruning import weights
from keras_lottery.tickets import lottery
from keras_lottery.tickets import ticket as tickets
from keras_lottery.training import agreement
from keras_lottery.training import callback_states
from keras_lottery.training import keras_private
from keras_lottery.training import replicas
from keras_lottery.training.array_feed import ArrayFeed

_SHOWN = 70  # characters of a value, in errors


def of(pruned, training):
    """Returns a dict of what JSON can hold.

    Args:
        pruned: A compiled `PrunedModel`.
        training: The `Training` of one call of `fit`.
    """
    shown = ("verbose", "validation_data")
    found = {
        "prune": _settings(pruned.settings),
        "weights": _weights(pruned.inner),
        "model": _model(pruned.inner),
        "optimizer": _optimizer(pruned),
        "compile": _compilation(pruned),
        "fit": {
            **{k: v for k, v in training.arguments.items() if k not in shown},
            "steps per epoch": training.feed.per_epoch,
            "initial step": training.initial_step,
        },
        "data": _feed(training.feed),
        "validation data": _data(training.arguments.get("validation_data")),
        "callbacks": callback_states.names(training.callbacks),
        "step mode": pruned.step_mode,
        "replicas": replicas.count(pruned),
    }
    return json.loads(canonical(_described(found)))


def canonical(value):
    """Returns a JSON text that equal values have in common."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def differences(there, here, where=""):
    """Returns what differs between two identities, as sentences.

    Example:

    >>> differences({"fit": {"epochs": 3}}, {"fit": {"epochs": 5}})
    ['fit epochs: 3 there, 5 here']
    """
    if there == here:
        return []
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return [f"{where}: {_shown(there)} there, {_shown(here)} here"]
    return [
        sentence
        for name in sorted({*there, *here})
        for sentence in differences(
            there.get(name), here.get(name), f"{where} {name}".strip()
        )
    ]


def _shown(value):
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _settings(chosen):
    return {
        "schedule": schedules.serialize(chosen.grouped),
        "weights": chosen.governed,
        "rewind": chosen.rewind,
        "rewind_step": chosen.rewind_step,
        "criterion": lottery.name_of(chosen.criterion),
        "allocation": lottery.name_of(chosen.allocation),
        "data": chosen.data,
        "seed": chosen.seed,
    }


def _weights(model):
    return {
        name: f"{keras.backend.standardize_dtype(v.dtype)} {tuple(v.shape)}"
        for name, v in weights.by_name(model).items()
    }


def _model(model):
    """Returns the class of a model, and a checksum of its configuration."""
    text = canonical(_described(_without_draws(tickets.config_of(model))))
    # Keras counts the layers of a process, and names them by that.
    text = re.sub(r'_[0-9]+"', '"', text)
    return f"{type(model).__name__} {zlib.crc32(text.encode()):08x}"


def _without_draws(config):
    """Returns a configuration without what decides the first weights only."""
    if isinstance(config, (list, tuple)):
        return [_without_draws(each) for each in config]
    if not isinstance(config, dict):
        return config
    left_out = ("seed", "shared_object_id")
    return {
        name: _without_draws(value)
        for name, value in config.items()
        if name not in left_out and not name.endswith("initializer")
    }


def _optimizer(pruned):
    """Returns its configuration; callbacks change its rate meanwhile."""
    config = _described(pruned.optimizer)
    return {"config": _without_rates(config), "rates": pruned.played.rates()}


def _without_rates(config):
    if not isinstance(config, dict):
        return config
    return {
        name: _without_rates(value)
        for name, value in config.items()
        if name != "name"
        and not (name == "learning_rate" and isinstance(value, float))
    }


def _compilation(pruned):
    left_out = ("optimizer", "steps_per_execution", "jit_compile")
    given = keras_private.compile_arguments(pruned)
    return {k: v for k, v in given.items() if k not in left_out}


def _feed(feed):
    if isinstance(feed, ArrayFeed):
        seeds = feed.seeds.numpy().tolist()
        # The recipe without what is a function: its class is enough.
        return [_data(feed.tensors), list(feed.recipe[:3]), seeds]
    return _data(feed.source)


def _data(data):
    """Returns shapes and checksums of arrays; of others what is known."""
    if data is None:
        return None
    if isinstance(data, tf.data.Dataset):
        return f"Dataset of {data.element_spec}"
    flat = tf.nest.flatten(data)
    return [_described(each) for each in flat if each is not None]


def _described(value):
    """Returns what JSON can hold, the same in every process."""
    if isinstance(value, (np.ndarray, tf.Tensor)):
        return _array(tf.convert_to_tensor(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(name): _described(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "get_config") and not isinstance(value, type):
        config = {"class": type(value).__name__}
        return config | _described(value.get_config())
    return getattr(value, "__name__", type(value).__name__)


def _array(tensor):
    about = f"{tensor.dtype.name} {tuple(tensor.shape)}"
    if tensor.dtype == tf.string:
        return about
    return f"{about} {agreement.digest(tensor):08x}"
