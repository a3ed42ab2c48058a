"""The variables of a Keras model by name, and which of them are pruned."""

import fnmatch

import keras

from keras_lottery.pruning.naming import walk

_LORA_BASE = "frozen by enable_lora"


def by_name(model):
    """Returns a dict from name to `keras.Variable`, in walking order."""
    return {weight.name: weight.variable for weight in walk(model)}


def values(model):
    """Returns the value of every trainable floating-point weight.

    Returns:
        Dict from name to array. Criteria score all of these; which of them
        are pruned is the mask's business.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> values(model)["dense/kernel"].shape
    (4, 2)
    """
    return {
        weight.name: weight.variable.numpy()
        for weight in walk(model)
        if weight.variable.trainable and _is_float(weight.variable)
    }


def prunable(model, layers=None):
    """Returns the variables that are pruned, by name.

    By default these are the kernels: trainable weights of rank 2 or more that
    are not biases, normalization, embeddings, low-rank adapters (LoRA) or the
    Fourier basis of a spectrogram. `docs/layers.md` goes through all layers.

    Args:
        model: A built `keras.Model`.
        layers: None for all kernels, or a list of layers and name patterns
            (fnmatch on the layer's path, such as `"block_*"`). What is named
            here is pruned with everything below it, embeddings, adapters and
            Fourier bases too.

    Returns:
        Dict from name to `keras.Variable`, in walking order.

    Raises:
        ValueError: The model is not built, has nothing to prune, or an entry
            of `layers` fits no layer.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> list(prunable(model))
    ['dense/kernel']
    """
    reasons = _reasons(model, layers)
    kept = {w.name: w.variable for w, reason in reasons if reason is None}
    if not kept:
        listed = "".join(f"\n  {w.name}: {why}" for w, why in reasons)
        raise ValueError(
            f"{model.name!r} has no weight to prune. Its weights and why each "
            f"is left out:{listed or ' it has none.'}\n{_advice(reasons)}"
        )
    return kept


def unprunable(model, layers=None):
    """Returns why each of the other variables is left alone, by name.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> unprunable(model)
    {'dense/bias': 'bias'}
    """
    return {w.name: why for w, why in _reasons(model, layers) if why}


def _reasons(model, layers):
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            "Expected a Keras 3 model (`keras.Model`), got "
            f"{type(model).__module__}.{type(model).__name__}."
        )
    found = walk(model)
    if not model.built or not found:
        raise ValueError(
            f"{model.name!r} has no weights yet: it is not built. Call "
            "`model.build(input_shape)`, or the model once on a batch, first."
        )
    asked = _asked_for(found, layers)
    return [(weight, _why_not(weight, asked)) for weight in found]


def _advice(reasons):
    """Returns what can be done where nothing is left to prune."""
    found = {why for _, why in reasons}
    advice = [
        "Name layers with `layers=[...]` to prune embeddings, or set "
        "`trainable = True`."
    ]
    if _LORA_BASE in found:
        advice.append(
            "Prune before `enable_lora`, or merge the adapters into their "
            "kernels first: docs/layers.md shows how."
        )
    if any(why and why.startswith("quantized") for why in found):
        advice.append("Prune first, then `quantize`: zeros stay zeros.")
    return "\n".join(advice)


def _why_not(weight, asked):
    """Returns why `weight` is not pruned, or None if it is."""
    variable, layer = weight.variable, weight.layer
    role = variable.name.lower()
    if not variable.trainable:
        return _why_not_trained(variable, layer)
    if not _is_float(variable):
        return f"dtype {variable.dtype}"
    if "bias" in role:
        return "bias"
    if "Normalization" in type(layer).__name__ or role in ("gamma", "beta"):
        return "normalization"
    if len(variable.shape) < 2:
        return f"rank {len(variable.shape)}"
    if asked is not None and weight.layer_path not in asked:
        return "not in layers="
    if kind := _on_request(layer, role):
        return None if asked else f"{kind} (prune it with layers=)"
    if "kernel" not in role and type(layer).__module__.startswith("keras."):
        return f"not a kernel ({variable.name})"
    return None


def _why_not_trained(variable, layer):
    mode = getattr(layer, "quantization_mode", None)
    if mode and not _is_float(variable):
        return f"quantized ({mode})"
    if not layer.trainable:
        return "frozen (trainable=False)"
    lora = getattr(layer, "lora_enabled", False)
    base = variable.name in ("kernel", "embeddings")
    return _LORA_BASE if lora and base else "not trained"


def _on_request(layer, role):
    """Returns what a matrix is that is no kernel to prune unasked, or None."""
    if role.startswith("lora_"):
        return "LoRA adapter"
    if isinstance(layer, keras.layers.Embedding) or "embed" in role:
        return "embedding"
    if role.endswith("_token"):  # a vector put before a sequence
        return "token"
    if isinstance(layer, keras.layers.STFTSpectrogram):
        return "Fourier basis"
    return None


def _asked_for(found, layers):
    """Returns the layer paths that `layers` selects, or None for all."""
    if layers is None:
        return None
    if isinstance(layers, (str, keras.layers.Layer)):
        layers = [layers]
    if not isinstance(layers, (list, tuple, set)):
        raise ValueError(
            "`layers` takes layers and name patterns, got "
            f"{type(layers).__name__}."
        )
    asked = set()
    for entry in layers:
        fits = {w.layer_path for w in found if _selects(entry, w)}
        if not fits:
            paths = sorted({w.layer_path for w in found})
            shown = entry if isinstance(entry, str) else f"layer {entry.name}"
            raise ValueError(
                f"layers={shown!r} fits no layer of the model. Its layers "
                f"with weights: {', '.join(paths)}."
            )
        asked |= fits
    return asked


def _selects(entry, weight):
    if isinstance(entry, keras.layers.Layer):
        within = [entry, *entry._flatten_layers()]
        return any(layer is weight.layer for layer in within)
    if not isinstance(entry, str):
        raise ValueError(
            "`layers` takes layers and name patterns, got "
            f"{type(entry).__name__}."
        )
    parts = weight.layer_path.split("/")
    above = ("/".join(parts[:i]) for i in range(1, len(parts) + 1))
    return any(fnmatch.fnmatchcase(path, entry) for path in above)


def _is_float(variable):
    return keras.backend.standardize_dtype(variable.dtype).startswith(
        ("float", "bfloat")
    )
