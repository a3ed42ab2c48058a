"""Controls: the ablations that make a ticket believable.

A control is a function `(ticket, model, seed) -> Ticket`. The result was not
trained: restore it with `"start"`, train it as the ticket was, and compare.
"""

import dataclasses
import zlib

import numpy as np

from keras_lottery import choices
from keras_lottery import seeds
from keras_lottery.pruning import initializers
from keras_lottery.pruning.mask import Mask


def reinitialize(ticket, model, seed):
    """Keeps the mask, draws new weights from each layer's own initializer.

    Args:
        ticket: The `Ticket` to question.
        model: The model it is for; it is not changed.
        seed: An int; equal seeds give equal controls.

    Returns:
        An untrained `Ticket`.

    Example:

    >>> import keras, keras_lottery as lottery
    >>> from keras_lottery.tickets.ticket import capture
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> ticket = capture(model, lottery.find_mask(model, sparsity=0.5))
    >>> control = reinitialize(ticket, model, seed=1)
    >>> control.mask == ticket.mask
    True
    >>> bool((control.start["dense/kernel"] == model.get_weights()[0]).any())
    False

    Reference: Frankle & Carbin (2019), section 2, random reinitialization.
    """
    drawn = initializers.draw(model, seeds.stream(seed, "controls"))
    start = {**ticket.start, **_inside(drawn, ticket.start)}
    others = {**ticket.start_state, **_inside(drawn, ticket.start_state)}
    return _untrained(ticket, "reinitialize", seed, start=start, state=others)


def reinitialize_signed(ticket, model, seed):
    """Draws new weights as `reinitialize` does, with the signs of the start.

    Reference: Zhou et al. (2019), section 4.
    """
    fresh = reinitialize(ticket, model, seed)
    signed = {
        name: np.copysign(np.abs(value), ticket.start[name]).astype(value.dtype)
        for name, value in fresh.start.items()
    }
    return _untrained(
        ticket,
        "reinitialize_signed",
        seed,
        start=signed,
        state=fresh.start_state,
    )


def shuffle(ticket, model, seed):
    """Keeps the number of weights per layer, moves them to random places.

    Reference: Frankle & Carbin (2019), appendix E, random sparsity.
    """
    del model
    shuffled = {}
    for name in ticket.mask:
        flat = ticket.mask[name].ravel()
        shuffled[name] = (
            _generator(seed, name)
            .permutation(flat)
            .reshape(ticket.mask.shapes[name])
        )
    return _untrained(ticket, "shuffle", seed, mask=Mask(shuffled))


def randomize(ticket, model, seed):
    """Keeps the number of weights in all, moves them to random places.

    Layers come out near the same density, whatever the ticket's were.

    Reference: Frankle et al. (2020), section 3, random pruning.
    """
    del model
    sizes = ticket.mask.sizes
    flat = np.zeros(ticket.mask.size, bool)
    flat[: ticket.mask.kept] = True
    flat = _generator(seed, "").permutation(flat)
    parts = np.split(flat, np.cumsum(list(sizes.values()))[:-1])
    arrays = {
        name: part.reshape(ticket.mask.shapes[name])
        for name, part in zip(sizes, parts, strict=True)
    }
    return _untrained(ticket, "randomize", seed, mask=Mask(arrays))


CONTROLS = {
    "reinitialize": reinitialize,
    "reinitialize_signed": reinitialize_signed,
    "shuffle": shuffle,
    "randomize": randomize,
}

# What a run calls the arm that trains a control.
ARMS = {
    "reinitialize": "reinitialized",
    "reinitialize_signed": "reinitialized_signed",
    "shuffle": "shuffled",
    "randomize": "random",
}


def get(identifier):
    """Returns the control called `identifier`, or a callable as it is.

    Example:

    >>> get("shuffle") is shuffle
    True
    """
    return choices.resolve(
        "control",
        identifier,
        CONTROLS,
        "a function (ticket, model, seed) -> Ticket",
    )


def _untrained(ticket, control, seed, *, mask=None, start=None, state=None):
    return dataclasses.replace(
        ticket,
        mask=ticket.mask if mask is None else mask,
        start=ticket.start if start is None else start,
        start_state=ticket.start_state if state is None else state,
        end={},
        end_state={},
        metrics={},
        provenance={
            **ticket.provenance,
            "control": control,
            "control_seed": seed,
        },
    )


def _inside(values, names):
    return {name: value for name, value in values.items() if name in names}


def _generator(seed, name):
    role = seeds.stream(seed, "controls")
    entropy = np.random.SeedSequence([role, zlib.crc32(name.encode())])
    return np.random.default_rng(entropy)
