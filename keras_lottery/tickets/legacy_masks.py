"""tfmot's wrappers and their masks: on legacy models, as a `Mask` and back."""

import numpy as np
import tensorflow as tf

from keras_lottery import tfmot_bridge
from keras_lottery.pruning import find
from keras_lottery.pruning import naming
from keras_lottery.pruning.mask import Mask
from keras_lottery.tfmot_bridge import PruningSchedule
from keras_lottery.tickets import legacy_mirror
from keras_lottery.training import agreement

tf_keras = tfmot_bridge.legacy_keras()
PruneLowMagnitude = tfmot_bridge.wrapper_class()


class Never(PruningSchedule):
    """A schedule that never fires: the masks are set from outside."""

    def __call__(self, step):
        del step
        return tf.constant(False), tf.constant(0.0)

    def get_config(self):
        """Returns the configuration, as tfmot's schedules do."""
        return {"class_name": "Never", "config": {}}


class TfmotMasks:
    """The masks that tfmot's wrappers hold, by the names of a mirror.

    Args:
        model: A `tf_keras` model with tfmot's wrappers.
        mirror: Its `Mirror`.
        names: Which weights; all that have a mask if None.

    Raises:
        ValueError: No layer of the model is wrapped.
    """

    def __init__(self, model, mirror, names=None):
        masks = {
            id(weight): mask
            for wrapper in wrappers(model)
            for weight, mask, _ in wrapper.pruning_vars
        }
        if not masks:
            raise ValueError(
                f"{model.name!r} has no layer wrapped by tfmot: wrap it with "
                "`lottery.prune` or tfmot's `prune_low_magnitude`."
            )
        self._model = model
        self.variables = {
            name: variable
            for name, variable, *_ in naming.walk(mirror)
            if id(variable.value) in masks and (names is None or name in names)
        }
        self._held = {
            name: (variable.value, masks[id(variable.value)])
            for name, variable in self.variables.items()
        }

    def settle(self, model, optimizer):
        """Raises a RunError where replicas do not hold the same."""
        del model, optimizer
        named = {n: weight for n, (weight, _) in self._held.items()}
        named |= {
            f"the mask of {name}": mask
            for name, (_, mask) in self._held.items()
        }
        agreement.check_same(self._model, named)

    @property
    def mask(self):
        """The `Mask` that holds now."""
        return Mask(
            {n: mask.numpy() != 0 for n, (_, mask) in self._held.items()}
        )

    def set(self, mask):
        """Makes `mask` hold; the weights follow."""
        for name, (_, variable) in self._held.items():
            variable.assign(mask[name].astype(variable.dtype.as_numpy_dtype))
        self.apply()

    def apply(self):
        """Zeroes removed weights: tfmot lets the last step move them."""
        for weight, mask in self._held.values():
            value = weight.numpy()
            weight.assign(
                np.where(mask.numpy() != 0, value, value.dtype.type())
            )


def wrappers(model):
    """Returns tfmot's wrappers in a model, nested ones too, each once."""
    return [m for m in model.submodules if isinstance(m, PruneLowMagnitude)]


def mask_of(model):
    """Returns the masks of a tfmot-wrapped model as a `Mask`.

    Args:
        model: A `tf_keras` model wrapped by tfmot or by `lottery.prune`.

    Raises:
        ValueError: No layer of the model is wrapped.
    """
    return TfmotMasks(model, legacy_mirror.reflect(model)).mask


def set_mask(model, mask):
    """Makes tfmot's wrappers hold a `Mask`, and zeroes the weights it removes.

    Args:
        model: A `tf_keras` model wrapped by tfmot or by `lottery.prune`.
        mask: A `Mask` of weights that have a wrapper.

    Raises:
        ValueError: The mask names weights that no wrapper holds.
    """
    mirror = legacy_mirror.reflect(model)
    held = TfmotMasks(model, mirror)
    find.check_fits(mirror, mask)
    missing = sorted(set(mask) - set(held.mask))
    if missing:
        raise ValueError(
            f"{model.name!r} has no tfmot wrapper around "
            f"{', '.join(missing)}: wrap those layers too."
        )
    TfmotMasks(model, mirror, list(mask)).set(mask)


def graph_layers(model):
    """Returns the layers that tfmot would wrap, those of nested models too.

    Raises:
        ValueError: A model, or one inside it, is subclassed.
    """
    if not legacy_mirror.in_graph(model):
        raise ValueError(
            f"{model.name!r} is a subclassed legacy model, and tfmot wraps "
            "only Sequential and Functional ones. Build it with "
            "tf_keras.Sequential or tf_keras.Model(inputs, outputs), or with "
            "Keras 3 (`import keras`), where subclasses can be pruned."
        )
    found = []
    for layer in model.layers:
        if isinstance(layer, tf_keras.Model):
            found.extend(graph_layers(layer))
        else:
            found.append(layer)
    return found


def accepted(layer):
    """Returns the variables of a layer that tfmot can mask."""
    if tfmot_bridge.knows(layer):
        return list(layer.weights)
    theirs = getattr(layer, "get_prunable_weights", None)  # tfmot's protocol
    return [] if theirs is None else list(theirs())


def wrap(model, schedules):
    """Returns the model with tfmot's wrapper around what is pruned.

    The layers themselves are shared with `model`, as with tfmot's own
    `prune_low_magnitude`; unlike there, layers that tfmot does not know are
    passed through.

    Args:
        model: A built Sequential or Functional `tf_keras` model.
        schedules: Dict from the id of a variable to its `PruningSchedule`.
    """
    wrapped, marked = {}, []

    def visit(layer):
        if id(layer) not in wrapped:
            if isinstance(layer, tf_keras.Model):
                clone = tf_keras.models.clone_model
                wrapped[id(layer)] = clone(layer, clone_function=visit)
            else:
                wrapped[id(layer)] = _wrapped(layer, schedules, marked)
        return wrapped[id(layer)]

    try:
        clone = tf_keras.models.clone_model(model, clone_function=visit)
        if not clone.built:
            clone.build(model.input_shape)
    finally:
        for layer in marked:
            del layer.get_prunable_weights
    return clone


def _wrapped(layer, schedules, marked):
    chosen = [v for v in layer.weights if id(v) in schedules]
    if not chosen:
        return layer
    found = {id(schedules[id(v)]): schedules[id(v)] for v in chosen}
    if len(found) > 1:
        raise ValueError(
            f"The weights of layer {layer.name!r} follow different schedules, "
            "and tfmot's wrapper takes one per layer. Use patterns that name "
            "whole layers, or schedules that count in levels."
        )
    if tfmot_bridge.knows(layer):
        # tfmot asks once, when the wrapper is built.
        layer.get_prunable_weights = lambda: chosen
        marked.append(layer)
    # Without its policy a float32 layer in a mixed-precision model cannot run.
    return PruneLowMagnitude(
        layer,
        pruning_schedule=next(iter(found.values())),
        dtype=layer.dtype_policy,
    )
