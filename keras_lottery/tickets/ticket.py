"""The ticket: a mask, where it started and where training took it."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from keras_lottery.environment import is_legacy
from keras_lottery.errors import TicketError
from keras_lottery.printable import printable
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.tickets import model_config
from keras_lottery.training import state

_SHOWN = 200  # differences in one error: a stranger's ticket has any number


@dataclasses.dataclass(frozen=True, eq=False)
class Ticket:
    """What a level of a lottery found. A frozen value.

    Fields:
        mask: Which weights are kept.
        start: Dict from name to the weights at the rewind point, whole.
        start_state: Dict from name to every other variable there.
        end: Dict from name to the kept weights after training, in C order;
            empty for a ticket that was not trained (a control).
        end_state: Dict from name to every other variable after training.
        level: Number of prunings.
        metrics: Dict of floats; `early_step` is the iteration of minimum
            validation loss, `val_*` are the logs there, `last_*` at the end.
        provenance: Dict of seeds, versions and choices.
        model_config: The model's Keras config, or None if it has none.

    Example:

    >>> import keras_lottery as lottery
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> ticket = capture(model, Mask.full(weights.prunable(model)))
    >>> ticket.density
    1.0
    """

    mask: Mask
    start: Mapping
    start_state: Mapping
    end: Mapping = dataclasses.field(default_factory=dict)
    end_state: Mapping = dataclasses.field(default_factory=dict)
    level: int = 0
    metrics: Mapping = dataclasses.field(default_factory=dict)
    provenance: Mapping = dataclasses.field(default_factory=dict)
    model_config: Mapping | None = None

    def __repr__(self):
        accuracy = self.metrics.get("val_accuracy")
        known = isinstance(accuracy, (int, float, np.floating))
        shown = f", val_accuracy {accuracy:.4f}" if known else ""
        return (
            f"<Ticket of level {self.level}: {self.mask.kept:,} of "
            f"{self.mask.size:,} weights, density {self.density:.4f}{shown}>"
        )

    @property
    def density(self):
        """Fraction of the prunable weights kept."""
        return self.mask.density

    @property
    def sparsity(self):
        """Fraction of the prunable weights removed."""
        return self.mask.sparsity

    def weights(self, which="end"):
        """Returns the masked weights, whole, zeros included.

        Args:
            which: `"start"` or `"end"`.

        Returns:
            Dict from name to array.

        Raises:
            TicketError: The end of a ticket that was not trained.
        """
        _check_which(which)
        if which == "start":
            return {
                name: np.where(self.mask[name], value, np.zeros_like(value))
                for name, value in self.start.items()
            }
        if not self.end:
            raise TicketError(
                "This ticket was not trained, so it has no end: use 'start'."
            )
        return {name: self._whole(name) for name in self.mask}

    def restore(self, model, which="end"):
        """Writes the ticket into a model: masked weights and other state.

        The zeros are not held by this: train inside
        `lottery.masked(model, ticket.mask)`.

        Args:
            model: A built model with the same weights by name and shape, or a
                `PrunedModel`, whose masks follow; legacy (tf_keras) models
                too, plain or wrapped by tfmot.
            which: `"start"` (to train it) or `"end"` (as trained).

        Returns:
            The model.

        Raises:
            TicketError: The model's weights differ; all that do are named.

        Example:

        >>> def build():
        ...     return keras.Sequential(
        ...         [keras.Input((4,)), keras.layers.Dense(2)]
        ...     )
        >>> model = build()
        >>> ticket = capture(model, Mask.full(weights.prunable(model)))
        >>> other = ticket.restore(build(), "start")
        >>> bool((other.get_weights()[0] == model.get_weights()[0]).all())
        True
        """
        adopt = getattr(model, "adopt_mask", None)  # a PrunedModel
        if adopt is None and is_legacy(model):
            from keras_lottery.tickets import legacy

            return legacy.restore(self, model, which)
        values = self.weights(which)
        others = self.start_state if which == "start" else self.end_state
        target = model if adopt is None else model.inner
        check_fits({**values, **others}, target)
        if adopt is not None:
            adopt(self.mask, self.level)
        state.restore_model({**values, **others}, target)
        return model

    def save(self, path):
        """Writes the ticket to a file, whole or not at all.

        Args:
            path: File to write; `.safetensors` by convention.
        """
        from keras_lottery.tickets import ticket_file

        ticket_file.write(self, path)

    @staticmethod
    def load(path):
        """Returns the ticket in a file.

        Raises:
            TicketError: Not a ticket, damaged, or of an unknown format.
        """
        from keras_lottery.tickets import ticket_file

        return ticket_file.read(path)

    def _whole(self, name):
        mask = self.mask[name]
        whole = np.zeros(mask.shape, np.asarray(self.start[name]).dtype)
        whole[mask] = self.end[name]
        return whole


def capture(model, mask, **fields):
    """Returns a ticket of the model as it is: its weights are the start.

    Args:
        model: A built `keras.Model`.
        mask: A `Mask` of some of its weights.
        **fields: Other fields of the `Ticket`.
    """
    start, others = parted(state.snapshot(model).model, mask)
    fields.setdefault("model_config", config_of(model))
    return Ticket(mask, start, others, **fields)


def parted(values, mask):
    """Returns (values of the mask's weights, values of all others)."""
    inside = {name: values[name] for name in mask}
    outside = {n: v for n, v in values.items() if n not in mask}
    return inside, outside


def ended(model, mask):
    """Returns `end` and `end_state` of a model that has been trained."""
    whole, others = parted(state.snapshot(model).model, mask)
    return {
        n: np.ascontiguousarray(w[mask[n]]) for n, w in whole.items()
    }, others


def config_of(model):
    """Returns the model's Keras config, or None if it does not serialise.

    Without how it was compiled: a ticket is of the network.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
    except (NotImplementedError, TypeError, ValueError):
        return None
    return {k: v for k, v in config.items() if k != "compile_config"}


def rebuild(ticket):
    """Returns a new model from the config that a ticket carries.

    No code of the ticket's author runs, and no file is read.

    Raises:
        TicketError: It carries none, it names what is never built from a file,
            Keras cannot read it, or its weights are not those of the ticket.
    """
    if ticket.model_config is None:
        raise TicketError(
            "The ticket's model has no Keras config: build the model yourself "
            "and pass it, or give its class a `get_config`."
        )
    expected = {**ticket.start, **ticket.start_state}
    try:
        return model_config.build(
            ticket.model_config,
            list(expected.values()),
            lambda model: check_fits(expected, model),
        )
    except TicketError:
        raise
    except Exception as error:
        raise TicketError(
            f"Keras cannot build the ticket's model: {str(error)[:2000]} "
            "Register its classes with "
            "keras.saving.register_keras_serializable, or pass the model."
        ) from error


def check_fits(values, model):
    """Raises a TicketError unless names and shapes are those of `model`."""
    shapes = {n: tuple(v.shape) for n, v in weights.by_name(model).items()}
    given = {name: np.shape(value) for name, value in values.items()}
    differing = [
        f"{name}: ticket {given.get(name, 'none')}, "
        f"model {shapes.get(name, 'none')}"
        for name in sorted(set(given) | set(shapes))
        if given.get(name) != shapes.get(name)
    ]
    if differing:
        shown = [*differing[:_SHOWN], *["..."] * (len(differing) > _SHOWN)]
        raise TicketError(
            f"The ticket is not for {model.name!r}:\n  "
            + printable("\n  ".join(each[:200] for each in shown))
        )


def _check_which(which):
    if which not in ("start", "end"):
        raise ValueError(f"Expected 'start' or 'end', got {which!r}.")
