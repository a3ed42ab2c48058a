"""What can be exported: tickets, pruned models, models pruned elsewhere."""

import contextlib
import sys

import keras

from keras_lottery import environment
from keras_lottery.exporting import network as networks
from keras_lottery.tickets import ticket as tickets
from keras_lottery.tickets.pruned_model import PrunedModel
from keras_lottery.tickets.ticket import Ticket
from keras_lottery.training import state


@contextlib.contextmanager
def as_trained(model_or_ticket, model=None):
    """Yields the model to export; one that is lent is given back as it was.

    Args:
        model_or_ticket: A `Ticket`, a `PrunedModel`, a Keras 3 model, or a
            tf_keras model, wrapped by tfmot or not.
        model: The model that a ticket is written into; made from the ticket's
            config if None.

    Raises:
        ValueError: Something else, a model that is not built, or `model`
            without a ticket.
        TicketError: The ticket was not trained, or does not fit.
    """
    if isinstance(model_or_ticket, Ticket):
        with _lent(model_or_ticket, model) as ready:
            yield ready
        return
    inner = model_or_ticket
    if isinstance(inner, PrunedModel):
        inner = inner.inner
    if not isinstance(inner, keras.Model) and not _is_legacy_model(inner):
        raise ValueError(
            "Expected a Ticket, a PrunedModel, a keras.Model or a tf_keras "
            f"model, got {type(model_or_ticket).__name__}."
        )
    if model is not None:
        raise ValueError(
            "`model` is what a ticket is written into, and "
            f"{type(model_or_ticket).__name__} is no ticket. Leave it out."
        )
    yield inner


def check(model):
    """Raises unless a model can be exported.

    Raises:
        ValueError: It is not built, or a weight is not finite.
    """
    if not model.built:
        raise ValueError(f"{model.name!r} is not built: call it once first.")
    name = networks.first_not_finite(networks.of(model))
    if name is not None:
        raise ValueError(f"{name!r} is not finite: nothing was exported.")


def origin(model_or_ticket):
    """Returns {"ticket": a `Ticket` or None, "mask": a `Mask` or None}."""
    if isinstance(model_or_ticket, Ticket):
        return {"ticket": model_or_ticket, "mask": None}
    return {"ticket": None, "mask": getattr(model_or_ticket, "mask", None)}


@contextlib.contextmanager
def _lent(ticket, model):
    if model is None:
        yield ticket.restore(tickets.rebuild(ticket), "end")
        return
    target, seen = _seen(model)
    before = state.snapshot(seen).model
    try:
        ticket.restore(seen, "end")
        yield target
    finally:
        state.restore_model(before, seen)


def _seen(model):
    """Returns the model to export, and how a ticket sees its weights."""
    if not _is_legacy_model(model):
        inner = model.inner if isinstance(model, PrunedModel) else model
        return inner, inner
    from keras_lottery import tfmot_bridge
    from keras_lottery.tickets import legacy_masks
    from keras_lottery.tickets import legacy_mirror

    if legacy_masks.wrappers(model):  # the ticket brings its own mask
        model = tfmot_bridge.strip_pruning(model)
    return model, legacy_mirror.reflect(model)


def _is_legacy_model(model):
    return environment.is_legacy(model) and isinstance(
        model, sys.modules["tf_keras"].Model
    )
