"""Lotteries with legacy (tf_keras) models, through tfmot's own wrappers.

The algorithm is that of `tickets/search.py`: a mirror stands for the model and
a view for its optimizer, so that names, counts, rewinds and tickets come from
the same code as with Keras 3.
"""

import functools
import warnings

from keras_lottery import tfmot_bridge
from keras_lottery.pruning import groups
from keras_lottery.pruning import schedules
from keras_lottery.pruning import weights
from keras_lottery.tickets import legacy_masks
from keras_lottery.tickets import legacy_mirror
from keras_lottery.tickets import settings
from keras_lottery.tickets import winning
from keras_lottery.tickets.legacy_player import Player

tf_keras = tfmot_bridge.legacy_keras()

# `lottery.legacy.mask_of(model)`: what a user of tfmot needs from this folder.
mask_of, set_mask = legacy_masks.mask_of, legacy_masks.set_mask


def prune(model, schedule=None, *, layers=None, **choices):
    """Wraps a legacy model so that `fit` finds lottery tickets in it.

    Args:
        model: A built `tf_keras` model, Sequential or Functional.
        schedule: As in `lottery.prune`. tfmot's own schedules prune as tfmot
            does: by magnitude, each layer for itself.
        layers: As in `lottery.prune`; layers are those of `model`.
        **choices: The others of `lottery.prune`.

    Returns:
        The model with tfmot's `PruneLowMagnitude` around its layers, which
        share their weights with `model`: a `tf_keras` model of the same kind
        that is also a `LegacyPruned`.

    Raises:
        ValueError: Subclassed, wrapped already, or nothing to prune.
    """
    if legacy_masks.wrappers(model):
        raise ValueError(
            f"{model.name!r} has tfmot's wrappers already: prune its "
            "`strip()`, or tfmot's `strip_pruning(model)`."
        )
    graph = legacy_masks.graph_layers(model)
    mirror = legacy_mirror.reflect(model, choices["seed"])
    names, refused = _split(graph, mirror, layers)
    schedule = schedules.IterativePruning() if schedule is None else schedule
    chosen = settings.Settings(groups.check(schedule), names, **choices)
    chosen.check(mirror)
    if not chosen.in_levels:
        _check_as_tfmot(chosen)
    wrapped = legacy_masks.wrap(model, _schedules(chosen, mirror))
    wrapped.__class__ = _pruned_class(type(wrapped))
    wrapped.__dict__["_player"] = Player(wrapped, mirror, chosen, refused)
    return wrapped


def restore(ticket, model, which="end"):
    """Writes a ticket into a legacy model, plain or wrapped.

    Args:
        ticket: A `Ticket` of the same network, of legacy Keras or of Keras 3.
        model: A built `tf_keras` model; the masks of a pruned one follow.
        which: `"start"` or `"end"`, as in `Ticket.restore`.

    Returns:
        The model.

    Raises:
        TicketError: The model's weights differ; all that do are named.
    """
    if isinstance(model, LegacyPruned):
        return ticket.restore(model, which)
    ticket.restore(legacy_mirror.reflect(model), which)
    if legacy_masks.wrappers(model):
        legacy_masks.set_mask(model, ticket.mask)
    return model


class LegacyPruned:
    """What `lottery.prune` adds to a legacy model that tfmot has wrapped.

    Attributes:
        inner: The `Mirror` of the model, which names its weights.
    """

    def __init__(self):
        # Its signature tells tf_keras to clone this as a plain model.
        raise TypeError("Made by `lottery.prune(tf_keras_model, ...)`.")

    @property
    def inner(self):
        """The `Mirror` of the model."""
        return self._player.inner

    @property
    def tickets(self):
        """The tickets found so far, level 0 first."""
        return tuple(self._player.played.tickets)

    @property
    def mask(self):
        """The `Mask` that tfmot's wrappers hold now."""
        return self._player.mask

    @property
    def level(self):
        """Number of prunings so far; 0 is dense."""
        return self._player.level

    def adopt_mask(self, mask, level):
        """Makes another mask hold, as of a level; nothing is rewound.

        Raises:
            ValueError: The mask is of other weights.
        """
        self._player.adopt_mask(mask, level)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        **more,
    ):
        """Plays the lottery: a complete training per level.

        As `PrunedModel.fit`. tfmot's `UpdatePruningStep` is added. With a
        schedule that prunes in place it is one training, tfmot's own.

        Returns:
            A `History`; over levels it has columns `level` and `sparsity`.
        """
        player = self._player
        play = player.play if player.settings.in_levels else player.as_tfmot
        return play(
            super().fit,
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            **more,
        )

    def winning_ticket(self, tolerance=0.0, metric=None, mode=None):
        """Returns the sparsest ticket as good as the dense network.

        As `PrunedModel.winning_ticket`.
        """
        return winning.choose(self.tickets, tolerance, metric, mode)

    def strip(self):
        """Returns the model without tfmot's wrappers, zeros in place."""
        self._player.attachment.apply()
        return tfmot_bridge.strip_pruning(self)

    def summary(self, *args, print_fn=None, **kwargs):
        """Prints the summary of tf_keras, what is pruned, what not and why."""
        super().summary(*args, print_fn=print_fn, **kwargs)
        mask = self.mask
        lines = [f"Level {self.level}, {mask!r}"]
        for name, size in mask.sizes.items():
            lines.append(f"  {name}: {mask.kept_by_name[name]:,} of {size:,}")
        for name, why in self._player.left_alone().items():
            lines.append(f"  {name}: not pruned, {why}")
        (print_fn or print)("\n".join(lines))


def _split(graph, mirror, layers):
    """Returns (names to prune, why tfmot refuses others), and warns of those.

    Raises:
        ValueError: Nothing is left to prune.
    """
    taken = {id(v) for layer in graph for v in legacy_masks.accepted(layer)}
    found = weights.prunable(mirror, _mirrored(mirror, layers))
    names = [name for name, v in found.items() if id(v.value) in taken]
    refused = {
        name: "its layer is unknown to tfmot"
        for name in found
        if name not in names
    }
    message = (
        f"tfmot does not know the layers of {', '.join(refused)}: these are "
        "not pruned. Give the layer a method `get_prunable_weights`, which "
        "returns its kernels, or build the model with Keras 3."
    )
    if not names:
        raise ValueError(message)
    if refused:
        warnings.warn(message, stacklevel=4)
    return names, refused


def _mirrored(mirror, layers):
    """Returns `layers` with the mirrors of the legacy layers in it."""
    if layers is None or isinstance(layers, str):
        return layers
    inside = [mirror, *mirror._flatten_layers()]
    by_id = {id(each.legacy()): each for each in inside}
    if not isinstance(layers, (list, tuple, set)):
        layers = [layers]
    mirrored = []
    for entry in layers:
        known = by_id.get(id(entry), entry)
        if isinstance(known, tf_keras.layers.Layer):
            raise ValueError(
                f"layers= names layer {entry.name!r}, which is not in the "
                "model."
            )
        mirrored.append(known)
    return mirrored


def _schedules(chosen, mirror):
    """Returns the schedule of tfmot's wrapper by the id of each variable."""
    never = legacy_masks.Never()
    named = weights.by_name(mirror)
    return {
        id(named[name].value): (
            never if chosen.in_levels else chosen.grouped[pattern]
        )
        for pattern, names in chosen.governed.items()
        for name in names
    }


def _check_as_tfmot(chosen):
    if chosen.criterion != "magnitude" or chosen.allocation not in (
        "global",
        "layerwise",
    ):
        raise ValueError(
            "tfmot's own schedules prune legacy models as tfmot does, by "
            "magnitude and each layer for itself; got criterion="
            f"{chosen.criterion!r}, allocation={chosen.allocation!r}. Use a "
            "schedule that counts in levels, or a Keras 3 model."
        )


@functools.cache
def _pruned_class(kind):
    """Returns the class of a wrapped model: its own with ours before it.

    Under the same name, which is what tf_keras saves and looks for.
    """
    return type(kind.__name__, (LegacyPruned, kind), {"__module__": __name__})
