"""The only file that imports tfmot or tf_keras.

Importing tfmot sets `TF_USE_LEGACY_KERAS=1` for the whole process, which turns
the next `tf.keras` into Keras 2. Here `tf.keras` is resolved first and the
variable is put back, so that a user's `tf.keras` stays what it was.
"""

import os

import tensorflow as tf


def _import_tfmot():
    variable = "TF_USE_LEGACY_KERAS"
    before = os.environ.get(variable)
    tf.keras.Model  # noqa: B018  resolves the lazy module for good
    try:
        import tensorflow_model_optimization as tfmot
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before
    return tfmot


tfmot = _import_tfmot()
ConstantSparsity = tfmot.sparsity.keras.ConstantSparsity
PolynomialDecay = tfmot.sparsity.keras.PolynomialDecay
PruningSchedule = tfmot.sparsity.keras.PruningSchedule
UpdatePruningStep = tfmot.sparsity.keras.UpdatePruningStep
strip_pruning = tfmot.sparsity.keras.strip_pruning


def legacy_keras():
    """Returns the `tf_keras` module, which tfmot is made for."""
    import tf_keras

    return tf_keras


def wrapper_class():
    """Returns tfmot's `PruneLowMagnitude`, which has no public name."""
    from tensorflow_model_optimization.python.core.sparsity.keras import (
        pruning_wrapper,
    )

    return pruning_wrapper.PruneLowMagnitude


def knows(layer):
    """Returns whether tfmot has this class of layer in its registry."""
    from tensorflow_model_optimization.python.core.sparsity.keras import (
        prune_registry,
    )

    return prune_registry.PruneRegistry.supports(layer)
