"""New draws of a model's weights, each from its layer's own initializer."""

import contextlib
import random
import zlib

import keras
import numpy as np

from keras_lottery.pruning import naming


def draw(model, seed):
    """Returns new values of all weights that start at random.

    Each weight is drawn by a copy of the initializer its layer was built with,
    reseeded from `seed` and the weight's name. Weights that start at a
    constant are left out.

    Args:
        model: A built `keras.Model`; it is not changed.
        seed: An int >= 0.

    Returns:
        Dict from name to array.

    Raises:
        ValueError: A kernel whose initializer cannot be found.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> list(draw(model, seed=0))
    ['dense/kernel']
    """
    drawn, rebuilt = {}, {}
    for weight in naming.walk(model):
        if not weight.variable.trainable and weight.layer.trainable:
            continue
        initializer = _initializer(weight)
        if isinstance(initializer, keras.initializers.Initializer):
            seeded = _reseeded(initializer, _seed_of(seed, weight.name))
            if seeded is not None:
                shape, dtype = weight.variable.shape, weight.variable.dtype
                drawn[weight.name] = np.array(seeded(shape, dtype=dtype))
        elif len(weight.variable.shape) >= 2:
            key = id(weight.layer)
            if key not in rebuilt:
                number = _seed_of(seed, weight.layer_path)
                rebuilt[key] = _rebuilt(weight, number)
            drawn[weight.name] = rebuilt[key][weight.variable.name]
    return drawn


def _initializer(weight):
    """Returns the initializer that the layer keeps for a weight, or None.

    Layers name it after the weight: `kernel_initializer` for `kernel`,
    `recurrent_initializer` for `recurrent_kernel`.
    """
    role = weight.variable.name
    for name in (role, role.removesuffix("_kernel")):
        found = getattr(weight.layer, f"{name}_initializer", None)
        if found is not None:
            return found
    return None


def _reseeded(initializer, seed):
    """Returns a copy that draws from `seed`, or None if it never draws."""
    config = initializer.get_config()
    if "seed" not in config:
        return None
    return type(initializer).from_config({**config, "seed": seed})


def _rebuilt(weight, seed):
    """Returns the first values of a second copy of a layer, by weight name.

    For layers that give `add_weight` an initializer and do not keep it.
    """
    layer = weight.layer
    try:
        with _python_seed(seed):
            copy = type(layer).from_config(layer.get_config())
            copy.build(layer.get_build_config()["input_shape"])
    except Exception as error:
        raise ValueError(
            f"{weight.name!r} cannot be drawn anew: its layer keeps no "
            f"`{weight.variable.name}_initializer` and cannot be rebuilt from "
            f"its config ({type(error).__name__}: {error}). Keep the "
            "initializer as that attribute."
        ) from error
    return {v.name: np.array(v.numpy()) for v in copy.weights}


@contextlib.contextmanager
def _python_seed(seed):
    """Keras seeds initializers without a seed from Python's `random`."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _seed_of(seed, name):
    entropy = [int(seed), zlib.crc32(name.encode())]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
