"""What a folder of checkpoints is of: all that decides what `fit` finds.

First weights are not part of it, nor seeds that draw them: a script builds its
model anew, and then goes on with the weights of the folder. Nor are names that
Keras counts up, such as `auc_1`: the history of what follows is in columns of
the name that the metric has then, so name metrics to have one column each.
"""

import json
import re
import zlib

import keras
import tensorflow as tf

from keras_lottery.pruning import allocation as allocations
from keras_lottery.pruning import schedules
from keras_lottery.pruning import weights
from keras_lottery.tickets import fit_descriptions
from keras_lottery.tickets import lottery
from keras_lottery.tickets import ticket as tickets
from keras_lottery.tickets.fit_descriptions import described
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
        "callbacks": fit_descriptions.of_callbacks(training.callbacks),
        "step mode": pruned.step_mode,
        "replicas": replicas.count(pruned),
    }
    return json.loads(canonical(described(found)))


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
    there, here = _parts(there), _parts(here)
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return [f"{where}: {_shown(there)} there, {_shown(here)} here"]
    return [
        sentence
        for name in sorted({*there, *here})
        for sentence in differences(
            there.get(name), here.get(name), f"{where} {name}".strip()
        )
    ]


def _parts(value):
    """Returns a list of callbacks as a dict, so that settings are named."""
    named = isinstance(value, list) and all(
        isinstance(each, dict) and "class" in each for each in value
    )
    if not named or not value:
        return value
    return {
        f"{index} {each['class']}": each for index, each in enumerate(value)
    }


def _shown(value):
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _settings(chosen):
    begun = {} if chosen.mask is None else {"mask": chosen.mask.checksum}
    return {
        **begun,
        "schedule": schedules.serialize(chosen.grouped),
        "weights": chosen.governed,
        "rewind": chosen.rewind,
        "rewind_step": chosen.rewind_step,
        "criterion": lottery.name_of(chosen.criterion),
        "allocation": _allocation(chosen.allocation),
        "data": chosen.data,
        "seed": chosen.seed,
    }


def _allocation(chosen):
    """Returns an allocation with its settings; a function by its name."""
    try:
        return allocations.serialize(chosen)
    except ValueError:
        return lottery.name_of(chosen)


def _weights(model):
    return {
        name: f"{keras.backend.standardize_dtype(v.dtype)} {tuple(v.shape)}"
        for name, v in weights.by_name(model).items()
    }


def _model(model):
    """Returns the class of a model, and a checksum of its configuration."""
    config = described(_without_draws(tickets.config_of(model)))
    text = canonical([config, _lambdas(model)])
    # Keras counts the layers of a process, and names them by that.
    text = re.sub(r'_[0-9]+"', '"', text)
    return f"{type(model).__name__} {zlib.crc32(text.encode()):08x}"


def _lambdas(model):
    """Returns what `Lambda` layers do, whose code is in no configuration."""
    lambdas = (
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.Lambda)
    )
    return [fit_descriptions.functions(layer) for layer in lambdas]


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
    config = described(pruned.optimizer)
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
    return [described(each) for each in flat if each is not None]
