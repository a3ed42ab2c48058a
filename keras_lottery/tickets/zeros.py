"""What of a model is exactly zero, whoever made it so."""

import keras

from keras_lottery.environment import is_legacy
from keras_lottery.pruning import naming
from keras_lottery.pruning import weights
from keras_lottery.pruning.mask import Mask
from keras_lottery.training import enforce

_PACKED = ("int4", "gptq", "awq")


def sparsity(model, layers=None):
    """Returns which fraction of the kernels is exactly zero.

    `zeros / size`, over the kernels that `lottery.prune` would prune if all
    were trained: frozen ones, those under LoRA adapters and int8 ones count.
    Of a pruned model, or one with an attached mask, over the weights of the
    mask. `lottery.prune(...).summary()` has it by layer.

    Args:
        model: A built Keras 3 model or layer, a `PrunedModel`, or a legacy
            (tf_keras) model, plain or wrapped by tfmot.
        layers: None, or a list of layers and name patterns, as in
            `lottery.prune`: then over what that would prune.

    Returns:
        A float in [0, 1].

    Raises:
        ValueError: Not built, no kernels, or kernels of 4 bits, which are
            packed: ask before `quantize`.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.layers[0].set_weights([np.eye(4, 2), np.zeros(2)])
    >>> sparsity(model)
    0.75

    Reference: Frankle & Carbin (2019), section 1: P_m is 1 minus this.
    """
    mask = nonzero(_weights_of(model, layers, _kernels))
    return (mask.size - mask.kept) / mask.size


def nonzero_mask(model, layers=None):
    """Returns the mask that keeps what is not exactly zero.

    Args:
        model: As in `lottery.sparsity`.
        layers: As in `lottery.sparsity`.

    Returns:
        A `Mask` of the prunable weights.

    Raises:
        ValueError: Not built, or nothing that could be pruned.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model.layers[0].set_weights([np.eye(4, 2), np.zeros(2)])
    >>> nonzero_mask(model).kept
    2
    """
    return nonzero(_weights_of(model, layers, weights.prunable))


def nonzero(variables):
    """Returns the mask of what is not zero in a dict of variables."""
    return Mask({name: v.numpy() != 0 for name, v in variables.items()})


def _weights_of(model, layers, by_default):
    """Returns the variables to look at, by the names that masks give them."""
    from keras_lottery.tickets.pruned_model import PrunedModel

    if is_legacy(model):
        from keras_lottery.tickets import legacy_mirror

        model = legacy_mirror.reflect(model)
    elif isinstance(model, PrunedModel):
        model = model.inner
    if layers is not None:
        return weights.prunable(model, layers)
    if enforce.is_attached(model):
        return enforce.attachment(model).variables
    return by_default(model)


def _kernels(model):
    """Returns the kernels by name, those that nothing trains, too."""
    left = weights.unprunable(model)
    found = {
        weight.name: weight.variable
        for weight in naming.walk(model)
        if weight.name not in left or _is_untrained(weight, left[weight.name])
    }
    return found or weights.prunable(model)  # which says why there is none


def _is_untrained(weight, why):
    """Returns whether a weight would be pruned, were it not left untrained."""
    if not why.startswith(("frozen", "quantized")):
        return False
    if type(weight.layer).__module__.startswith("keras."):
        fourier = isinstance(weight.layer, keras.layers.STFTSpectrogram)
        kernel = weight.variable.name.endswith("kernel") and not fourier
    else:
        names = ("bias", "embed", "token")
        role = weight.variable.name.lower()
        kernel = not any(name in role for name in names)
    packed = getattr(weight.layer, "quantization_mode", None) in _PACKED
    if kernel and packed:
        raise ValueError(
            f"{weight.name!r} is packed, several weights to a byte "
            f"({weight.layer.quantization_mode}): ask for the sparsity before "
            "`quantize`."
        )
    return kernel and len(weight.variable.shape) > 1
