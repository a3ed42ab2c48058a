"""A pruned model's configuration, as Keras writes and reads it."""

import keras

from keras_lottery import checks
from keras_lottery.pruning import allocation
from keras_lottery.pruning import schedules
from keras_lottery.tickets import sparse_start


def config_of(inner):
    """Returns the configuration of the wrapped model.

    Raises:
        NotImplementedError: It has none.
    """
    try:
        return keras.saving.serialize_keras_object(inner)
    except NotImplementedError as error:
        raise NotImplementedError(
            f"{type(inner).__name__} has no `get_config`, so the pruned model "
            "cannot be saved whole. Give it one, or use `save_weights`, or "
            "save a ticket: `pruned.tickets[-1].save`."
        ) from error


def reached(pruned):
    """Returns the level and the mask that a lottery has come to, if any."""
    if not pruned.level:
        return {}
    return {
        "reached": {
            "level": pruned.level,
            "clock": int(pruned.clock.numpy()),
            "mask": sparse_start.serialize(pruned.mask),
        }
    }


def go_to(pruned, there):
    """Puts a new `PrunedModel` where `reached` says, its masks holding.

    Args:
        pruned: The `PrunedModel`, at level 0.
        there: What `reached` gave; may come from anybody. None for nothing.

    Raises:
        ValueError: It is none, or of other weights.
    """
    if there is None:
        return
    try:
        level, clock = there["level"], there["clock"]
        mask = sparse_start.deserialize(dict(there["mask"]))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"The config does not say which level was reached: {there!r:.80}."
        ) from error
    checks.whole("level", level, 1)
    checks.whole("clock", clock, 0)
    pruned.adopt_mask(mask, level)
    pruned.clock.assign(clock)


def arguments(config, custom_objects=None):
    """Returns the arguments of `PrunedModel` that a config stands for."""
    config = dict(config)
    inner = keras.saving.deserialize_keras_object(
        config.pop("inner"), custom_objects=custom_objects
    )
    schedule = schedules.deserialize(config.pop("schedule"), custom_objects)
    return {
        **config,
        "inner": inner,
        "schedule": schedule,
        "allocation": allocation.deserialize(
            config.get("allocation", "global")
        ),
        "mask": sparse_start.deserialize(config.get("mask")),
    }
