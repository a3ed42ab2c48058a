"""Masks that hold: pruned weights are exactly zero after every step.

Three things together (a constraint alone is inexact under clipping and leaves
non-zeros under moving averages):

1. gradients of pruned weights are zeroed before the optimizer sees them;
2. at every mask change the pruned entries of the optimizer's slots go back to
   the value they had when built, so that old momentum moves nothing;
3. a constraint on the variable is the net for optimizers that move a weight
   whose gradient is zero (Muon, ScheduleFreeAdamW) and for foreign code.

With these, every Keras optimizer but Adafactor and Muon trains the kept weights
exactly as a network that owns nothing else. Those two look at whole matrices;
for them the zeros hold, and no more is defined.
"""

import contextlib
import functools
import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.errors import InexactMaskWarning
from keras_lottery.pruning.mask import Mask
from keras_lottery.training import agreement
from keras_lottery.training import keras_private
from keras_lottery.training import shares


class MaskConstraint(keras.constraints.Constraint):
    """Zeroes what the mask removes, before and after the user's constraint.

    Before as well: a norm is that of the kept weights, even where an optimizer
    has moved removed ones (Muon), or foreign code has.
    """

    def __init__(self, mask, then=None):
        self.mask = mask
        self.then = then

    def __call__(self, weight):
        weight = zeroed(tf.convert_to_tensor(weight), self.mask)
        if self.then is None:
            return weight
        return zeroed(tf.convert_to_tensor(self.then(weight)), self.mask)


def zeroed(tensor, mask):
    """Returns `tensor` with removed entries at zero.

    A choice, not a product: a product keeps infinities as NaN. `tf.where` takes
    three times as long on a CPU, as it looks for shapes to broadcast.
    """
    return tf.raw_ops.Select(
        condition=mask.value, x=tensor, y=tf.zeros_like(tensor)
    )


def zeroed_gradient(gradient, mask):
    """Returns a gradient, dense or by rows, with removed entries at zero."""
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        rows = tf.gather(mask.value, gradient.indices)
        values = gradient.values
        return tf.IndexedSlices(
            tf.where(rows, values, tf.zeros((), values.dtype)),
            gradient.indices,
            gradient.dense_shape,
        )
    return zeroed(gradient, mask)


class Attachment:
    """The masks of a model's weights, and what holds them.

    A compiled training function keeps the mask variables it was traced with.
    So they outlive `release`, keeping everything, and serve the next
    `activate` together with that function: see `enforce.py`.

    Args:
        variables: Dict from name to the weight's `keras.Variable`.
        masks: Dict from the same names to bool variables.
    """

    def __init__(self, variables, masks):
        self.variables = dict(variables)
        self.masks = dict(masks)
        self.active = False
        self._optimizers = []

    def activate(self):
        """Sets the constraints."""
        self.active = True
        for name, variable in self.variables.items():
            variable.constraint = MaskConstraint(
                self.masks[name], variable.constraint
            )

    def release(self):
        """Lets go of weights and optimizers; the zeros stay where they are."""
        self.active = False
        for optimizer in self._optimizers:
            optimizer.__dict__.pop("apply", None)
            shares.sum_again(optimizer)
        self._optimizers = []
        for name, variable in self.variables.items():
            variable.constraint = variable.constraint.then
            self.masks[name].assign(np.ones(variable.shape, bool))

    @property
    def mask(self):
        """The `Mask` that holds now."""
        return Mask({n: m.numpy().astype(bool) for n, m in self.masks.items()})

    def set(self, mask):
        """Makes `mask` hold: weights, and slots of the optimizers, follow.

        Of several workers, all hold the mask of the first.
        """
        arrays = [mask[name] for name in self.masks]
        arrays = agreement.first(self.masks.values(), arrays)
        for variable, array in zip(self.masks.values(), arrays, strict=True):
            variable.assign(array)
        self.apply()

    def settle(self, model, optimizer):
        """Makes replicas agree, and raises a RunError where they do not."""
        agreement.settle(model, optimizer, self.masks)

    def apply(self):
        """Zeroes removed weights and resets their entries in the slots."""
        for name, variable in self.variables.items():
            variable.assign(zeroed(variable.value, self.masks[name]))
        for optimizer in self._optimizers:
            if optimizer.built:
                _reset_slots(optimizer, self.variables, self.masks)

    def hold(self, optimizer):
        """Lets `optimizer` see masked gradients only, from now on.

        The method is replaced on the instance: class, configuration and
        identity of the optimizer stay what they are.
        """
        if self.holds(optimizer):
            return
        _mask_gradients(optimizer, self.variables, self.masks)
        self._optimizers.append(optimizer)
        self.apply()

    def holds(self, optimizer):
        """Returns whether `optimizer` sees masked gradients only."""
        return any(each is optimizer for each in self._optimizers)

    def warn_if_bypassed(self, optimizer):
        """Warns if `optimizer` trained unheld and that makes a difference."""
        if optimizer is None or self.holds(optimizer):
            return
        causes = sorted(set(_causes_of_inexactness(optimizer)))
        if causes:
            warnings.warn(
                f"The optimizer {optimizer.name!r} was compiled after the "
                "masks were attached and saw unmasked gradients. Zeros hold, "
                f"but with {', '.join(causes)} the kept weights train "
                "differently from the sub-network's. Compile before, or use "
                "`lottery.masked_gradients`.",
                InexactMaskWarning,
                stacklevel=3,
            )

    def warn_of_leaks(self, optimizer=None):
        """Warns if removed weights are not zero: something moved them.

        Not if `optimizer` trained unheld: `warn_if_bypassed` tells of that.
        Nor of what is not finite: then training has diverged.
        """
        if optimizer is not None and not self.holds(optimizer):
            return
        moved = {
            name: _moved(variable.numpy()[~mask])
            for name, variable in self.variables.items()
            for mask in [self.masks[name].numpy().astype(bool)]
        }
        moved = [f"{name} ({count})" for name, count in moved.items() if count]
        if moved:
            warnings.warn(
                "Removed weights were not zero any more when the mask was let "
                f"go: {', '.join(moved)}. A `tf.function` that was traced "
                "before the mask was attached knows nothing of it, and neither "
                "does code that assigns weights. Attach first, or train with "
                "a new function.",
                InexactMaskWarning,
                stacklevel=3,
            )


@contextlib.contextmanager
def updated_by(optimizer, update):
    """Has `update` apply gradients instead of the optimizer's class.

    Masked first, if masks hold. A function that is traced meanwhile keeps it.

    Args:
        optimizer: A built Keras optimizer.
        update: Function `(optimizer, gradients, variables)`.
    """
    masked = getattr(vars(optimizer).get("apply"), "by", None)
    if masked is not None:
        masked.append(update)
        try:
            yield
        finally:
            masked.pop()
        return
    optimizer.apply = functools.partial(update, optimizer)
    try:
        with shares.summing(optimizer):
            yield
    finally:
        del optimizer.apply


def _mask_gradients(optimizer, variables, masks):
    by_key = {
        keras_private.key(optimizer, variable): masks[name]
        for name, variable in variables.items()
    }
    shares.stop_summing(optimizer)
    by = [shares.apply]

    def masked_apply(grads, trainable_variables=None):
        if trainable_variables is None:
            trained = keras_private.trained_by(optimizer)
        else:
            trained = trainable_variables = list(trainable_variables)
        found = [by_key.get(keras_private.key(optimizer, v)) for v in trained]
        grads = [
            g if mask is None else zeroed_gradient(g, mask)
            for g, mask in zip(grads, found, strict=True)
        ]
        by[-1](optimizer, grads, trainable_variables)
        _zero_averages(optimizer, by_key)

    masked_apply.by = by
    optimizer.apply = masked_apply


def _zero_averages(optimizer, by_key):
    """Zeroes moving averages, and weights they may have overwritten.

    The average of zeros is zero; of Muon's and ScheduleFreeAdamW's updates,
    which the constraint takes back after the average has seen them, it is not.
    """
    for leaf in keras_private.leaves(optimizer):
        for variable, average in keras_private.averages(leaf):
            mask = by_key.get(keras_private.key(optimizer, variable))
            if mask is not None:
                average.assign(zeroed(tf.convert_to_tensor(average), mask))
                variable.assign(zeroed(tf.convert_to_tensor(variable), mask))


def _reset_slots(optimizer, variables, masks):
    for leaf in keras_private.leaves(optimizer):
        names = {
            keras_private.key(leaf, variable): name
            for name, variable in variables.items()
        }
        built = keras_private.built_values(leaf)
        for where, index, variable, slot in keras_private.slots(leaf):
            name = names.get(keras_private.key(leaf, variable))
            if name is not None:
                value = tf.convert_to_tensor(slot)
                first = tf.cast(built[where, index], value.dtype)
                slot.assign(tf.where(masks[name].value, value, first))


def _moved(removed):
    """Returns how many removed weights are finite and not zero."""
    removed = np.asarray(removed, np.float64)
    return np.count_nonzero(removed[np.isfinite(removed)])


def _causes_of_inexactness(optimizer):
    for leaf in keras_private.leaves(optimizer):
        if leaf.clipnorm is not None:
            yield "clipnorm"
        if leaf.global_clipnorm is not None:
            yield "global_clipnorm"
        if leaf.use_ema:
            yield "use_ema"
        if type(leaf).__name__ in ("Lamb", "Adafactor", "Muon"):
            yield type(leaf).__name__
