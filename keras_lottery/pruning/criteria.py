"""Criteria: how much each weight matters. Higher scores are kept.

A criterion is a function `(model, start, data) -> {name: scores}`. `start` maps
names to the weights at the rewind point, or is None. One that also takes `seed`
is given the seed of the lottery. Scores may be -inf ("remove first"), not NaN.
"""

import functools
import inspect
import zlib

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import choices
from keras_lottery.pruning import weights
from keras_lottery.pruning.selection import Scores


def magnitude(model, start=None, data=None):
    """Scores each weight by its absolute value: `|w|`.

    Args:
        model: A built `keras.Model`.
        start: Ignored; every criterion takes one.
        data: Ignored; every criterion takes one.

    Returns:
        Dict from weight name to an array of scores, shaped like the weight.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> bool((magnitude(model)["dense/kernel"] >= 0).all())
    True

    Reference: Han et al. (2015); `large_final` in Zhou et al. (2019).
    """
    del start, data
    return {name: np.abs(w) for name, w in weights.values(model).items()}


def random(model, start=None, data=None, seed=0):
    """Scores each weight by a uniform draw that depends on its name and seed.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> scores = random(model, seed=1)["dense/kernel"]
    >>> bool((scores == random(model, seed=1)["dense/kernel"]).all())
    True
    """
    del start, data
    return {
        name: np.random.default_rng(
            np.random.SeedSequence([seed, zlib.crc32(name.encode())])
        ).random(w.shape)
        for name, w in weights.values(model).items()
    }


def large_init(model, start=None, data=None):
    """Scores each weight by its absolute value at the rewind point: `|w_0|`.

    Reference: Zhou et al. (2019), section 2.
    """
    del data
    return _with_start(model, start, lambda w, w0: np.abs(w0))


def magnitude_increase(model, start=None, data=None):
    """Scores each weight by how far it grew: `|w| - |w_0|`.

    Reference: Zhou et al. (2019), section 2; Frankle & Carbin (2019), F.5.
    """
    del data
    return _with_start(model, start, lambda w, w0: np.abs(w) - np.abs(w0))


def movement(model, start=None, data=None):
    """Scores each weight by how far it moved: `|w - w_0|`.

    Reference: Zhou et al. (2019), section 2; Frankle & Carbin (2019), F.5.
    """
    del data
    return _with_start(model, start, lambda w, w0: np.abs(w - w0))


def magnitude_same_sign(model, start=None, data=None):
    """Scores `|w|` where the sign is the one at the rewind point, else 0.

    Reference: Zhou et al. (2019), `large_final_same_sign`.
    """
    del data
    return _with_start(
        model,
        start,
        lambda w, w0: np.where(np.sign(w) == np.sign(w0), np.abs(w), 0),
    )


def magnitude_increase_same_sign(model, start=None, data=None):
    """Scores `|w| - |w_0|` where the sign is kept; a flipped sign goes first.

    The score of a flipped sign is -inf: a kept sign may score below zero, so
    that zero would rank a flipped weight above one that merely shrank.

    Reference: Zhou et al. (2019), `magnitude_increase_same_sign`.
    """
    del data
    return _with_start(
        model,
        start,
        lambda w, w0: np.where(
            np.sign(w) == np.sign(w0), np.abs(w) - np.abs(w0), -np.inf
        ),
    )


CRITERIA = {
    "magnitude": magnitude,
    "random": random,
    "large_init": large_init,
    "magnitude_increase": magnitude_increase,
    "movement": movement,
    "magnitude_same_sign": magnitude_same_sign,
    "magnitude_increase_same_sign": magnitude_increase_same_sign,
}


def get(identifier, seed=0):
    """Returns the criterion called `identifier`, bound to `seed` if it asks.

    Example:

    >>> get("magnitude") is magnitude
    True
    """
    criterion = choices.resolve(
        "criterion",
        identifier,
        CRITERIA,
        "a function (model, start, data) -> {name: scores}",
    )
    bound = getattr(criterion, "keywords", {})  # of a functools.partial
    if "seed" in _parameters(criterion) and "seed" not in bound:
        return functools.partial(criterion, seed=seed)
    return criterion


def scores_of(criterion, model, start, data, names, *, variables=None):
    """Returns the scores of the weights `names`, checked.

    Returns:
        `Scores` of the weights `names`, in their order.

    Raises:
        ValueError: A weight has no scores, scores of another shape, or NaN.
    """
    if variables is None:
        variables = weights.by_name(model)
    # The default is computed while it is read, from TensorFlow's own memory:
    # all absolute values at once would be as large as the model.
    lazy = criterion is magnitude
    given = _scored(variables) if lazy else criterion(model, start, data)
    checked = {}
    for name in names:
        if name not in given:
            raise ValueError(
                f"The criterion gave no scores for {name!r}; it gave them for "
                f"{', '.join(map(repr, given)) or 'nothing'}."
            )
        array = _view(given[name]) if lazy else np.asarray(given[name])
        expected = tuple(variables[name].shape)
        if array.shape != expected:
            raise ValueError(
                f"The criterion gave {name!r} scores of shape {array.shape}; "
                f"the weight has {expected}."
            )
        # The maximum is NaN if any score is, and needs no array of answers.
        if array.size and np.isnan(array.max()):
            raise ValueError(
                f"The scores of {name!r} hold NaN: the weights or the data "
                "are not finite."
            )
        checked[name] = array
    return Scores(checked, np.abs if lazy else None)


def _scored(variables):
    """Returns the variables that criteria score, by name."""
    return {
        name: variable
        for name, variable in variables.items()
        if variable.trainable and keras.backend.is_float_dtype(variable.dtype)
    }


def _view(variable):
    """Returns the value, read only and on a CPU not copied.

    TensorFlow copies the memory before it writes to a variable that someone
    still looks at: the array stays as it is.
    """
    return np.asarray(tf.convert_to_tensor(variable.value))


def _with_start(model, start, score):
    if start is None:
        raise ValueError(
            "This criterion compares with the weights at the rewind point: "
            "pass `start={name: array}`, such as `ticket.start`."
        )
    now = weights.values(model)
    scores = {}
    for name, w in now.items():
        if name in start:
            w0 = np.asarray(start[name])
            if w0.shape != w.shape:
                raise ValueError(
                    f"`start[{name!r}]` has shape {w0.shape}; the weight has "
                    f"{w.shape}."
                )
            scores[name] = score(w, w0)
    return scores


def _parameters(function):
    try:
        return inspect.signature(function).parameters
    except ValueError:  # some builtins have no signature
        return {}
