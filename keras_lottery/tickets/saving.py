"""A pruned model's configuration, as Keras writes and reads it."""

import keras

from keras_lottery.pruning import schedules


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


def arguments(config, custom_objects=None):
    """Returns the arguments of `PrunedModel` that a config stands for."""
    config = dict(config)
    inner = keras.saving.deserialize_keras_object(
        config.pop("inner"), custom_objects=custom_objects
    )
    schedule = schedules.deserialize(config.pop("schedule"), custom_objects)
    return {"inner": inner, "schedule": schedule, **config}
