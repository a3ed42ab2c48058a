"""The variables that a `PrunedModel` adds to those of the wrapped model."""

from keras_lottery.pruning import weights
from keras_lottery.training import enforce
from keras_lottery.training import holding


def scalar(pruned, name):
    """Returns a new int variable of a `PrunedModel`, 0."""
    return pruned.add_weight(
        shape=(),
        dtype="int32",
        trainable=False,
        name=name,
        initializer="zeros",
        aggregation="only_first_replica",
    )


def attached(pruned):
    """Returns the `Attachment` of new masks, which keep everything.

    Args:
        pruned: A `PrunedModel` that has its model and its settings.
    """
    named = weights.by_name(pruned.inner)
    variables = {n: named[n] for n in pruned.settings.governed_names}
    masks = {
        name: pruned.add_weight(
            shape=variable.shape,
            dtype="bool",
            initializer="ones",
            trainable=False,
            name=name.replace("/", ".") + ".mask",
            autocast=False,
            aggregation="only_first_replica",
        )
        for name, variable in variables.items()
    }
    return enforce.adopt(pruned.inner, holding.Attachment(variables, masks))
