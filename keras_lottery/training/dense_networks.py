"""Which networks are dense: what is chosen for them is not for others."""

import keras

_DENSE = (
    keras.layers.Dense,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.PReLU,
)


def is_dense(model):
    """Returns whether all layers of a model that have weights are dense."""
    layers = {id(each): each for each in model._flatten_layers()}.values()
    return all(
        isinstance(layer, _DENSE)
        for layer in layers
        if not layer._layers and layer.weights
    )
